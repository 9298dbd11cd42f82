// Many tokens, bf16 input: output tiles on tensor cores, tokens as the rows of mma.m16n8k16. Both
// operands pass through a ring of kStages slices of 32 columns in shared memory: by cp.async where
// they lie in memory as they are multiplied, through registers where they must be decoded (block
// formats, to bf16), converted (the input for f16 weights) or pieced together (odd shapes).
//
// Order of an output element's sum: its range 16 columns after 16, in one accumulator. The tile
// does not enter, so every shape gives the same bits.
#pragma once

#include "kernels/cuda/dev/dev.h"
#include "kernels/cuda/linear/input.h"

namespace quire::cuda {

// kTokens x kRows by warps of kWarpTokens x kWarpRows.
template <int kTokens_, int kRows_, int kWarpTokens_, int kWarpRows_, int kStages_>
struct TileConfig {
  static constexpr int kTokens = kTokens_;
  static constexpr int kRows = kRows_;
  static constexpr int kWarpTokens = kWarpTokens_;
  static constexpr int kWarpRows = kWarpRows_;
  static constexpr int kStages = kStages_;
  static constexpr int kThreads = kTokens / kWarpTokens * (kRows / kWarpRows) * kWarpSize;
  static constexpr int kStageBytes = (kTokens + kRows) * kStep * 2;
  static constexpr size_t kSharedBytes = static_cast<size_t>(kStages) * kStageBytes;
};

// Byte of a 16-byte piece in a slice: 64 bytes a row, pieces permuted so that the eight rows of an
// ldmatrix hit all banks.
__device__ __forceinline__ int slice_offset(int row, int piece) {
  return row * kStep * 2 + ((piece ^ ((row / 2) & 3)) * 16);
}

// Pieces that a thread carries through registers from one slice of kHeight rows.
template <int kHeight, int kThreads>
struct Carried {
  static constexpr int kCount = (kHeight * kPieces + kThreads - 1) / kThreads;
  // The pieces' numbers are dealt so that neighbouring threads read neighbouring memory.
  template <typename Visit>
  static __device__ __forceinline__ void for_each(Visit visit) {
    QUIRE_UNROLL
    for (int j = 0; j < kCount; ++j) {
      const int unit = thread_rank() + j * kThreads;
      if (kHeight * kPieces % kThreads == 0 || unit < kHeight * kPieces) visit(j, unit);
    }
  }
};

// The input's slice: kTokens rows from first_token.
template <typename T, bool kWhole, typename Config>
struct InputSlice {
  static constexpr bool kAsync = kWhole && std::is_same_v<T, bf16>;
  using Units = Carried<Config::kTokens, Config::kThreads>;
  uint4 carried[kAsync ? 1 : Units::kCount] = {};

  __device__ __forceinline__ void fetch(const LinearJob& job, const Columns& range, int first_token,
                                        int step, std::byte* slice) {
    Units::for_each([&](int j, int unit) {
      const int row = unit / kPieces;
      const int token = first_token + row;
      const int chunk = kPieces * step + unit % kPieces;
      if constexpr (kAsync) {
        const bool inside = token < job.tokens && holds(range, kPiece * chunk);
        const size_t at = inside ? static_cast<size_t>(token) * static_cast<size_t>(job.columns) +
                                       static_cast<size_t>(kPiece * chunk)
                                 : 0;
        async_copy_or_zero<16>(slice + slice_offset(row, unit % kPieces),
                               static_cast<const uint16_t*>(job.in) + at, inside);
      } else {
        carried[j] = input_pairs<T, kWhole>(job, range, token, chunk);
      }
    });
  }
  __device__ __forceinline__ void put(std::byte* slice) {
    if constexpr (!kAsync) {
      Units::for_each([&](int j, int unit) {
        store16(slice + slice_offset(unit / kPieces, unit % kPieces), carried[j]);
      });
    }
  }
};

// The matrix's slice: kRows rows from first_row.
template <Format kFormat, typename Config>
struct WeightSlice {
  static constexpr bool kAsync = is_plain(kFormat);
  using Units = Carried<Config::kRows, Config::kThreads>;
  Piece<kFormat> carried[kAsync ? 1 : Units::kCount] = {};

