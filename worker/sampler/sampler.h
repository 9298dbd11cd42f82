// From a slot's sampling parameters to a picked token: builds the rows of Ops::sample. The draw at
// a position depends on (seed, sample index, position) alone, so it is the same after preemption,
// recovery, or beside any other rows.
#pragma once

#include <vector>

#include "common/sampling_params.h"
#include "common/shard.h"
#include "kernels/ops.h"

namespace quire {

// `position` is the index of the token being picked: the number of tokens before it.
SampleRow make_sample_row(const SamplingParams& params, int sample_index, int position);

class Sampler {
 public:
  explicit Sampler(const ShardMap& shards);

  // Enqueues the pick of one token per row of logits. Row b of what rank r holds starts at
  // pieces[r] + b * strides[r]. `rows` and `results` must live until the step was waited for; `ids`
  // is device memory.
  void enqueue(Ops& ops, absl::Span<const float* const> pieces,
               absl::Span<const std::size_t> strides, absl::Span<const SampleRow> rows,
               RowResult* results, TokenId* ids) const;

 private:
  std::vector<std::size_t> ranks_;    // those that own any ids, in id order
  std::vector<TokenId> piece_begin_;  // [ranks_.size() + 1]
};

}  // namespace quire
