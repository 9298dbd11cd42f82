// Cuts each row into segments and hands it to a RowSampler.
#include "kernels/cpu/sampler.h"

#include <algorithm>

#include "common/check.h"
#include "common/shard.h"
#include "kernels/cpu/row_sampler.h"

namespace quire::cpu {

Sampler::Sampler(const VectorOps& ops, const SampleArgs& args)
    : ops_(ops),
      args_(args),
      pieces_(args.pieces.begin(), args.pieces.end()),
      strides_(args.piece_strides.begin(), args.piece_strides.end()) {
  QUIRE_CHECK_EQ(args.piece_begin.size(), pieces_.size() + 1);
  for (std::size_t p = 0; p < pieces_.size(); ++p) {
    const TokenId begin = args.piece_begin[p];
    const TokenId end = args.piece_begin[p + 1];
    for (TokenId id = begin; id < end;) {
      const TokenId next = std::min(end, (id / kVocabSegment + 1) * kVocabSegment);
      segments_.push_back({p, id - begin, next - id, id});
      id = next;
    }
  }
}

void Sampler::sample_row(int index) const {
  std::vector<LogitRun> runs;
  runs.reserve(segments_.size());
  for (const Segment& s : segments_) {
    runs.push_back(
        {pieces_[s.piece] + static_cast<std::size_t>(index) * strides_[s.piece] + s.offset, s.size,
         s.first_id});
  }
  const RowSampler sampler(ops_, std::move(runs));
  const SampleRow& row = args_.rows[static_cast<std::size_t>(index)];
  RowResult& result = args_.results[index];
  result.token = row.temperature < 1e-5f ? sampler.best() : sampler.draw(row);
  result.logprobs.clear();
  if (row.num_logprobs >= 0) result.logprobs = sampler.logprobs(result.token, row.num_logprobs);
}

}  // namespace quire::cpu
