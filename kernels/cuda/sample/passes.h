// The passes that pick tokens. All are launched over (parts of a row) x (rows); a row that is done
// skips what is left, and the last block of a row to arrive in a pass draws the conclusion.
//
//   adjust     rows with a LogitAdjustment: copies them, masked, entries applied. The passes that
//              follow pick from the copy; logprobs are of the logits themselves.
//   scan       per segment of 1,024 ids, a warp each: the best id; where asked for, the sum of
//              weights at the row's temperature and at 1. Concludes: greedy picks, draws from
//              all ids, log-sum-exp (fp64 over the segments) and the k best (the best segment's
//              best, k times). Rows without filters end here.
//   histogram  counts and masses by distance from the best logit, in 1/64 of the temperature.
//              Concludes: the bins [lo, hi] in which top_k and top_p cut the order; what lies above
//              stays, what lies below goes.
//   cut        lists the ids of these bins (all ids that may stay, where kMaxListed suffices).
//              Concludes by radix selection on (logit, id): the exact cut; and draws where the list
//              is complete. Bins with more ids (ties) are selected from the whole row by one block.
//   resum      per segment the mass that stays above the cut. Concludes: the draw.
//
// Weights are exp((logit - best) / temperature) in fp64 as integers in units of 2^-44. Sums of them
// are exact, so neither the order of atomics, nor the grid, nor the cuts of the vocabulary change a
// pick; the reference's fp64 sums differ from them by less than any draw of 24 bits can see. What
// weighs less than half a unit is never drawn.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/sample/sample.h"

namespace quire::cuda::sampling {

inline constexpr int kSegment = 1024;  // kVocabSegment of common/shard.h
inline constexpr int kMaxSegments = kMaxSampleVocab / kSegment;
inline constexpr int kBins = 2048;
inline constexpr int kBinsPerUnit = 64;  // the last bin begins at exp(-31.98): it has no mass
inline constexpr int kMaxListed = 4096;

using Mass = unsigned long long;  // in units of 2^-44
using Rank = unsigned long long;  // order.h

// The pass that a row waits for; a later pass skips it.
enum class Stage : std::int32_t { kDone, kHistogram, kList, kWholeRow, kResum };

// What the passes leave each other about a row.
struct RowState {
  Stage stage = Stage::kDone;
  float highest = 0.0f;
  std::int32_t best = 0;
  double log_sum = 0.0;  // where logprobs are asked for
  std::int32_t lo = 0, hi = 0;
  std::int32_t complete = 0;   // [lo, hi] holds everything that may stay
  std::int32_t cut_count = 0;  // top_k cuts within [lo, hi]
  std::uint32_t listed = 0;
  std::uint32_t count_above = 0;  // of bins below lo, which lie above in the order
  Mass mass_above = 0;
  Mass mass_total = 0;  // that top_p is a share of, where top_k does not cut
  Rank cut = 0;         // what ranks below it goes
};

struct ListedId {
  std::uint32_t key;
  TokenId id;
};

// The workspace of one row.
struct alignas(16) RowWork {
  RowState state;
  alignas(16) std::uint32_t bin_count[kBins];  // zeroed by the scan where a histogram follows
  Mass bin_mass[kBins];
  ListedId list[kMaxListed];
  // Then per segment: Rank best, Rank best of the logits themselves (where adjusted), Mass or
  // double sum, float exp_sum.
};

constexpr int num_segments(int vocab) {
  return (vocab + kSegment - 1) / kSegment;
}
constexpr std::size_t row_work_bytes(int vocab) {
  const std::size_t bytes =
      sizeof(RowWork) + static_cast<std::size_t>(num_segments(vocab)) *
                            (2 * sizeof(Rank) + sizeof(double) + sizeof(float));
  return (bytes + 15) / 16 * 16;
}
// Of a mask of allowed ids.
constexpr std::size_t mask_words(int vocab) {
  return (static_cast<std::size_t>(vocab) + 31) / 32;
}
// Floats between adjusted rows.
constexpr std::size_t adjusted_stride(int vocab) {
  return (static_cast<std::size_t>(vocab) + 3) / 4 * 4;
}
// The counters of all rows stand first.
constexpr std::size_t counter_bytes(int rows) {
  return (static_cast<std::size_t>(rows) * sizeof(std::uint32_t) + 15) / 16 * 16;
}

// What every pass gets.
struct PassParams {
  const float* pieces[kMaxPieces];
  std::size_t strides[kMaxPieces];
  TokenId begin[kMaxPieces + 1];
  int num_pieces;
  int num_rows;
  int vocab;
  const SampleWish* wishes;
  SampledRow* out;
  TokenId* ids;            // or null
  std::uint32_t* arrived;  // [B], blocks of the running pass: zero between passes
  std::byte* work;
  std::size_t row_work_bytes;
  const RowAdjust* adjusts;
  const AdjustEntry* entries;
  const std::uint32_t* masks;
  float* adjusted;
  int num_adjusts;
};

cudaError_t launch_adjust(cudaStream_t stream, const PassParams& params);
cudaError_t launch_scan(cudaStream_t stream, const PassParams& params);
cudaError_t launch_histogram(cudaStream_t stream, const PassParams& params);
cudaError_t launch_cut(cudaStream_t stream, const PassParams& params);
cudaError_t launch_resum(cudaStream_t stream, const PassParams& params);

}  // namespace quire::cuda::sampling
