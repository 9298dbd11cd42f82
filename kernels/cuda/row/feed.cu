// Ids that were picked by the step before go where this step reads its tokens.
#include "kernels/cuda/row/row.h"
#include "kernels/cuda/row/row_tile.h"

namespace quire::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void feed_kernel(TokenId* tokens, const std::int32_t* sources, const TokenId* ids,
                            int num_tokens) {
  wait_for_previous_grid();
  allow_next_grid();
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (t < num_tokens && sources[t] >= 0) tokens[t] = ids[sources[t]];
}

}  // namespace

cudaError_t feed(cudaStream_t stream, TokenId* tokens, const std::int32_t* sources,
                 const TokenId* ids, int num_tokens) {
  if (num_tokens == 0) return cudaSuccess;
  const int blocks = (num_tokens + kThreads - 1) / kThreads;
  return launch_overlapped(feed_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0,
                           stream, tokens, sources, ids, num_tokens);
}

}  // namespace quire::cuda
