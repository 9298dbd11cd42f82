// Few tokens, fp32 input, any stored format: every product a fused multiply-add in fp32. Lane
// 4 g + p adds the columns 8 p .. 8 p + 7 of each step for four rows; the four lanes of a row are
// added last, (0 + 1) + (2 + 3). More than 8 tokens read the weights once for each 8.
#include "kernels/cuda/linear/kernels.h"
#include "kernels/cuda/linear/stream.h"

namespace quire::cuda {
namespace {

template <Format kFormat, int kTokens, bool kWhole>
__device__ __forceinline__ void add_step(const LinearJob& job, const Columns& range,
                                         const Panel<kFormat>& weights, int first_token, int step,
                                         float (&sums)[kPieces][kTokens]) {
  const int chunk = kPieces * step + lane_id() % 4;
  float w[kPieces][kPiece];
  QUIRE_UNROLL
  for (int i = 0; i < kPieces; ++i) weights.piece(i, lane_id()).floats(w[i]);
  QUIRE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    float x[kPiece];
    input_floats<kWhole>(job, range, first_token + t, chunk, x);
    QUIRE_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      QUIRE_UNROLL
      for (int k = 0; k < kPiece; ++k) sums[i][t] = fmaf(w[i][k], x[k], sums[i][t]);
    }
  }
}

template <Format kFormat, int kTokens, bool kWhole>
__global__ void __launch_bounds__(kStreamMaxWarps* kWarpSize) stream(LinearJob job) {
  constexpr int kUnroll = stream_unroll(kFormat);
  QUIRE_DYN_SMEM(float, warp_sums);  // [warp][kTokens][32]
  const int panel = static_cast<int>(blockIdx.x);
  const int first_token = static_cast<int>(blockIdx.z) * kTokens;
  const Columns range = job.outputs[blockIdx.y];
  const int last_step = (range.end + kStep - 1) / kStep;
  const MatrixView view = view_of<kFormat>(job);
  const int lane = lane_id();

  // The first weights are on their way before the grid before this one has ended.
  Panel<kFormat> weights[kUnroll];
  int step = range.begin / kStep + warp_id() * kUnroll;
  load_steps<kFormat>(view, panel, step, last_step, lane, weights);
  wait_for_previous_grid();
  float sums[kPieces][kTokens] = {};
  while (step < last_step) {
    QUIRE_UNROLL
    for (int u = 0; u < kUnroll; ++u) {
      if (step + u >= last_step) continue;
      add_step<kFormat, kTokens, kWhole>(job, range, weights[u], first_token, step + u, sums);
    }
    step += block_warps() * kUnroll;
    load_steps<kFormat>(view, panel, step, last_step, lane, weights);
  }
  allow_next_grid();

  float* mine = warp_sums + warp_id() * kTokens * kPanelRows;
  QUIRE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    QUIRE_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      float sum = sums[i][t];
      sum += shuffle_xor(sum, 1);
      sum += shuffle_xor(sum, 2);
      if (lane % 4 == 0) mine[t * kPanelRows + lane / 4 + 8 * i] = sum;
    }
  }
  __syncthreads();
  merge_warps<kTokens>(job, warp_sums, first_token);
}

template <Format kFormat, int kTokens>
cudaError_t launch_stream(cudaStream_t cuda_stream, const LinearJob& job) {
  const int warps = stream_warps(job, stream_unroll(kFormat));
  const auto threads = static_cast<unsigned>(warps * kWarpSize);
  const size_t shared = static_cast<size_t>(warps * kTokens * kPanelRows) * sizeof(float);
  if constexpr (!is_block(kFormat)) {
    if (!has_whole_pieces(job)) {
      return launch_overlapped(stream<kFormat, kTokens, false>, stream_grid(job, kTokens), threads,
                               shared, cuda_stream, job);
    }
  }
  return launch_overlapped(stream<kFormat, kTokens, true>, stream_grid(job, kTokens), threads,
                           shared, cuda_stream, job);
}

template <Format kFormat>
cudaError_t choose_tokens(cudaStream_t cuda_stream, const LinearJob& job) {
  if (job.tokens == 1) return launch_stream<kFormat, 1>(cuda_stream, job);
  if (job.tokens <= 4) return launch_stream<kFormat, 4>(cuda_stream, job);
  return launch_stream<kFormat, 8>(cuda_stream, job);
}

}  // namespace

cudaError_t stream_fma(cudaStream_t stream, Format format, const LinearJob& job) {
  switch (format) {
    case Format::kF32:
      return choose_tokens<Format::kF32>(stream, job);
    case Format::kF16:
      return choose_tokens<Format::kF16>(stream, job);
    case Format::kBf16:
      return choose_tokens<Format::kBf16>(stream, job);
    case Format::kQ8_0:
      return choose_tokens<Format::kQ8_0>(stream, job);
    case Format::kQ4_0:
      return choose_tokens<Format::kQ4_0>(stream, job);
    case Format::kQ4_1:
      return choose_tokens<Format::kQ4_1>(stream, job);
    case Format::kF8E4M3:
      return choose_tokens<Format::kF8E4M3>(stream, job);
    case Format::kI8:
      return choose_tokens<Format::kI8>(stream, job);
    case Format::kQ4_Z:
      return choose_tokens<Format::kQ4_Z>(stream, job);
    case Format::kQ4_K:
      return choose_tokens<Format::kQ4_K>(stream, job);
    case Format::kQ5_K:
      return choose_tokens<Format::kQ5_K>(stream, job);
    case Format::kQ6_K:
      return choose_tokens<Format::kQ6_K>(stream, job);
  }
  return cudaErrorInvalidValue;
}

}  // namespace quire::cuda
