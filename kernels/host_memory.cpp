// Anonymous mappings: a few hundred per process, each page-aligned; regions begin at a huge page.
#include "kernels/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace quire {
namespace {

constexpr std::size_t kRegionBytes = 8 * kHostHugePage;
constexpr std::size_t kRegionPiece = std::size_t{64} << 10;  // the smallest in a region

void* map(std::size_t bytes) {
  return mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

// A region's memory, or null: what a mapping has before its first huge page and beyond is returned.
std::byte* map_region() {
  void* mapping = map(kRegionBytes + kHostHugePage);
  if (mapping == MAP_FAILED) return nullptr;
  auto* first = static_cast<std::byte*>(mapping);
  const std::size_t past = reinterpret_cast<std::uintptr_t>(first) % kHostHugePage;
  const std::size_t skipped = past == 0 ? 0 : kHostHugePage - past;
  if (skipped > 0) munmap(first, skipped);
  munmap(first + skipped + kRegionBytes, kHostHugePage - skipped);
  madvise(first + skipped, kRegionBytes, MADV_HUGEPAGE);  // a wish, may be refused
  return first + skipped;
}

}  // namespace

HostMemory::~HostMemory() {
  for (const auto& [memory, bytes] : pieces_) {
    if (bytes > 0) munmap(memory, bytes);
  }
  for (const Region& region : regions_) munmap(region.begin, kRegionBytes);
}

absl::StatusOr<void*> HostMemory::allocate(std::size_t bytes, const std::string& what) {
  const std::size_t mapped = (bytes / kHostPage + 1) * kHostPage;
  if (bytes >= kRegionPiece && bytes < kHostHugePage - kHostPage) {
    if (void* piece = allocate_in_region(mapped)) return piece;
  }
  void* memory = MAP_FAILED;
  if (mapped > bytes) memory = map(mapped);  // no overflow
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes for ", what,
                                                     "; free memory or ask for less."));
  }
  if (mapped >= kHostHugePage) madvise(memory, mapped, MADV_HUGEPAGE);  // a wish, may be refused
  const std::lock_guard lock(mutex_);
  pieces_.emplace(memory, mapped);
  return memory;
}

void HostMemory::free(void* memory) {
  if (memory == nullptr) return;
  const std::lock_guard lock(mutex_);
  const auto piece = pieces_.find(memory);
  QUIRE_CHECK(piece != pieces_.end());
  if (piece->second > 0) {
    munmap(memory, piece->second);
  } else {
    free_in_region(memory);
  }
  pieces_.erase(piece);
}

void* HostMemory::allocate_in_region(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (regions_.empty() || regions_.back().used + bytes > kRegionBytes) {
    std::byte* begin = map_region();
    if (begin == nullptr) return nullptr;
    regions_.push_back({.begin = begin});
  }
  Region& region = regions_.back();
  void* piece = region.begin + region.used;
  region.used += bytes;
  ++region.live;
  pieces_.emplace(piece, 0);
  return piece;
}

// Called with the lock held. Room is not used twice: pieces are promised to be zero.
void HostMemory::free_in_region(void* memory) {
  const auto region = std::find_if(regions_.begin(), regions_.end(), [memory](const Region& r) {
    return memory >= r.begin && memory < r.begin + kRegionBytes;
  });
  QUIRE_CHECK(region != regions_.end());
  if (--region->live > 0) return;
  munmap(region->begin, kRegionBytes);
  regions_.erase(region);
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
