// What the emulated devices are: set by control.h, asked by the runtime functions.
#pragma once

#include <cstddef>

namespace quire::cuda_emulation {

int device_count();
size_t device_memory();

}  // namespace quire::cuda_emulation
