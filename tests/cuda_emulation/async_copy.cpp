// cp.async, deferred: see async_copy.h.
#include "tests/cuda_emulation/async_copy.h"

#include <cstring>

#include "tests/cuda_emulation/shared_memory.h"

namespace quire::cuda_emulation {

void async_copy(void* shared, const void* global, uint32_t bytes) {
  Lane& self = *current_lane;
  check_aligned(shared, bytes, "async_copy to shared");
  check_aligned(global, bytes, "async_copy from global");
  const SharedMemory& memory = *self.block->shared;
  if (!memory.contains(shared, bytes)) die("calls async_copy to %p, outside shared memory", shared);
  if (global != nullptr) {
    if (memory.contains(global, 1)) die("calls async_copy from shared memory");
    // The source is read here once, so that a bad address faults at its own line.
    volatile char touched = static_cast<const volatile char*>(global)[bytes - 1];
    touched = static_cast<const volatile char*>(global)[0];
    static_cast<void>(touched);
  }
  std::memset(shared, 0xff, bytes);
  self.copies.push_back({shared, global, bytes, self.copy_group});
}

void async_commit() {
  ++current_lane->copy_group;
}

void async_wait(uint32_t pending_groups) {
  Lane& self = *current_lane;
  size_t done = 0;
  for (const PendingCopy& copy : self.copies) {
    if (copy.group + pending_groups >= self.copy_group) break;
    if (copy.from == nullptr) {
      std::memset(copy.to, 0, copy.bytes);
    } else {
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
    ++done;
  }
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<ptrdiff_t>(done));
}

}  // namespace quire::cuda_emulation