  // Of block formats, units follow each other as the panel's words do.
  static __device__ __forceinline__ int row_of(int unit) {
    if constexpr (kAsync) return unit / kPieces;
    return unit / 128 * kPanelRows + unit % 4 * 8 + unit % 128 / 16;
  }
  static __device__ __forceinline__ int piece_of(int unit) {
    return kAsync ? unit % kPieces : unit % 16 / 4;
  }

  __device__ __forceinline__ void fetch(const MatrixView& view, int first_row, int step,
                                        std::byte* slice) {
    Units::for_each([&](int j, int unit) {
      const int row = first_row + row_of(unit);
      const int chunk = kPieces * step + piece_of(unit);
      if constexpr (kAsync) {
        const bool inside = row < view.rows && kPiece * chunk < view.columns;
        const std::byte* from =
            inside ? view.values + static_cast<size_t>(row) * plain_stride(kFormat, view.columns) +
                         16 * static_cast<size_t>(chunk)
                   : view.values;
        async_copy_or_zero<16>(slice + slice_offset(row_of(unit), piece_of(unit)), from, inside);
      } else {
        carried[j] = load_piece<kFormat>(view, row, chunk);
      }
    });
  }
  __device__ __forceinline__ void put(std::byte* slice) {
    if constexpr (!kAsync) {
      Units::for_each([&](int j, int unit) {
        float w[kPiece];
        carried[j].floats(w);
        store16(slice + slice_offset(row_of(unit), piece_of(unit)),
                make_uint4(pack2<bf16>(w[0], w[1]), pack2<bf16>(w[2], w[3]),
                           pack2<bf16>(w[4], w[5]), pack2<bf16>(w[6], w[7])));
      });
    }
  }
};

// One warp's part of the tile: 16 tokens x 8 rows, kM x kN times.
template <typename T, typename Config>
struct WarpTile {
  static constexpr int kM = Config::kWarpTokens / 16;
  static constexpr int kN = Config::kWarpRows / 8;
  float sums[kM][kN][4] = {};
  int token, row;  // of the warp within the block's tile

  __device__ __forceinline__ WarpTile() {
    constexpr int kAcross = Config::kRows / Config::kWarpRows;
    token = warp_id() / kAcross * Config::kWarpTokens;
    row = warp_id() % kAcross * Config::kWarpRows;
  }

  __device__ __forceinline__ void multiply(const std::byte* input, const std::byte* weights) {
    const int lane = lane_id();
    uint32_t b[kN][4];  // [.][2 half + register]
    QUIRE_UNROLL
    for (int n = 0; n < kN; ++n) {
      ldmatrix<4>(b[n], weights + slice_offset(row + 8 * n + lane % 8, lane / 8));
    }
    QUIRE_UNROLL
    for (int half = 0; half < 2; ++half) {
      QUIRE_UNROLL
      for (int m = 0; m < kM; ++m) {
        uint32_t a[4];
        ldmatrix<4>(a, input + slice_offset(token + 16 * m + lane % 16, 2 * half + lane / 16));
        QUIRE_UNROLL
        for (int n = 0; n < kN; ++n) mma<T>(sums[m][n], a, b[n][2 * half], b[n][2 * half + 1]);
      }
    }
  }

