// The definition of sampling, in double: adjusted logits (sampling.h), then temperature, min_p
// (relative to the largest probability), top_k (values equal to the k-th stay), top_p (smallest set
// reaching the mass, larger logits first, lower ids first among equals), then the inverse of the
// cumulative distribution in id order at the row's Philox draw.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/reference/ops.h"

namespace quire::reference {
namespace {

// Ids by (logit descending, id ascending).
std::vector<TokenId> ranked_ids(const std::vector<float>& logits) {
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&logits](TokenId a, TokenId b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  return ids;
}

TokenId draw(const SampleRow& row, const std::vector<float>& logits,
             const std::vector<TokenId>& ranked) {
  const double highest = logits[static_cast<std::size_t>(ranked[0])];
  if (!std::isfinite(highest)) return ranked[0];  // nothing to weigh
  std::vector<double> weights(logits.size());     // by id; zero = filtered out
  std::size_t kept = ranked.size();
  if (row.top_k > 0 && static_cast<std::size_t>(row.top_k) < kept) {
    const float kth =
        logits[static_cast<std::size_t>(ranked[static_cast<std::size_t>(row.top_k) - 1])];
    while (logits[static_cast<std::size_t>(ranked[kept - 1])] < kth) --kept;
  }
  double total = 0.0;
  for (std::size_t i = 0; i < kept; ++i) {
    const auto id = static_cast<std::size_t>(ranked[i]);
    const double w = std::exp((logits[id] - highest) / row.temperature);
    if (w < row.min_p) {
      kept = i;
      break;
    }
    total += weights[id] = w;
  }
  double mass = 0.0;
  for (std::size_t i = 0; i < kept; ++i) {
    double& w = weights[static_cast<std::size_t>(ranked[i])];
    if (i > 0 && row.top_p < 1.0f && mass >= row.top_p * total) {
      w = 0.0;
    }
    mass += w;
  }
  const double target =
      mass * philox_uniform(row.seed, row.sample_index, row.position, DrawPurpose::kSample);
  double below = 0.0;
  TokenId last = ranked[0];
  for (std::size_t id = 0; id < weights.size(); ++id) {
    if (weights[id] == 0.0) continue;
    last = static_cast<TokenId>(id);
    below += weights[id];
    if (below > target) break;
  }
  return last;
}

TokenId pick(const SampleRow& row, const std::vector<float>& logits) {
  const std::vector<TokenId> ranked = ranked_ids(logits);
  return row.temperature < 1e-5f ? ranked[0] : draw(row, logits, ranked);
}

}  // namespace

void sample_row(const SampleRow& row, const std::vector<float>& logits, RowResult& result) {
  result.token = 0;
  result.logprobs.clear();
  // One that is no number cannot be ordered among the others; NaN is no largest one either.
  float highest_logit = -std::numeric_limits<float>::infinity();
  bool has_nan = false;
  for (const float x : logits) {
    has_nan = has_nan || std::isnan(x);
    highest_logit = std::max(highest_logit, x);
  }
  result.no_number = has_nan || !std::isfinite(highest_logit);
  if (result.no_number) return;
  if (row.adjustment == nullptr) {
    result.token = pick(row, logits);
  } else {
    std::vector<float> adjusted = logits;
    adjust_logits(*row.adjustment, absl::MakeSpan(adjusted));
    result.token = pick(row, adjusted);
  }
  if (row.num_logprobs < 0) return;
  const std::vector<TokenId> ranked = ranked_ids(logits);
  const double highest = logits[static_cast<std::size_t>(ranked[0])];
  double sum = 0.0;
  for (const float x : logits) sum += std::exp(x - highest);
  const double log_sum = highest + std::log(sum);
  const auto entry = [&](TokenId id) {
    return TokenLogprob{id, static_cast<float>(logits[static_cast<std::size_t>(id)] - log_sum)};
  };
  result.logprobs.push_back(entry(result.token));
  const std::size_t best = std::min(static_cast<std::size_t>(row.num_logprobs), ranked.size());
  for (std::size_t i = 0; i < best; ++i) result.logprobs.push_back(entry(ranked[i]));
}

void ReferenceOps::sample(const SampleArgs& args) {
  std::vector<const float*> pieces(args.pieces.begin(), args.pieces.end());
  std::vector<std::size_t> strides(args.piece_strides.begin(), args.piece_strides.end());
  std::vector<TokenId> begins(args.piece_begin.begin(), args.piece_begin.end());
  enqueue(
      [args, pieces = std::move(pieces), strides = std::move(strides), begins = std::move(begins)] {
        for (int b = 0; b < args.num_rows; ++b) {
          std::vector<float> logits;
          for (std::size_t p = 0; p < pieces.size(); ++p) {
            const float* row = pieces[p] + static_cast<std::size_t>(b) * strides[p];
            logits.insert(logits.end(), row, row + (begins[p + 1] - begins[p]));
          }
          sample_row(args.rows[static_cast<std::size_t>(b)], logits, args.results[b]);
          if (args.ids != nullptr) args.ids[b] = args.results[b].token;
        }
      });
}

}  // namespace quire::reference
