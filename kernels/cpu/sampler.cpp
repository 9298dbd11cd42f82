// Cuts each row into segments and hands it to a RowSampler.
#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/shard.h"

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

std::vector<LogitRun> Sampler::runs_of(int index) const {
  std::vector<LogitRun> runs;
  runs.reserve(segments_.size());
  for (const Segment& s : segments_) {
    runs.push_back(
        {pieces_[s.piece] + static_cast<std::size_t>(index) * strides_[s.piece] + s.offset, s.size,
         s.first_id});
  }
  return runs;
}

void Sampler::pick_adjusted(const SampleRow& row, std::vector<LogitRun> runs,
                            RowResult* result) const {
  std::vector<float> logits;
  logits.reserve(static_cast<std::size_t>(runs.back().first_id + runs.back().size));
  for (LogitRun& run : runs) {
    logits.insert(logits.end(), run.x, run.x + run.size);
    run.x = logits.data() + run.first_id;
  }
  adjust_logits(*row.adjustment, absl::MakeSpan(logits));
  pick(row, RowSampler(ops_, std::move(runs)), result);
}

void Sampler::pick(const SampleRow& row, const RowSampler& sampler, RowResult* result) {
  result->no_number = !sampler.has_number();
  result->token = row.temperature < 1e-5f ? sampler.best() : sampler.draw(row);
}

void Sampler::sample_row(int index) const {
  const SampleRow& row = args_.rows[static_cast<std::size_t>(index)];
  RowResult& result = args_.results[index];
  result.logprobs.clear();
  std::vector<LogitRun> runs = runs_of(index);
  if (row.adjustment != nullptr) pick_adjusted(row, runs, &result);
  if (row.adjustment == nullptr || row.num_logprobs >= 0) {
    const RowSampler sampler(ops_, std::move(runs));
    if (row.adjustment == nullptr) pick(row, sampler, &result);
    if (row.num_logprobs >= 0 && !result.no_number) {
      result.logprobs = sampler.logprobs(result.token, row.num_logprobs);
    }
  }
  if (args_.ids != nullptr) args_.ids[index] = result.token;
}

}  // namespace quire::cpu
