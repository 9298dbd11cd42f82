// Reads and writes instead of a mapping: what a disk refuses is then a Status, never a signal.
#include "worker/kv/block_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/hash.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr std::size_t kPage = 4096;
constexpr char kMagic[8] = {'q', 'u', 'i', 'r', 'e', 'k', 'v', '\n'};
constexpr std::uint64_t kVersion = 1;

// As it lies in the file, in this machine's byte order; no padding.
struct Header {
  char magic[8] = {};
  std::uint64_t version = 0;
  std::uint64_t model_hash = 0;
  std::uint64_t digest = 0;
  std::uint64_t block_bytes = 0;
  std::uint64_t num_blocks = 0;
  std::uint64_t saved = 0;
  std::uint64_t table_sum = 0;  // of the checksums that follow; only with `saved`
  std::uint64_t sum = 0;        // of all above
};
static_assert(sizeof(Header) == 72);

std::uint64_t sum_of(const Header& header) {
  return hash64(kVersion,
                {reinterpret_cast<const char*>(&header), sizeof(Header) - sizeof(header.sum)});
}

std::uint64_t sum_of(const std::vector<std::uint64_t>& table) {
  return hash64(kVersion, {reinterpret_cast<const char*>(table.data()), table.size() * 8});
}

// Never 0, which stands for no block.
std::uint64_t sum_of_block(const void* block, std::size_t bytes) {
  return std::max<std::uint64_t>(hash64(0, {static_cast<const char*>(block), bytes}), 1);
}

std::size_t whole_pages(std::size_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}

// Reasons that no other start changes.
absl::Status cannot_open(const std::string& path, int error) {
  return absl::OutOfRangeError(absl::StrCat("cannot keep KV blocks in ", path, ": ",
                                            std::strerror(error),
                                            "; give another --kv-offload-path"));
}

absl::Status no_room(const std::string& path, std::size_t needed, std::uint64_t available) {
  return absl::OutOfRangeError(absl::StrCat(
      path, " needs ", needed, " bytes for KV blocks, and the disk has ", available,
      " bytes for it; ask for less by --kv-offload-bytes, or give another --kv-offload-path"));
}

std::string folder_of(const std::string& path) {
  return path.substr(0, path.find_last_of('/') + 1);
}

}  // namespace

BlockFile::BlockFile(std::string path, const BlockFileLayout& layout)
    : path_(std::move(path)), layout_(layout) {}

BlockFile::~BlockFile() {
  if (file_ >= 0) ::close(file_);  // the lock goes with it
}

std::size_t BlockFile::table_bytes() const {
  return static_cast<std::size_t>(layout_.num_blocks) * sizeof(std::uint64_t);
}

std::size_t BlockFile::offset_of(int slot) const {
  return kPage + whole_pages(table_bytes()) + static_cast<std::size_t>(slot) * layout_.block_bytes;
}

absl::StatusOr<std::unique_ptr<BlockFile>> BlockFile::open(const std::string& path,
                                                           const BlockFileLayout& layout,
                                                           absl::Duration patience) {
  QUIRE_CHECK(layout.num_blocks > 0 && layout.block_bytes > 0);
  auto file = std::unique_ptr<BlockFile>(new BlockFile(path, layout));
  QUIRE_RETURN_IF_ERROR(file->open_and_lock(patience));
  if (file->read_header()) return file;
  QUIRE_RETURN_IF_ERROR(file->make_room());
  file->clear();
  QUIRE_RETURN_IF_ERROR(file->write_header(0));
  return file;
}

