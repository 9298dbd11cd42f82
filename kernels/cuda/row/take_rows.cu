// Some rows of a matrix, one after the other: a copy, four columns per thread.
#include "kernels/cuda/row/row.h"
#include "kernels/cuda/row/row_tile.h"

namespace quire::cuda {
namespace {

template <bool kAligned>
__global__ void take_rows_kernel(const float* x, const std::int32_t* rows, int columns,
                                 float* out) {
  wait_for_previous_grid();
  allow_next_grid();
  const int at = 4 * static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const auto width = static_cast<std::size_t>(columns);
  const std::size_t from = static_cast<std::size_t>(rows[blockIdx.x]) * width;
  const float4 quad = load_quad<kAligned>(x + from, at, columns);
  store_quad<kAligned>(out + blockIdx.x * width, at, columns, quad);
}

}  // namespace

cudaError_t take_rows(cudaStream_t stream, const float* x, const std::int32_t* rows, int num_rows,
                      int columns, float* out) {
  if (columns <= 0) return cudaErrorInvalidValue;
  if (num_rows == 0) return cudaSuccess;
  const bool aligned = rows_are_aligned(columns, x, out);
  const QuadGrid shape = quad_grid(num_rows, columns);
  return launch_overlapped(aligned ? take_rows_kernel<true> : take_rows_kernel<false>, shape.grid,
                           shape.block, 0, stream, x, rows, columns, out);
}

}  // namespace quire::cuda
