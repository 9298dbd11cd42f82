// The file: id, then the index, which carries its own checksum.
#include "coordinator/engine/prefix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire {
namespace {

constexpr std::size_t kPiece = 1 << 20;

std::string path_of(const std::string& folder, std::uint64_t model_hash) {
  return absl::StrFormat("%s/prefixes-%016x.index", folder, model_hash);
}

absl::Status cannot(const char* what, const std::string& path) {
  return absl::UnavailableError(absl::StrCat("Cannot ", what, " ", path,
                                             ", the index of the saved KV blocks (",
                                             std::strerror(errno), "); check --kv-offload-path."));
}

bool write_all(int file, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

absl::StatusOr<SavedPrefixes> read_prefix_file(const std::string& folder,
                                               std::uint64_t model_hash) {
  const std::string path = path_of(folder, model_hash);
  SavedPrefixes saved;
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0)
    return errno == ENOENT ? absl::StatusOr<SavedPrefixes>(saved) : cannot("open", path);
  const absl::Cleanup close = [file] { ::close(file); };
  struct stat facts = {};
  if (::fstat(file, &facts) != 0) return cannot("read", path);
  // Only what this user's own server has written is believed.
  if (!S_ISREG(facts.st_mode) || facts.st_uid != ::geteuid()) return saved;
  std::string bytes;
  while (true) {
    const std::size_t end = bytes.size();
    bytes.resize(end + kPiece);
    const ssize_t got = ::read(file, bytes.data() + end, kPiece);
    if (got < 0 && errno != EINTR) return cannot("read", path);
    bytes.resize(end + static_cast<std::size_t>(got > 0 ? got : 0));
    if (got == 0) break;
  }
  if (bytes.size() < sizeof(saved.id)) return saved;
  std::memcpy(&saved.id, bytes.data(), sizeof(saved.id));
  saved.index = bytes.substr(sizeof(saved.id));
  return saved;
}

absl::Status write_prefix_file(const std::string& folder, std::uint64_t model_hash,
                               const SavedPrefixes& saved) {
  const std::string path = path_of(folder, model_hash);
  const std::string fresh = path + ".new";
  ::unlink(fresh.c_str());
  // It holds tokens of prompts: for nobody else's eyes.
  const int file =
      ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file < 0) return cannot("write", fresh);
  const absl::string_view id(reinterpret_cast<const char*>(&saved.id), sizeof(saved.id));
  const bool written = write_all(file, id) && write_all(file, saved.index) && ::fsync(file) == 0;
  if (::close(file) != 0 || !written) return cannot("write", fresh);
  if (std::rename(fresh.c_str(), path.c_str()) != 0) return cannot("replace", path);
  return absl::OkStatus();
}

}  // namespace quire
