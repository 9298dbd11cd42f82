// Every piece is an anonymous mapping: a few hundred of them per process, each page-aligned.
#include "kernels/host_memory.h"

#include <sys/mman.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace quire {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

HostMemory::~HostMemory() {
  for (const auto& [memory, bytes] : pieces_) munmap(memory, bytes);
}

absl::StatusOr<void*> HostMemory::allocate(std::size_t bytes, const std::string& what) {
  const std::size_t mapped = (bytes / kPage + 1) * kPage;
  void* memory = MAP_FAILED;
  if (mapped > bytes) {  // no overflow
    memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes for ", what,
                                                     "; free memory or ask for less."));
  }
  if (mapped >= kHugePage) madvise(memory, mapped, MADV_HUGEPAGE);  // a wish, may be refused
  const std::lock_guard lock(mutex_);
  pieces_.emplace(memory, mapped);
  return memory;
}

void HostMemory::free(void* memory) {
  if (memory == nullptr) return;
  const std::lock_guard lock(mutex_);
  const auto piece = pieces_.find(memory);
  QUIRE_CHECK(piece != pieces_.end());
  munmap(memory, piece->second);
  pieces_.erase(piece);
}

std::int64_t free_host_bytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  std::int64_t kilobytes = 0;
  std::string unit;
  while (meminfo >> key >> kilobytes) {
    std::getline(meminfo, unit);
    if (key == "MemAvailable:") return kilobytes * 1024;
  }
  return 0;
}

}  // namespace quire