absl::Status BlockFile::open_and_lock(absl::Duration patience) {
  const std::string folder = folder_of(path_);
  if (!folder.empty() && ::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return cannot_open(path_, errno);
  }
  // What prompts said can be read off K and V: for nobody else's eyes.
  file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  if (file_ < 0) return cannot_open(path_, errno);
  struct stat facts = {};
  if (::fstat(file_, &facts) != 0) return cannot_open(path_, errno);
  if (!S_ISREG(facts.st_mode)) return cannot_open(path_, EINVAL);
  // Whoever owns it could read it, and write into it between two lives.
  if (facts.st_uid != ::geteuid()) return cannot_open(path_, EACCES);
  if (::fchmod(file_, 0600) != 0) return cannot_open(path_, errno);
  const absl::Time deadline = steady_now() + patience;
  while (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return cannot_open(path_, errno);
    if (steady_now() >= deadline) {
      return absl::UnavailableError(absl::StrCat("another process keeps its KV blocks in ", path_,
                                                 "; end it, or give another --kv-offload-path"));
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  return absl::OkStatus();
}

// Whether the file is ours, whole, and was put down in order.
bool BlockFile::read_header() {
  struct stat facts = {};
  Header header;
  if (::fstat(file_, &facts) != 0 || static_cast<std::size_t>(facts.st_size) != file_bytes() ||
      !read_at(0, &header, sizeof(header)).ok()) {
    return false;
  }
  const bool ours =
      std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0 && header.version == kVersion &&
      header.sum == sum_of(header) && header.model_hash == layout_.model_hash &&
      header.digest == layout_.digest && header.block_bytes == layout_.block_bytes &&
      header.num_blocks == static_cast<std::uint64_t>(layout_.num_blocks) && header.saved != 0;
  if (!ours) return false;
  clear();
  if (!read_at(kPage, sums_.data(), table_bytes()).ok()) return false;
  if (header.table_sum != sum_of(sums_)) return false;
  saved_ = header.saved;
  return true;
}

// So that a full disk is found now.
absl::Status BlockFile::make_room() {
  const std::size_t bytes = file_bytes();
  struct stat facts = {};
  if (::fstat(file_, &facts) != 0) return cannot_open(path_, errno);
  if (static_cast<std::size_t>(facts.st_size) != bytes && ::ftruncate(file_, 0) != 0) {
    return cannot_open(path_, errno);
  }
  struct statvfs disk = {};
  if (::fstat(file_, &facts) != 0 || ::fstatvfs(file_, &disk) != 0) {
    return cannot_open(path_, errno);
  }
  const std::uint64_t available =
      static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize +
      static_cast<std::uint64_t>(facts.st_blocks) * 512;  // those are its own already
  if (available < bytes) return no_room(path_, bytes, available);
  int error = EINTR;
  while (error == EINTR) error = ::posix_fallocate(file_, 0, static_cast<off_t>(bytes));
  if (error == 0) return absl::OkStatus();
  // What was taken so far is given back, as far as that goes.
  static_cast<void>(::ftruncate(file_, 0) != 0);
  if (error == ENOSPC || error == EFBIG || error == EDQUOT) {
    return no_room(path_, bytes, available);
  }
  return cannot_open(path_, error);
}

absl::Status BlockFile::write_header(std::uint64_t saved) {
  Header header;
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.model_hash = layout_.model_hash;
  header.digest = layout_.digest;
  header.block_bytes = layout_.block_bytes;
  header.num_blocks = static_cast<std::uint64_t>(layout_.num_blocks);
  header.saved = saved;
  header.table_sum = saved != 0 ? sum_of(sums_) : 0;
  header.sum = sum_of(header);
  QUIRE_RETURN_IF_ERROR(write_at(0, &header, sizeof(header)));
  QUIRE_RETURN_IF_ERROR(sync());
  saved_ = saved;
  return absl::OkStatus();
}

absl::Status BlockFile::unseal() {
  return saved_ == 0 ? absl::OkStatus() : write_header(0);
}

void BlockFile::clear() {
  sums_.assign(static_cast<std::size_t>(layout_.num_blocks), 0);
}

absl::Status BlockFile::write(int slot, const void* block) {
  QUIRE_CHECK_EQ(saved_, 0u);
  sums_[static_cast<std::size_t>(slot)] = sum_of_block(block, layout_.block_bytes);
  return write_at(offset_of(slot), block, layout_.block_bytes);
}

absl::Status BlockFile::read(int slot, void* block) const {
  QUIRE_RETURN_IF_ERROR(read_at(offset_of(slot), block, layout_.block_bytes));
  if (sum_of_block(block, layout_.block_bytes) == sums_[static_cast<std::size_t>(slot)]) {
    return absl::OkStatus();
  }
  return absl::DataLossError(
      absl::StrCat("KV block ", slot, " of ", path_,
                   " is not what was written there; the disk or another program changed it"));
}

absl::Status BlockFile::seal(std::uint64_t id) {
  QUIRE_CHECK_EQ(saved_, 0u);
  QUIRE_CHECK(id != 0);
  QUIRE_RETURN_IF_ERROR(write_at(kPage, sums_.data(), table_bytes()));
  QUIRE_RETURN_IF_ERROR(sync());
  return write_header(id);
}

absl::Status BlockFile::write_at(std::size_t offset, const void* from, std::size_t bytes) {
  const char* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t done = ::pwrite(file_, at, bytes, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      return absl::DataLossError(absl::StrCat("cannot write ", bytes, " bytes of KV blocks to ",
                                              path_, ": ", std::strerror(errno)));
    }
    at += done;
    offset += static_cast<std::size_t>(done);
    bytes -= static_cast<std::size_t>(done);
  }
  return absl::OkStatus();
}

absl::Status BlockFile::read_at(std::size_t offset, void* to, std::size_t bytes) const {
  char* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t done = ::pread(file_, at, bytes, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      return absl::DataLossError(
          absl::StrCat("cannot read ", bytes, " bytes of KV blocks from ", path_, ": ",
                       done == 0 ? "the file ends before them" : std::strerror(errno)));
    }
    at += done;
    offset += static_cast<std::size_t>(done);
    bytes -= static_cast<std::size_t>(done);
  }
  return absl::OkStatus();
}

absl::Status BlockFile::sync() {
  if (::fdatasync(file_) == 0) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("the disk did not take the KV blocks of ", path_, ": ", std::strerror(errno)));
}

}  // namespace quire
