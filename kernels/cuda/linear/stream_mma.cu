// Few tokens, bf16 input: the same stream on tensor cores, with the weights as the 16 rows and the
// tokens as the 8 columns of mma.m16n8k16. A sum does not care which column of a step meets which
// k of the instruction, so a lane feeds it the 8 neighbouring columns it loaded: pairs 0 and 1 to
// the first product, 2 and 3 to the second, of the weights and of the input alike.
//
// Block formats multiply the block's integers exactly and scale the sum of 32 products in fp32
// (q6_K: of 16); for formats with an offset the input's own sum over the block is one more row of
// products, by ones. f8_e4m3 and i8 are exact as bf16; the factor of a row multiplies its sum.
#include "kernels/cuda/linear/kernels.h"
#include "kernels/cuda/linear/stream.h"

namespace quire::cuda {
namespace {

// Sums of kTiles x 8 tokens for two tiles of 16 rows.
template <int kTiles>
struct Sums {
  float of[kTiles][2][4] = {};
};

// d += the 16 rows of tile `m` by 8 tokens, over one step.
template <typename T>
__device__ __forceinline__ void multiply(const uint32_t (&w)[kPieces][4], int m, const uint4& x,
                                         float (&d)[4]) {
  QUIRE_UNROLL
  for (int half = 0; half < 2; ++half) {
    const uint32_t a[4] = {w[2 * m][2 * half], w[2 * m + 1][2 * half], w[2 * m][2 * half + 1],
                           w[2 * m + 1][2 * half + 1]};
    mma<T>(d, a, word_of(x, 2 * half), word_of(x, 2 * half + 1));
  }
}

// The sums of 8 tokens of the input over one step, in every row.
__device__ __forceinline__ void sum_input(const uint4& x, float (&d)[4]) {
  const uint32_t ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
  mma_bf16(d, ones, x.x, x.y);
  mma_bf16(d, ones, x.z, x.w);
}

__device__ __forceinline__ uint4 x_if(bool wanted, const uint4& x) {
  return make_uint4(wanted ? x.x : 0, wanted ? x.y : 0, wanted ? x.z : 0, wanted ? x.w : 0);
}

// A block's part of the sums: of each group of columns the products of whole numbers, then fp32.
template <Format kFormat>
__device__ __forceinline__ void add_block(const Piece<kFormat> (&pieces)[kPieces],
                                          const uint32_t (&w)[kPieces][4], const uint4& x,
                                          int group, float (&sums)[2][4]) {
  float inputs[4] = {};
  if constexpr (Piece<kFormat>::kNeedsInputSum) sum_input(x, inputs);
  QUIRE_UNROLL
  for (int m = 0; m < 2; ++m) {
    float block[4] = {};
    multiply<bf16>(w, m, x, block);
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const Piece<kFormat>& piece = pieces[2 * m + j / 2];
      const float centred = fmaf(-piece.offset(), inputs[j], block[j]);
      sums[m][j] = fmaf(piece.d(group), centred, sums[m][j]);
      if constexpr (Piece<kFormat>::kHasMin) sums[m][j] = fmaf(piece.m(), inputs[j], sums[m][j]);
    }
  }
}

template <Format kFormat, int kTiles>
__device__ __forceinline__ void add_step(const Panel<kFormat>& weights, const uint4 (&x)[kTiles],
                                         Sums<kTiles>& sums) {
  Piece<kFormat> pieces[kPieces];
  uint32_t w[kPieces][4];
  QUIRE_UNROLL
  for (int i = 0; i < kPieces; ++i) {
    pieces[i] = weights.piece(i, lane_id());
    pieces[i].words(w[i]);
  }
  QUIRE_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    if constexpr (!is_block(kFormat)) {
      QUIRE_UNROLL
      for (int m = 0; m < 2; ++m) multiply<Operand<kFormat>>(w, m, x[tile], sums.of[tile][m]);
    } else if constexpr (Piece<kFormat>::kGroups == 1) {
      add_block<kFormat>(pieces, w, x[tile], 0, sums.of[tile]);
    } else {
      // Lanes p = 0 and 1 have the first half of the step's columns, 2 and 3 the second.
      const bool first = lane_id() % 4 < 2;
      add_block<kFormat>(pieces, w, x_if(first, x[tile]), 0, sums.of[tile]);
      add_block<kFormat>(pieces, w, x_if(!first, x[tile]), 1, sums.of[tile]);
    }
  }
}

