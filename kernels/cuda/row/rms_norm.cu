// RMS norm: one block per row, the row in registers between its two uses. The weights do not depend
// on the kernel before this one, so they are fetched while that one may still run.
#include "kernels/cuda/row/row.h"
#include "kernels/cuda/row/row_tile.h"

namespace quire::cuda {
namespace {

template <int kQuads, bool kAligned, typename Out>
__global__ void rms_norm_kernel(const float* x, const std::int32_t* rows, int columns,
                                const float* weight, float eps, Out* out) {
  RowTile<kQuads, kAligned> w = {}, tile = {};
  w.load(weight, columns);
  wait_for_previous_grid();
  allow_next_grid();
  const auto row = rows != nullptr ? static_cast<std::size_t>(rows[blockIdx.x]) : blockIdx.x;
  tile.load(x + row * static_cast<std::size_t>(columns), columns);
  store_normed(tile, w, columns, eps, out + blockIdx.x * static_cast<std::size_t>(columns));
}

}  // namespace

cudaError_t rms_norm(cudaStream_t stream, const float* x, const std::int32_t* rows, int num_rows,
                     int columns, const float* weight, float eps, const Activation& out) {
  if (columns <= 0 || columns > kMaxRowColumns) return cudaErrorInvalidValue;
  if (num_rows == 0) return cudaSuccess;
  const RowShape shape = row_shape(columns);
  return with_output(out.layout, [&](auto* element) {
    using Out = std::remove_pointer_t<decltype(element)>;
    return with_row_shape(
        shape, rows_are_aligned(columns, x, weight, out.data), [&](auto quads, auto aligned) {
          return launch_overlapped(
              rms_norm_kernel<decltype(quads)::value, decltype(aligned)::value, Out>,
              dim3(static_cast<unsigned>(num_rows)), dim3(static_cast<unsigned>(shape.threads)), 0,
              stream, x, rows, columns, weight, eps, static_cast<Out*>(out.data));
        });
  });
}

}  // namespace quire::cuda
