// The kernels behind Linear, by the name of their file. Each launches for any shape that fits its
// kind of input; which one is asked is linear.cpp's choice.
#pragma once

#include "kernels/cuda/linear/job.h"

namespace quire::cuda {

// fp32 input, any format and number of tokens; meant for up to 16.
cudaError_t stream_fma(cudaStream_t stream, Format format, const LinearJob& job);
// bf16 input, any format but f32; up to 16 tokens.
cudaError_t stream_mma(cudaStream_t stream, Format format, const LinearJob& job);

// Tokens x rows of an output tile. Which one is chosen changes no bit of the result.
enum class TileShape { k16x32, k64x64, k128x128 };
// bf16 input, any format but f32.
cudaError_t tile_mma(cudaStream_t stream, Format format, TileShape shape, const LinearJob& job);
// fp32 input, any format.
cudaError_t tile_simt(cudaStream_t stream, Format format, const LinearJob& job);

// `count` bf16 (a multiple of 8) as f16; numbers beyond its range become the largest.
cudaError_t to_f16(cudaStream_t stream, const void* from, std::size_t count, void* to);

}  // namespace quire::cuda
