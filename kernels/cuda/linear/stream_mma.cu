// Few tokens, bf16 input: the same stream on tensor cores, with the weights as the 16 rows and the
// tokens as the 8 columns of mma.m16n8k16. A sum does not care which column of a step meets which
// k of the instruction, so a lane feeds it the 8 neighbouring columns it loaded: pairs 0 and 1 to
// the first product, 2 and 3 to the second, of the weights and of the input alike.
//
// Block formats multiply the block's integers exactly and scale the sum of 32 products in fp32; for
// formats with an offset the input's own sum over the block is one more row of products, by ones.
#include "kernels/cuda/linear/kernels.h"
#include "kernels/cuda/linear/stream.h"

namespace quire::cuda {
namespace {

// Sums of kTiles x 8 tokens for two tiles of 16 rows.
template <int kTiles>
struct Sums {
  float of[2][kTiles][4] = {};
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

template <Format kFormat, int kTiles>
__device__ __forceinline__ void add_step(const Piece<kFormat> (&pieces)[kPieces],
                                         const uint4 (&x)[kTiles], Sums<kTiles>& sums) {
  uint32_t w[kPieces][4];
  QUIRE_UNROLL
  for (int i = 0; i < kPieces; ++i) pieces[i].words(w[i]);
  QUIRE_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    if constexpr (is_plain(kFormat)) {
      QUIRE_UNROLL
      for (int m = 0; m < 2; ++m) multiply<Operand<kFormat>>(w, m, x[tile], sums.of[m][tile]);
    } else {
      float inputs[4] = {};
      if constexpr (Piece<kFormat>::kNeedsInputSum) sum_input(x[tile], inputs);
      QUIRE_UNROLL
      for (int m = 0; m < 2; ++m) {
        float block[4] = {};
        multiply<bf16>(w, m, x[tile], block);
        QUIRE_UNROLL
        for (int j = 0; j < 4; ++j) {
          const Piece<kFormat>& piece = pieces[2 * m + j / 2];
          const float centred = fmaf(-Piece<kFormat>::kOffset, inputs[j], block[j]);
          sums.of[m][tile][j] = fmaf(piece.d(), centred, sums.of[m][tile][j]);
          if constexpr (kFormat == Format::kQ4_1) {
            sums.of[m][tile][j] = fmaf(piece.m(), inputs[j], sums.of[m][tile][j]);
          }
        }
      }
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
  const MatrixView view = view_of<kFormat>(job.data, job.rows, job.columns);
  const int lane = lane_id();

  // The first weights are on their way before the grid before this one has ended.
  Piece<kFormat> pieces[kUnroll][kPieces];
  int step = range.begin / kStep + warp_id() * kUnroll;
  load_steps<kFormat>(view, panel, step, last_step, lane, pieces);
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
      if (step + u < last_step) add_step<kFormat, kTiles>(pieces[u], x[u], sums);
    }
    step += block_warps() * kUnroll;
    load_steps<kFormat>(view, panel, step, last_step, lane, pieces);
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
        mine[token * kPanelRows + 16 * m + lane / 4 + 8 * (j / 2)] = sums.of[m][tile][j];
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
  if constexpr (is_plain(kFormat)) {
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
    default:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace quire::cuda