template <Format kFormat, int kTiles, bool kWhole>
__global__ void __launch_bounds__(kStreamMaxWarps* kWarpSize) stream(LinearJob job) {
  constexpr int kUnroll = stream_unroll(kFormat);
  QUIRE_DYN_SMEM(float, warp_sums);  // [warp][8 kTiles][32]
  const int panel = static_cast<int>(blockIdx.x);
  const Columns range = job.outputs[blockIdx.y];
  const int last_step = (range.end + kStep - 1) / kStep;
  const MatrixView view = view_of<kFormat>(job);
  const int lane = lane_id();

  // The first weights are on their way before the grid before this one has ended.
  Panel<kFormat> weights[kUnroll];
  int step = range.begin / kStep + warp_id() * kUnroll;
  load_steps<kFormat>(view, panel, step, last_step, lane, weights);
  wait_for_previous_grid();
  Sums<kTiles> sums;
  while (step < last_step) {
    uint4 x[kUnroll][kTiles];
    QUIRE_UNROLL
    for (int u = 0; u < kUnroll; ++u) {
      QUIRE_UNROLL
      for (int tile = 0; tile < kTiles; ++tile) {
        x[u][tile] = input_pairs<Operand<kFormat>, kWhole>(job, range, 8 * tile + lane / 4,
                                                           kPieces * (step + u) + lane % 4);
      }
    }
    QUIRE_UNROLL
    for (int u = 0; u < kUnroll; ++u) {
      if (step + u < last_step) add_step<kFormat, kTiles>(weights[u], x[u], sums);
    }
    step += block_warps() * kUnroll;
    load_steps<kFormat>(view, panel, step, last_step, lane, weights);
  }
  allow_next_grid();

  float* mine = warp_sums + warp_id() * 8 * kTiles * kPanelRows;
  QUIRE_UNROLL
  for (int m = 0; m < 2; ++m) {
    QUIRE_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      QUIRE_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int token = 8 * tile + 2 * (lane % 4) + j % 2;
        mine[token * kPanelRows + 16 * m + lane / 4 + 8 * (j / 2)] = sums.of[tile][m][j];
      }
    }
  }
  __syncthreads();
  merge_warps<8 * kTiles>(job, warp_sums, 0);
}

template <Format kFormat, int kTiles>
cudaError_t launch_stream(cudaStream_t cuda_stream, const LinearJob& job) {
  const int warps = stream_warps(job, stream_unroll(kFormat));
  const auto threads = static_cast<unsigned>(warps * kWarpSize);
  const size_t shared = static_cast<size_t>(warps * 8 * kTiles * kPanelRows) * sizeof(float);
  if constexpr (!is_block(kFormat)) {
    if (!has_whole_pieces(job)) {
      return launch_overlapped(stream<kFormat, kTiles, false>, stream_grid(job, kStreamTokens),
                               threads, shared, cuda_stream, job);
    }
  }
  return launch_overlapped(stream<kFormat, kTiles, true>, stream_grid(job, kStreamTokens), threads,
                           shared, cuda_stream, job);
}

template <Format kFormat>
cudaError_t choose_tokens(cudaStream_t cuda_stream, const LinearJob& job) {
  if (job.tokens <= 8) return launch_stream<kFormat, 1>(cuda_stream, job);
  return launch_stream<kFormat, 2>(cuda_stream, job);
}

}  // namespace

cudaError_t stream_mma(cudaStream_t stream, Format format, const LinearJob& job) {
  if (job.tokens > kStreamTokens) return cudaErrorInvalidValue;
  switch (format) {
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
    case Format::kF32:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace quire::cuda
