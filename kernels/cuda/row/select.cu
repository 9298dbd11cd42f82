// Rows picked from the ranks that own them: a copy, four columns per thread.
#include "kernels/cuda/row/row.h"
#include "kernels/cuda/row/row_tile.h"

namespace quire::cuda {
namespace {

struct SelectParams {
  const float* parts[CombineJob::kMaxPartials];
  TokenId ends[CombineJob::kMaxPartials];
};

template <bool kAligned>
__global__ void select_kernel(const __grid_constant__ SelectParams p, const TokenId* tokens,
                              int columns, float* out) {
  wait_for_previous_grid();
  allow_next_grid();
  const int at = 4 * static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const std::size_t row = blockIdx.x * static_cast<std::size_t>(columns);
  const TokenId token = tokens[blockIdx.x];
  int owner = 0;
  while (p.ends[owner] <= token) ++owner;
  const float4 quad = load_quad<kAligned>(p.parts[owner] + row, at, columns);
  store_quad<kAligned>(out + row, at, columns, quad);
}

}  // namespace

cudaError_t select(cudaStream_t stream, const float* const* parts, const TokenId* ends,
                   int num_parts, const TokenId* tokens, int rows, int columns, float* out) {
  if (num_parts > CombineJob::kMaxPartials || columns <= 0) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  SelectParams params = {};
  bool aligned = rows_are_aligned(columns, out);
  for (int i = 0; i < num_parts; ++i) {
    params.parts[i] = parts[i];
    params.ends[i] = ends[i];
    aligned = aligned && is_aligned(parts[i], 16);
  }
  const QuadGrid shape = quad_grid(rows, columns);
  return launch_overlapped(aligned ? select_kernel<true> : select_kernel<false>, shape.grid,
                           shape.block, 0, stream, params, tokens, columns, out);
}

}  // namespace quire::cuda
