// Predicts what a step costs, learned from the steps that were measured:
//   us = a + b(tokens) + c * samples + d * positions read + e * further positions attended to,
// where b is a chain of straight pieces from knee to knee, each at least as steep as the one
// before; nothing is negative. So it follows a CPU, where every token costs, and a GPU, where
// tokens are free until it computes longer than it streams weights. A row reads its context once,
// but each token of a prompt's chunk attends to all of it: memory and arithmetic, so two terms.
// Recursive least squares on the relative error. What a load no longer shows (say, prefills) keeps
// its last estimate; before it was ever shown it is guessed in proportion to the quickest of the
// first steps, which are fitted together. A slow step (a page-in) hardly counts, unless many follow
// it, and none moves the estimate of its like by more than a small factor.
#pragma once

#include <array>
#include <vector>

namespace quire {

// What `num_tokens` tokens of one row attend to, together: the one at position p to p + 1.
inline double context_tokens_of(double first_position, double num_tokens) {
  return num_tokens * first_position + num_tokens * (num_tokens + 1.0) / 2.0;
}

struct StepWork {
  int num_rows = 0;  // for who wants to know: what rows cost is in samples and tokens
  int num_tokens = 0;
  int num_samples = 0;
  double context_tokens = 0.0;  // sum over granted tokens of the positions that each attends to
  double context_reads = 0.0;   // sum over rows of the positions that its last token attends to

  void add_row(double first_position, int count) {
    num_rows += 1;
    num_tokens += count;
    context_tokens += context_tokens_of(first_position, count);
    context_reads += first_position + count;
  }
};

class StepCostModel {
 public:
  // A measured step. One of no tokens or of no time says nothing and is passed over.
  void observe(const StepWork& work, double us);

  bool known() const { return known_; }
  // 0 until known(). Never negative, and more work never costs less.
  double predict_us(const StepWork& work) const;
  // Below what such a step takes, as sure as that can be known: lower where predictions were wrong
  // of late. 0 where steps like it have not been measured yet, or few steps at all.
  double least_us(const StepWork& work) const;

  // What one more token of a prompt costs, at position `position`, in a step that runs anyway and
  // has `num_tokens` already.
  double us_per_prefill_token(double position, int num_tokens = 0) const;
  // The same for a draft, which is sampled too.
  double us_per_draft_token(double position, int num_tokens = 0) const;
  double us_per_step() const { return cost_[kStep]; }

  // The most tokens of one prompt, from position `context_begin` on, that lengthen a step of
  // `others` by no more than `allowed_us`. No bound (the largest int) until known().
  int max_prefill_tokens(const StepWork& others, double context_begin, double allowed_us) const;

 private:
  // Behind each knee a token costs more by this, in tokens per step.
  static constexpr std::array<int, 3> kKnees = {64, 128, 256};
  enum Feature { kStep, kSamples, kTokens, kReads, kAttended, kFirstKnee };
  static constexpr int kNumFeatures = kFirstKnee + 3;
  using Vector = std::array<double, kNumFeatures>;
  using Matrix = std::array<Vector, kNumFeatures>;
  struct Sample {
    Vector work;
    double us = 0.0;
  };

  static Vector features(const StepWork& work);
  static Vector solve(const Matrix& matrix, const Vector& target, unsigned chosen);
  void fit_first();
  void guess();  // from the samples in `first_`
  void learn(const Sample& sample, double worth);
  void bound_large_steps(const Sample& sample);
  double novelty(Vector work, double us) const;
  void project();
  double slope(double num_tokens) const;  // us of one token more

  bool known_ = false;
  std::vector<Sample> first_;  // until there are enough of them
  Matrix information_ = {};    // of relative errors, in units of one exact step
  Vector free_ = {};           // least squares, of any sign
  Vector cost_ = {};           // the nearest (in the sense of `information_`) of no negative sign
  unsigned positive_ = 0;      // bit set of the coefficients above 0
  int surprises_ = 0;          // slow (positive) or quick (negative) steps without one as expected
  double typical_error_ = 0;   // of predictions of late, relative
};

}  // namespace quire
