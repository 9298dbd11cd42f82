// Copy-on-write of KV blocks: every pair is a run of bytes, copied 16 at a time by enough thread
// blocks to fill the device also when one block is copied.
#include "kernels/cuda/row/row.h"
#include "kernels/cuda/row/row_tile.h"

namespace quire::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;  // 16-byte words of a thread

__global__ void copy_blocks_kernel(std::byte* arena, std::size_t block_bytes, const BlockId* from,
                                   const BlockId* to) {
  wait_for_previous_grid();
  allow_next_grid();
  const std::byte* source = arena + static_cast<std::size_t>(from[blockIdx.x]) * block_bytes;
  std::byte* target = arena + static_cast<std::size_t>(to[blockIdx.x]) * block_bytes;
  const std::size_t words = block_bytes / 16;
  const std::size_t first = static_cast<std::size_t>(blockIdx.y) * kThreads * kUnroll + threadIdx.x;
  uint4 word[kUnroll];
  QUIRE_UNROLL
  for (int i = 0; i < kUnroll; ++i) {
    const std::size_t at = first + static_cast<std::size_t>(i) * kThreads;
    if (at < words) word[i] = load16(source + 16 * at);
  }
  QUIRE_UNROLL
  for (int i = 0; i < kUnroll; ++i) {
    const std::size_t at = first + static_cast<std::size_t>(i) * kThreads;
    if (at < words) store16(target + 16 * at, word[i]);
  }
}

// Blocks of any size and alignment.
__global__ void copy_bytes_kernel(std::byte* arena, std::size_t block_bytes, const BlockId* from,
                                  const BlockId* to) {
  wait_for_previous_grid();
  allow_next_grid();
  const std::byte* source = arena + static_cast<std::size_t>(from[blockIdx.x]) * block_bytes;
  std::byte* target = arena + static_cast<std::size_t>(to[blockIdx.x]) * block_bytes;
  for (std::size_t i = threadIdx.x; i < block_bytes; i += blockDim.x) target[i] = source[i];
}

}  // namespace

cudaError_t copy_blocks(cudaStream_t stream, std::byte* arena, std::size_t block_bytes,
                        const BlockId* from, const BlockId* to, int count) {
  if (count == 0 || block_bytes == 0) return cudaSuccess;
  dim3 grid(static_cast<unsigned>(count));
  if (!is_aligned(arena, 16) || block_bytes % 16 != 0) {
    return launch_overlapped(copy_bytes_kernel, grid, dim3(kThreads), 0, stream, arena, block_bytes,
                             from, to);
  }
  const std::size_t words = block_bytes / 16;
  grid.y = static_cast<unsigned>((words + kThreads * kUnroll - 1) / (kThreads * kUnroll));
  return launch_overlapped(copy_blocks_kernel, grid, dim3(kThreads), 0, stream, arena, block_bytes,
                           from, to);
}

}  // namespace quire::cuda
