#include "tests/worker/accuracy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "common/check.h"

namespace quire::test {

Distribution::Distribution(absl::Span<const float> logits) : logits_(logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  log_sum_ = largest + std::log(sum);
}

BestTokens best_of(const Distribution& distribution, int k) {
  const absl::Span<const float> logits = distribution.logits();
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::partial_sort(ids.begin(), ids.begin() + k, ids.end(), [&](TokenId a, TokenId b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  BestTokens best;
  best.rest = 1.0;
  for (int i = 0; i < k; ++i) {
    const TokenId id = ids[static_cast<std::size_t>(i)];
    best.logprobs.emplace_back(id, distribution.logprob(id));
    best.rest -= std::exp(best.logprobs.back().second);
  }
  return best;
}

double divergence(const BestTokens& reference, const Distribution& ours) {
  constexpr double kSmallest = 1e-15;  // what subtraction from 1 leaves of an empty bucket
  double kl = 0.0, rest = 1.0;
  for (const auto& [token, logprob] : reference.logprobs) {
    const double mine = ours.logprob(token);
    kl += std::exp(logprob) * (logprob - mine);
    rest -= std::exp(mine);
  }
  if (reference.rest > kSmallest) {
    kl += reference.rest * std::log(reference.rest / std::max(rest, kSmallest));
  }
  return kl;
}

double mean_of(const std::vector<double>& values) {
  QUIRE_CHECK(!values.empty());
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double percentile99(std::vector<double> values) {
  QUIRE_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(static_cast<double>(values.size() - 1) * 0.99)];
}

double largest_of(const std::vector<double>& values) {
  QUIRE_CHECK(!values.empty());
  return *std::max_element(values.begin(), values.end());
}

void expect_within(const std::string& what, const std::vector<double>& values, double mean,
                   double p99, double max) {
  std::printf("%s, %zu positions: mean %.2e p99 %.2e max %.2e\n", what.c_str(), values.size(),
              mean_of(values), percentile99(values), largest_of(values));
  EXPECT_LE(mean_of(values), mean) << what;
  EXPECT_LE(percentile99(values), p99) << what;
  EXPECT_LE(largest_of(values), max) << what;
}

}  // namespace quire::test
