// Rows picked from the ranks that own them: a copy, four columns per thread.
#include "kernels/cuda/row/row.h"
#include "kernels/cuda/row/row_tile.h"

namespace quire::cuda {
namespace {

constexpr int kThreads = 256;

struct SelectParams {
  const float* parts[CombineJob::kMaxPartials];
};

template <bool kAligned>
__global__ void select_kernel(const __grid_constant__ SelectParams p, const std::int32_t* owners,
                              int columns, float* out) {
  wait_for_previous_grid();
  allow_next_grid();
  const int at = 4 * static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const std::size_t row = blockIdx.x * static_cast<std::size_t>(columns);
  const float4 quad = load_quad<kAligned>(p.parts[owners[blockIdx.x]] + row, at, columns);
  store_quad<kAligned>(out + row, at, columns, quad);
}

}  // namespace

cudaError_t select(cudaStream_t stream, const float* const* parts, int num_parts,
                   const std::int32_t* owners, int rows, int columns, float* out) {
  if (num_parts > CombineJob::kMaxPartials || columns <= 0) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  SelectParams params = {};
  bool aligned = rows_are_aligned(columns, out);
  for (int i = 0; i < num_parts; ++i) {
    params.parts[i] = parts[i];
    aligned = aligned && is_aligned(parts[i], 16);
  }
  const int quads = (columns + 3) / 4;
  const int threads = quads < kThreads ? (quads + kWarpSize - 1) / kWarpSize * kWarpSize : kThreads;
  const dim3 grid(static_cast<unsigned>(rows),
                  static_cast<unsigned>((quads + threads - 1) / threads));
  return launch_overlapped(aligned ? select_kernel<true> : select_kernel<false>, grid,
                           dim3(static_cast<unsigned>(threads)), 0, stream, params, owners, columns,
                           out);
}

}  // namespace quire::cuda
