// What the tests ask of the emulation, on a GPU: orders of threads are the hardware's own, and work
// is always done when it is waited for.
#include "tests/cuda_emulation/control.h"

namespace quire::cuda_emulation {

void set_seed(uint64_t) {}
void set_resident_blocks(int) {}
void set_stream_mode(StreamMode) {}

}  // namespace quire::cuda_emulation
