// Many tokens, fp32 input, any stored format: tiles of 64 tokens x 64 rows, four by four a thread,
// slices of 32 columns in shared memory while the next ones are on their way in registers.
//
// Order of an output element's sum: the columns of its range one after the other, fused
// multiply-adds in one fp32 accumulator.
#include "kernels/cuda/dev/dev.h"
#include "kernels/cuda/linear/input.h"
#include "kernels/cuda/linear/kernels.h"

namespace quire::cuda {
namespace {

constexpr int kTile = 64;      // tokens, and rows
constexpr int kThreads = 256;  // one piece of each operand a slice
constexpr int kEach = 4;       // tokens, and rows, of a thread

// [column][token or row], 16-byte aligned quads.
using Slice = float[kStep][kTile + 4];

__device__ __forceinline__ void put(const float (&piece)[kPiece], Slice& slice) {
  const int at = thread_rank() % kTile;
  const int column = thread_rank() / kTile * kPiece;
  QUIRE_UNROLL
  for (int k = 0; k < kPiece; ++k) slice[column + k][at] = piece[k];
}

__device__ __forceinline__ void multiply(const Slice& input, const Slice& weights, int token,
                                         int row, float (&sums)[kEach][kEach]) {
  QUIRE_UNROLL
  for (int k = 0; k < kStep; ++k) {
    const float4 a = *reinterpret_cast<const float4*>(&input[k][token]);
    const float4 b = *reinterpret_cast<const float4*>(&weights[k][row]);
    const float x[kEach] = {a.x, a.y, a.z, a.w};
    const float w[kEach] = {b.x, b.y, b.z, b.w};
    QUIRE_UNROLL
    for (int t = 0; t < kEach; ++t) {
      QUIRE_UNROLL
      for (int r = 0; r < kEach; ++r) sums[t][r] = fmaf(w[r], x[t], sums[t][r]);
    }
  }
}

__device__ __forceinline__ void store(const LinearJob& job, int first_token, int first_row,
                                      const float (&sums)[kEach][kEach]) {
  float* out = job.out + blockIdx.z * job.out_subtree_stride;
  for (int t = 0; t < kEach && first_token + t < job.tokens; ++t) {
    float* at = out + static_cast<size_t>(first_token + t) * job.out_stride;
    for (int r = 0; r < kEach && first_row + r < job.rows; ++r) {
      const float scale = job.row_scales != nullptr ? job.row_scales[first_row + r] : 1.0f;
      const float bias = job.bias != nullptr ? job.bias[first_row + r] : 0.0f;
      at[first_row + r] = sums[t][r] * scale + bias;
    }
  }
}

template <Format kFormat, bool kWhole>
__global__ void __launch_bounds__(kThreads) tile_simt_kernel(LinearJob job) {
  QUIRE_SHARED(slices, float[2][kStep][kTile + 4]);
  const int first_token = static_cast<int>(blockIdx.x) * kTile;
  const int first_row = static_cast<int>(blockIdx.y) * kTile;
  const Columns range = job.outputs[blockIdx.z];
  const MatrixView view = view_of<kFormat>(job);
  const int last_step = (range.end + kStep - 1) / kStep;

  float x[kPiece];
  Piece<kFormat> weights;
  const auto fetch = [&](int step) {
    const int chunk = kPieces * step + thread_rank() / kTile;
    input_floats<kWhole>(job, range, first_token + thread_rank() % kTile, chunk, x);
    weights = load_piece<kFormat>(view, first_row + thread_rank() % kTile, chunk);
  };

  const int token = thread_rank() / (kTile / kEach) * kEach;
  const int row = thread_rank() % (kTile / kEach) * kEach;
  float sums[kEach][kEach] = {};
  wait_for_previous_grid();
  fetch(range.begin / kStep);
  for (int step = range.begin / kStep; step < last_step; ++step) {
    float w[kPiece];
    weights.floats(w);
    __syncthreads();  // the slices of the step before have been read
    put(x, slices[0]);
    put(w, slices[1]);
    __syncthreads();
    if (step + 1 < last_step) fetch(step + 1);
    multiply(slices[0], slices[1], token, row, sums);
  }
  allow_next_grid();
  store(job, first_token + token, first_row + row, sums);
}

template <Format kFormat>
cudaError_t launch_tiles(cudaStream_t stream, const LinearJob& job) {
  const dim3 grid(static_cast<unsigned>((job.tokens + kTile - 1) / kTile),
                  static_cast<unsigned>((job.rows + kTile - 1) / kTile),
                  static_cast<unsigned>(job.num_outputs));
  if constexpr (!is_block(kFormat)) {
    if (!has_whole_pieces(job)) {
      return launch_overlapped(tile_simt_kernel<kFormat, false>, grid, kThreads, 0, stream, job);
    }
  }
  return launch_overlapped(tile_simt_kernel<kFormat, true>, grid, kThreads, 0, stream, job);
}

}  // namespace

cudaError_t tile_simt(cudaStream_t stream, Format format, const LinearJob& job) {
  switch (format) {
    case Format::kF32:
      return launch_tiles<Format::kF32>(stream, job);
    case Format::kF16:
      return launch_tiles<Format::kF16>(stream, job);
    case Format::kBf16:
      return launch_tiles<Format::kBf16>(stream, job);
    case Format::kQ8_0:
      return launch_tiles<Format::kQ8_0>(stream, job);
    case Format::kQ4_0:
      return launch_tiles<Format::kQ4_0>(stream, job);
    case Format::kQ4_1:
      return launch_tiles<Format::kQ4_1>(stream, job);
    case Format::kF8E4M3:
      return launch_tiles<Format::kF8E4M3>(stream, job);
    case Format::kI8:
      return launch_tiles<Format::kI8>(stream, job);
    case Format::kQ4_Z:
      return launch_tiles<Format::kQ4_Z>(stream, job);
    case Format::kQ4_K:
      return launch_tiles<Format::kQ4_K>(stream, job);
    case Format::kQ5_K:
      return launch_tiles<Format::kQ5_K>(stream, job);
    case Format::kQ6_K:
      return launch_tiles<Format::kQ6_K>(stream, job);
  }
  return cudaErrorInvalidValue;
}

}  // namespace quire::cuda
