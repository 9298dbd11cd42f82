// Bodies of ldmatrix and mma.sync (kernels/cuda/dev/mma.h says who holds what): warp operations
// over the lanes' registers.
#pragma once

#include <cstdint>

#include "tests/cuda_emulation/lane.h"

namespace quire::cuda_emulation {

void load_matrices(uint32_t* regs, int count, bool transposed, const void* row);
void mma_bf16(float* d, const uint32_t* a, uint32_t b0, uint32_t b1);
void mma_f16(float* d, const uint32_t* a, uint32_t b0, uint32_t b1);
void mma_s8(int32_t* d, const uint32_t* a, uint32_t b0, uint32_t b1);

}  // namespace quire::cuda_emulation