  __device__ __forceinline__ void store(const LinearJob& job, int first_token,
                                        int first_row) const {
    float* out = job.out + blockIdx.z * job.out_subtree_stride;
    const bool pairs = job.out_stride % 2 == 0 && reinterpret_cast<size_t>(out) % 8 == 0;
    QUIRE_UNROLL
    for (int m = 0; m < kM; ++m) {
      QUIRE_UNROLL
      for (int n = 0; n < kN; ++n) {
        QUIRE_UNROLL
        for (int j = 0; j < 4; j += 2) {
          const int t = first_token + token + 16 * m + lane_id() / 4 + 4 * j;
          const int r = first_row + row + 8 * n + 2 * (lane_id() % 4);
          if (t >= job.tokens || r >= job.rows) continue;
          float* at = out + static_cast<size_t>(t) * job.out_stride + static_cast<size_t>(r);
          const bool two = r + 1 < job.rows;
          float2 sum = make_float2(sums[m][n][j], sums[m][n][j + 1]);
          if (job.row_scales != nullptr) {
            sum.x *= job.row_scales[r];
            if (two) sum.y *= job.row_scales[r + 1];
          }
          if (job.bias != nullptr) {
            sum.x += job.bias[r];
            if (two) sum.y += job.bias[r + 1];
          }
          if (two && pairs) {
            *reinterpret_cast<float2*>(at) = sum;
          } else {
            at[0] = sum.x;
            if (two) at[1] = sum.y;
          }
        }
      }
    }
  }
};

// Two blocks of the large tile on a multiprocessor: one multiplies while the other decodes or
// waits.
template <Format kFormat, bool kWhole, typename Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kThreads >= 256 ? 2 : 1)
    tile_kernel(LinearJob job) {
  using T = Operand<kFormat>;
  constexpr int kStages = Config::kStages;
  QUIRE_DYN_SMEM(std::byte, ring);  // [kStages][tokens, then rows][64 bytes]
  const int first_token = static_cast<int>(blockIdx.x) * Config::kTokens;
  const int first_row = static_cast<int>(blockIdx.y) * Config::kRows;
  const Columns range = job.outputs[blockIdx.z];
  const MatrixView view = view_of<kFormat>(job);
  const int first_step = range.begin / kStep;
  const int num_steps = (range.end + kStep - 1) / kStep - first_step;

  InputSlice<T, kWhole, Config> input;
  WeightSlice<kFormat, Config> weights;
  const auto input_at = [&](int i) { return ring + i % kStages * Config::kStageBytes; };
  const auto weights_at = [&](int i) { return input_at(i) + Config::kTokens * kStep * 2; };
  const auto fetch = [&](int i) {
    if (i < num_steps) {
      input.fetch(job, range, first_token, first_step + i, input_at(i));
      weights.fetch(view, first_row, first_step + i, weights_at(i));
    }
    async_commit();
  };
  const auto put = [&](int i) {
    if (i >= num_steps) return;
    input.put(input_at(i));
    weights.put(weights_at(i));
  };

  wait_for_previous_grid();
  for (int i = 0; i < kStages - 1; ++i) {
    fetch(i);
    put(i);
  }
  WarpTile<T, Config> tile;
  for (int i = 0; i < num_steps; ++i) {
    async_wait<kStages - 2>();
    __syncthreads();  // slice i is there for all, and nobody reads slice i - 1 any more
    fetch(i + kStages - 1);
    tile.multiply(input_at(i), weights_at(i));
    put(i + kStages - 1);
  }
  allow_next_grid();
  tile.store(job, first_token, first_row);
}

template <Format kFormat, bool kWhole, typename Config>
cudaError_t launch_tiles(cudaStream_t stream, const LinearJob& job) {
  const auto kernel = tile_kernel<kFormat, kWhole, Config>;
  if constexpr (Config::kSharedBytes > 48 * 1024) {
    const cudaError_t error = allow_shared_bytes(kernel, Config::kSharedBytes);
    if (error != cudaSuccess) return error;
  }
  const dim3 grid(static_cast<unsigned>((job.tokens + Config::kTokens - 1) / Config::kTokens),
                  static_cast<unsigned>((job.rows + Config::kRows - 1) / Config::kRows),
                  static_cast<unsigned>(job.num_outputs));
  return launch_overlapped(kernel, grid, Config::kThreads, Config::kSharedBytes, stream, job);
}

}  // namespace quire::cuda
