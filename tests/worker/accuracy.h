// How far an engine is from the reference: the rows of reference/smollm2/README.md "Tolerances" and
// the quantities they limit. Logprobs are natural, of the full softmax at temperature 1, computed
// here in double from the engine's own logits.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/ids.h"

namespace quire::test {

// One column of the table of tolerances.
struct ArithmeticClass {
  double mean, p99, max;                       // |d logprob| of the golden tokens
  double kl_mean, kl_p99;                      // KL20, nats
  double min_argmax;                           // share of positions whose best is the golden token
  double open_gap;                             // where it is not, the golden's gap is at most this
  double nll;                                  // |d mean NLL| on ppl.json
  double prompt_mean, prompt_p99, prompt_max;  // |d logprob| of prompt tokens
};
inline constexpr ArithmeticClass kClassA = {1e-4, 3e-4, 1e-3, 1e-6, 1e-5, 1.0,
                                            1e-3, 1e-4, 1e-4, 3e-4, 1e-3};
inline constexpr ArithmeticClass kClassB = {0.018, 0.12, 0.20,  8.5e-4, 5.5e-3, 0.98,
                                            0.25,  1e-3, 0.036, 0.22,   0.6};
inline constexpr ArithmeticClass kClassC = {0.031, 0.21,   0.36,  2.4e-3, 0.015, 0.97,
                                            0.45,  2.5e-3, 0.053, 0.34,   1.1};

// A row of logits as a distribution; the row must outlive it.
class Distribution {
 public:
  explicit Distribution(absl::Span<const float> logits);
  double logprob(TokenId token) const {
    return static_cast<double>(logits_[static_cast<std::size_t>(token)]) - log_sum_;
  }
  absl::Span<const float> logits() const { return logits_; }

 private:
  absl::Span<const float> logits_;
  double log_sum_ = 0.0;
};

// A distribution with all but its best tokens in one bucket.
struct BestTokens {
  std::vector<std::pair<TokenId, double>> logprobs;
  double rest = 0.0;  // probability of all others
};
BestTokens best_of(const Distribution& distribution, int k);
// KL(reference || ours) with every token outside reference's best in one bucket, on both sides
// exactly: ours is looked up by id, however unlikely, and its bucket is what is left of 1.
double divergence(const BestTokens& reference, const Distribution& ours);

double mean_of(const std::vector<double>& values);
double percentile99(std::vector<double> values);
double largest_of(const std::vector<double>& values);

// Mean, p99 and max of `values`, printed after `what`, at most the limits.
void expect_within(const std::string& what, const std::vector<double>& values, double mean,
                   double p99, double max);

}  // namespace quire::test
