// Pieces of the input: 8 columns of one token, zero outside its rows and outside the output's
// columns. kWhole: has_whole_pieces, so that a piece is one aligned load. Device code.
#pragma once

#include "kernels/cuda/linear/panel.h"

namespace quire::cuda {

__device__ __forceinline__ bool holds(const Columns& range, int column) {
  return column >= range.begin && column < range.end;
}

// Four pairs of T.
template <typename T, bool kWhole>
__device__ __forceinline__ uint4 input_pairs(const LinearJob& job, const Columns& range, int token,
                                             int chunk) {
  uint4 pairs = make_uint4(0, 0, 0, 0);
  if (token >= job.tokens) return pairs;
  const auto* row = static_cast<const uint16_t*>(job.in) +
                    static_cast<size_t>(token) * static_cast<size_t>(job.columns);
  const int first = kPiece * chunk;
  if constexpr (kWhole) {
    if (holds(range, first)) pairs = load16(row + first);
  } else {
    uint32_t words[4] = {};
    QUIRE_UNROLL
    for (int k = 0; k < kPiece; ++k) {
      if (!holds(range, first + k)) continue;
      words[k / 2] |= static_cast<uint32_t>(row[first + k]) << (16 * (k % 2));
    }
    pairs = make_uint4(words[0], words[1], words[2], words[3]);
  }
  return pairs_as<T>(pairs);
}

template <bool kWhole>
__device__ __forceinline__ void input_floats(const LinearJob& job, const Columns& range, int token,
                                             int chunk, float (&x)[kPiece]) {
  QUIRE_UNROLL
  for (int k = 0; k < kPiece; ++k) x[k] = 0.0f;
  if (token >= job.tokens) return;
  const auto* row = static_cast<const float*>(job.in) +
                    static_cast<size_t>(token) * static_cast<size_t>(job.columns);
  const int first = kPiece * chunk;
  if constexpr (kWhole) {
    if (!holds(range, first)) return;
    PieceF32{load16(row + first), load16(row + first + 4)}.floats(x);
  } else {
    QUIRE_UNROLL
    for (int k = 0; k < kPiece; ++k) {
      if (holds(range, first + k)) x[k] = row[first + k];
    }
  }
}

}  // namespace quire::cuda
