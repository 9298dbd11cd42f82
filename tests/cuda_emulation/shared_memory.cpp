// Shared memory of a resident block: mappings that are kept from block to block.
#include "tests/cuda_emulation/shared_memory.h"

#include <sys/mman.h>

#include <cstring>

namespace quire::cuda_emulation {
namespace {

constexpr size_t kPage = 4096;
constexpr SharedKey kDynamic{"dynamic shared memory"};
// What one block may use together (compute capability 9.0).
constexpr size_t kMostBytes = 227 * 1024;

size_t round_up(size_t bytes, size_t to) {
  return (bytes + to - 1) / to * to;
}

}  // namespace

SharedMemory::~SharedMemory() {
  for (const Region& region : regions_) munmap(region.base, region.mapped);
  if (dynamic_.base != nullptr) munmap(dynamic_.base, dynamic_.mapped);
}

// Ends `bytes` at the last page of the mapping, which grows where it is too small.
void SharedMemory::place(Region& region, size_t bytes) {
  const size_t padded = round_up(bytes, bytes % 128 == 0 ? 128 : 16);
  const size_t needed = round_up(padded, kPage) + kPage;
  if (needed > region.mapped) {
    if (region.base != nullptr) munmap(region.base, region.mapped);
    void* memory =
        mmap(nullptr, needed, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED ||
        mprotect(static_cast<char*>(memory) + needed - kPage, kPage, PROT_NONE) != 0) {
      die("no memory for %zu bytes of shared memory", bytes);
    }
    region.base = static_cast<char*>(memory);
    region.mapped = needed;
  }
  region.bytes = bytes;
  region.at = region.base + region.mapped - kPage - padded;
  std::memset(region.at, 0xff, padded);
}

void SharedMemory::check_slack(const Region& region) {
  if (region.at == nullptr) return;
  const char* end = region.base + region.mapped - kPage;
  for (const char* at = region.at + region.bytes; at < end; ++at) {
    if (*at == static_cast<char>(0xff)) continue;
    die("shared array '%s' of %zu bytes was written behind its end, %td bytes after it",
        region.key->name, region.bytes, at - region.at - static_cast<ptrdiff_t>(region.bytes));
  }
}

void SharedMemory::begin_block(size_t dynamic_bytes) {
  ++block_;
  dynamic_.key = &kDynamic;
  dynamic_.block = block_;
  place(dynamic_, dynamic_bytes);
}

void SharedMemory::end_block() const {
  check_slack(dynamic_);
  for (const Region& region : regions_) {
    if (region.block == block_) check_slack(region);
  }
}

void* SharedMemory::find(const SharedKey* key, size_t bytes) {
  size_t used = dynamic_.bytes;
  for (Region& region : regions_) {
    if (region.key == key) {
      if (region.block != block_) {
        region.block = block_;
        place(region, bytes);
      }
      return region.at;
    }
    if (region.block == block_) used += region.bytes;
  }
  if (used + bytes > kMostBytes) {
    die("block uses more than %zu bytes of shared memory with '%s'", kMostBytes, key->name);
  }
  Region region;
  region.key = key;
  region.block = block_;
  place(region, bytes);
  regions_.push_back(region);
  return region.at;
}

bool SharedMemory::contains(const void* address, size_t bytes) const {
  const char* at = static_cast<const char*>(address);
  const auto inside = [&](const Region& region) {
    return region.block == block_ && at >= region.at && at + bytes <= region.at + region.bytes;
  };
  if (inside(dynamic_)) return true;
  for (const Region& region : regions_) {
    if (inside(region)) return true;
  }
  return false;
}

const char* SharedMemory::owner_of(const void* address) const {
  const char* at = static_cast<const char*>(address);
  const auto holds = [&](const Region& region) {
    return region.base != nullptr && at >= region.base && at < region.base + region.mapped;
  };
  if (holds(dynamic_)) return dynamic_.key->name;
  for (const Region& region : regions_) {
    if (holds(region)) return region.key->name;
  }
  return nullptr;
}

}  // namespace quire::cuda_emulation
