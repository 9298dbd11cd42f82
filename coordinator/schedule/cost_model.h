// Predicts what a step costs, learned from the steps that were measured:
//   us = a + b(tokens) + c * samples + d * context tokens, where b is a chain of straight pieces
// from knee to knee, each at least as steep as the one before; nothing is negative. So it follows
// a CPU, where every token costs, and a GPU, where tokens are free until it computes longer than
// it streams weights.
// Recursive least squares on the relative error. What a load no longer shows (say, prefills) keeps
// its last estimate; before it was ever shown it is guessed in proportion to the first steps. A
// slow step (a page-in) hardly counts, unless many follow it.
#pragma once

#include <array>
#include <vector>

namespace quire {

struct StepWork {
  int num_rows = 0;  // for who wants to know: what rows cost is in samples and tokens
  int num_tokens = 0;
  int num_samples = 0;
  double context_tokens = 0.0;  // sum over granted tokens of the positions that each attends to
};

// What `num_tokens` tokens of one row attend to, together: the one at position p to p + 1.
inline double context_tokens_of(double first_position, double num_tokens) {
  return num_tokens * first_position + num_tokens * (num_tokens + 1.0) / 2.0;
}

class StepCostModel {
 public:
  // A measured step. One of no tokens or of no time says nothing and is passed over.
  void observe(const StepWork& work, double us);

  bool known() const { return known_; }
  // 0 until known(). Never negative, and more work never costs less.
  double predict_us(const StepWork& work) const;

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
  enum Feature { kStep, kSamples, kContext, kTokens, kFirstKnee, kNumFeatures = kFirstKnee + 3 };
  using Vector = std::array<double, kNumFeatures>;
  using Matrix = std::array<Vector, kNumFeatures>;
  struct Sample {
    Vector work;
    double us = 0.0;
  };

  static Vector features(const StepWork& work);
  static Vector solve(const Matrix& matrix, const Vector& target, unsigned chosen);
  void begin();  // from the samples in `first_`
  void learn(const Sample& sample);
  void project();
  double slope(double num_tokens) const;  // us of one token more

  bool known_ = false;
  std::vector<Sample> first_;  // until known
  Matrix information_ = {};    // of relative errors, in units of one exact step
  Vector free_ = {};           // least squares, of any sign
  Vector cost_ = {};           // the nearest (in the sense of `information_`) of no negative sign
  unsigned positive_ = 0;      // bit set of the coefficients above 0
  int surprises_ = 0;          // slow (positive) or quick (negative) steps without one as expected
};

}  // namespace quire
