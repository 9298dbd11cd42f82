// The registry of guarded memory.
#include "tests/cuda_emulation/guard.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>

#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/guard_registry.h"
#include "tests/cuda_emulation/lane.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace quire::cuda_emulation {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kGuard = 64 * 1024;
constexpr size_t kQuarantined = 64;

size_t round_up(size_t bytes, size_t to) {
  return (bytes + to - 1) / to * to;
}

// cudaMalloc aligns to 256: kept where the size allows it without a gap at the end.
size_t padded_bytes(size_t bytes) {
  return round_up(bytes, bytes % 256 == 0 ? 256 : 16);
}

void poison(const char* at, size_t bytes, bool on) {
#if defined(__SANITIZE_ADDRESS__)
  if (on) {
    __asan_poison_memory_region(at, bytes);
  } else {
    __asan_unpoison_memory_region(at, bytes);
  }
#else
  static_cast<void>(at), static_cast<void>(bytes), static_cast<void>(on);
#endif
}

const char* slack_end(const Allocation& a) {
  return a.at + padded_bytes(a.bytes);
}

void check_slack(const Allocation& a) {
  if (a.kind == MemoryKind::kForeign) return;
  poison(a.at + a.bytes, static_cast<size_t>(slack_end(a) - a.at) - a.bytes, false);
  for (const char* at = a.at + a.bytes; at < slack_end(a); ++at) {
    if (*at == static_cast<char>(0xff)) continue;
    die("%s was written behind its end, %td bytes after it", describe(a).c_str(),
        at - a.at - static_cast<ptrdiff_t>(a.bytes));
  }
  poison(a.at + a.bytes, static_cast<size_t>(slack_end(a) - a.at) - a.bytes, true);
}

}  // namespace

Registry& registry() {
  static auto* instance = new Registry;  // outlives every thread's last use
  return *instance;
}

std::string describe(const Allocation& a) {
  return (a.freed ? std::string("freed ") : std::string()) +
         (a.kind == MemoryKind::kDevice ? "allocation " : "pinned allocation ") +
         (a.name.empty() ? "" : "'" + a.name + "' ") + "#" + std::to_string(a.number) + " of " +
         std::to_string(a.bytes) + " bytes on device " + std::to_string(a.device);
}

void* allocate(size_t bytes, int device, MemoryKind kind) {
  const size_t padded = padded_bytes(bytes);
  const size_t usable = round_up(padded, kPage);
  const size_t mapped = kGuard + usable + kGuard;
  void* memory =
      mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  Allocation a;
  a.base = static_cast<char*>(memory);
  a.mapped = mapped;
  if (mprotect(a.base + kGuard, usable, PROT_READ | PROT_WRITE) != 0) {
    munmap(memory, mapped);
    return nullptr;
  }
  a.at = a.base + kGuard + usable - padded;
  a.bytes = bytes;
  a.device = device;
  a.kind = kind;
  std::memset(a.base + kGuard, 0xff, usable);
  poison(a.base + kGuard, usable - padded, true);
  poison(a.at + bytes, padded - bytes, true);
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  a.number = ++r.made;
  if (kind == MemoryKind::kDevice) r.used[device] += bytes;
  return r.live.emplace(a.base, a).first->second.at;
}

FreeResult release(void* pointer, MemoryKind kind) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  Allocation* found = r.holding(pointer);
  if (found == nullptr || found->at != pointer || found->kind != kind) return FreeResult::kUnknown;
  check_slack(*found);
  Allocation a = *found;
  r.live.erase(a.base);
  if (kind == MemoryKind::kDevice) r.used[a.device] -= a.bytes;
  if (a.shared_fd >= 0) close(a.shared_fd);
  // New inaccessible pages in place of the old ones: their memory is given back.
  poison(a.base + kGuard, a.mapped - 2 * kGuard, false);
  mmap(a.base, a.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  a.freed = true;
  r.freed.push_back(a);
  if (r.freed.size() > kQuarantined) {
    munmap(r.freed.front().base, r.freed.front().mapped);
    r.freed.pop_front();
  }
  return FreeResult::kDone;
}

std::optional<Allocation> find_allocation(const void* pointer, size_t bytes) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto* at = static_cast<const char*>(pointer);
  const Allocation* a = r.holding(pointer);
  if (a == nullptr || at < a->at || at + bytes > a->at + a->bytes) return std::nullopt;
  return *a;
}

size_t device_bytes_used(int device) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  return r.used[device];
}

size_t live_allocations() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  return r.live.size();
}

void check_all_slack() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  for (const auto& [base, a] : r.live) check_slack(a);
}

int share_allocation(const void* pointer, size_t* mapped, size_t* offset) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  Allocation* a = r.holding(pointer);
  if (a == nullptr || a->at != pointer) return -1;
  const size_t usable = a->mapped - 2 * kGuard;
  char* const pages = a->base + kGuard;
  if (a->shared_fd < 0) {
    const int fd = memfd_create("quire-emulated-cuda", MFD_CLOEXEC);
    poison(pages, usable, false);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(usable)) != 0 ||
        pwrite(fd, pages, usable, 0) != static_cast<ssize_t>(usable) ||
        mmap(pages, usable, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
      if (fd >= 0) close(fd);
      return -1;
    }
    a->shared_fd = fd;
  }
  *mapped = usable;
  *offset = static_cast<size_t>(a->at - pages);
  return a->shared_fd;
}

void adopt(void* pointer, size_t bytes, void* mapping, size_t mapped) {
  Allocation a;
  a.at = static_cast<char*>(pointer);
  a.bytes = bytes;
  a.kind = MemoryKind::kForeign;
  a.base = static_cast<char*>(mapping);
  a.mapped = mapped;
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  a.number = ++r.made;
  r.live[a.base] = a;
}

void disown(void* pointer) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  if (Allocation* a = r.holding(pointer)) r.live.erase(a->base);
}

void name_allocation(const void* pointer, std::string_view name) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  if (Allocation* a = r.holding(pointer)) a->name = std::string(name);
}

}  // namespace quire::cuda_emulation
