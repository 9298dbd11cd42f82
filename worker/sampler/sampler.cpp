// Sampling rows and vocabulary pieces.
#include "worker/sampler/sampler.h"

#include "common/check.h"

namespace quire {

SampleRow make_sample_row(const SamplingParams& params, int sample_index, int position) {
  SampleRow row;
  row.temperature = params.temperature;
  row.top_p = params.top_p;
  row.top_k = params.top_k;
  row.min_p = params.min_p;
  row.seed = params.seed;
  row.sample_index = static_cast<std::uint32_t>(sample_index);
  row.position = static_cast<std::uint32_t>(position);
  row.num_logprobs = params.logprobs;
  return row;
}

Sampler::Sampler(const ShardMap& shards) {
  TokenId end = 0;
  for (std::size_t r = 0; r < shards.ranks.size(); ++r) {
    const Range vocab = shards.ranks[r].vocab;
    if (vocab.empty()) continue;
    QUIRE_CHECK_EQ(vocab.begin, end);
    ranks_.push_back(r);
    piece_begin_.push_back(vocab.begin);
    end = vocab.end;
  }
  piece_begin_.push_back(end);
}

void Sampler::enqueue(Ops& ops, absl::Span<const float* const> pieces,
                      absl::Span<const std::size_t> strides, absl::Span<const SampleRow> rows,
                      RowResult* results, TokenId* ids) const {
  std::vector<const float*> owned_pieces;
  std::vector<std::size_t> owned_strides;
  for (const std::size_t rank : ranks_) {
    owned_pieces.push_back(pieces[rank]);
    owned_strides.push_back(strides[rank]);
  }
  SampleArgs args;
  args.num_rows = static_cast<int>(rows.size());
  args.rows = rows;
  args.pieces = owned_pieces;
  args.piece_strides = owned_strides;
  args.piece_begin = piece_begin_;
  args.results = results;
  args.ids = ids;
  ops.sample(args);
}

}  // namespace quire
