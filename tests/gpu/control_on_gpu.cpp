// What the tests ask of the emulation, on a GPU: orders of threads are the hardware's own, and work
// is always done when it is waited for.
#include "tests/cuda_emulation/control.h"

namespace quire::cuda_emulation {

void set_seed(uint64_t) {}
uint64_t seed() {
  return 0;
}
void set_resident_blocks(int) {}
int resident_blocks() {
  return 0;
}
void set_spin_limit_seconds(int) {}
int spin_limit_seconds() {
  return 0;
}
void set_device_count(int) {}
void set_device_memory(size_t) {}
void set_compute_capability(int, int) {}
void set_stream_mode(StreamMode) {}
void name_allocation(const void*, std::string_view) {}

}  // namespace quire::cuda_emulation
