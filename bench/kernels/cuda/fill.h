// Kernels that a bench needs beside those it measures.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace quire::bench {

// Numbers in [-1, 1), a function of seed and index.
cudaError_t fill_bf16(cudaStream_t stream, void* to, std::size_t count, std::uint32_t seed);
cudaError_t fill_f32(cudaStream_t stream, float* to, std::size_t count, std::uint32_t seed);
// Reads every 16 bytes of `bytes` once: what memory gives at most.
cudaError_t read_all(cudaStream_t stream, const void* from, std::size_t bytes);

}  // namespace quire::bench
