#include "worker/comm/shm_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/clock.h"

namespace quire {
namespace {

constexpr std::uint64_t kMagic = 0x5175697265316502ull;  // layout version in the last byte

std::size_t header_bytes() {
  return (sizeof(SegmentHeader) + 4095) / 4096 * 4096;
}

absl::Status no_space(const std::string& name, std::size_t need) {
  struct statvfs fs {};
  const bool known = statvfs("/dev/shm", &fs) == 0;
  const std::size_t have = known ? fs.f_bavail * fs.f_frsize : 0;
  return absl::ResourceExhaustedError(absl::StrCat(
      "the ranks' exchange buffer ", name, " needs ", need,
      " bytes of shared memory and /dev/shm has ", have,
      " free; enlarge /dev/shm (docker: --shm-size, Kubernetes: an emptyDir of medium Memory) or "
      "lower --max-num-batched-tokens"));
}

absl::StatusOr<int> create_file(const std::string& name, std::size_t bytes) {
  const int fd = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::AlreadyExistsError(absl::StrCat("cannot create shared memory ", name, ": ",
                                                 std::strerror(errno),
                                                 "; is another group using this instance id?"));
  }
  // Reserves the pages now: a full /dev/shm is an error here and not a SIGBUS later.
  if (const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0) {
    close(fd);
    shm_unlink(name.c_str());
    return no_space(name, bytes);
  }
  return fd;
}

// The creator may be slower: waits until the file exists and has its full size.
absl::StatusOr<int> open_file(const std::string& name, std::size_t bytes, absl::Time deadline) {
  for (;;) {
    const int fd = shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0600);
    struct stat info {};
    const bool known = fd >= 0 && fstat(fd, &info) == 0;
    if (known && info.st_uid != geteuid()) {
      close(fd);
      return absl::PermissionDeniedError(absl::StrCat(
          "shared memory ", name, " belongs to another user (", info.st_uid, ") and is not used"));
    }
    if (known && static_cast<std::size_t>(info.st_size) == bytes) return fd;
    if (fd >= 0) close(fd);
    if (steady_now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "rank 0 of this host did not create shared memory ", name, " of ", bytes,
          " bytes in time; it failed to start, or runs with other options than this rank"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

absl::Status wait_until(const std::atomic<std::uint64_t>& word, std::uint64_t value,
                        absl::Time deadline, const char* what) {
  while (word.load(std::memory_order_acquire) != value) {
    if (steady_now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "gave up waiting for ", what, "; another rank of this host failed to start"));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ShmSegment> ShmSegment::open(const std::string& name, bool create, int num_local,
                                            std::size_t half_bytes, int deadline_ms) {
  const absl::Time deadline = steady_now() + absl::Milliseconds(deadline_ms);
  const std::size_t bytes = header_bytes() + 2 * half_bytes;
  const auto file = create ? create_file(name, bytes) : open_file(name, bytes, deadline);
  if (!file.ok()) return file.status();
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *file, 0);
  close(*file);
  if (memory == MAP_FAILED) {
    if (create) shm_unlink(name.c_str());
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", bytes, " bytes of shared memory: ", std::strerror(errno)));
  }
  ShmSegment segment(memory, bytes, half_bytes);
  SegmentHeader& header = segment.header();
  if (create) header.magic.value.store(kMagic, std::memory_order_release);
  absl::Status status =
      wait_until(header.magic.value, kMagic, deadline, "the shared-memory header");
  if (status.ok()) {
    header.attached.value.fetch_add(1, std::memory_order_acq_rel);
    status = wait_until(header.attached.value, static_cast<std::uint64_t>(num_local), deadline,
                        "all ranks to map the shared memory");
  }
  if (create) shm_unlink(name.c_str());
  if (!status.ok()) return status;
  return segment;
}

ShmSegment::ShmSegment(ShmSegment&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)),
      bytes_(other.bytes_),
      half_bytes_(other.half_bytes_) {}

ShmSegment& ShmSegment::operator=(ShmSegment&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(bytes_, other.bytes_);
  std::swap(half_bytes_, other.half_bytes_);
  return *this;
}

ShmSegment::~ShmSegment() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

std::byte* ShmSegment::half(std::uint64_t k) {
  return static_cast<std::byte*>(memory_) + header_bytes() + (k % 2) * half_bytes_;
}

}  // namespace quire
