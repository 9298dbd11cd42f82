// Predicts what a step costs, learned from the steps that were measured:
//   us = a + b * tokens + c * samples + d * context tokens, none of them negative.
// Recursive least squares on the relative error. Old steps are forgotten only where new ones say
// more: what a load no longer shows (say, prefills) keeps its last estimate. Before it was ever
// shown, it is guessed in proportion to the first steps. A slow step (a page-in) hardly counts,
// unless many follow it.
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

  // What one more token costs in a step that runs anyway: of a prompt, at position `position`.
  double us_per_prefill_token(double position) const;
  // The same for a draft, which is sampled too.
  double us_per_draft_token(double position) const;
  double us_per_step() const { return cost_[kStep]; }

  // The most tokens of one prompt, from position `context_begin` on, that lengthen the step of
  // `decodes` by no more than `allowed_us`. No bound (the largest int) until known().
  int max_prefill_tokens(const StepWork& decodes, double context_begin, double allowed_us) const;

 private:
  enum Feature { kStep, kTokens, kSamples, kContext, kNumFeatures };
  using Vector = std::array<double, kNumFeatures>;
  using Matrix = std::array<Vector, kNumFeatures>;
  struct Sample {
    Vector work;
    double us = 0.0;
  };

  static Vector features(const StepWork& work);
  void begin();  // from the samples in `first_`
  void learn(const Sample& sample);
  void project();

  bool known_ = false;
  std::vector<Sample> first_;  // until known
  Matrix information_ = {};    // of relative errors, in units of one exact step
  Vector least_ = {};          // information about each coefficient that is never forgotten
  Vector free_ = {};           // least squares, of any sign
  Vector cost_ = {};           // the nearest (in the sense of `information_`) of no negative sign
  int surprises_ = 0;          // slow (positive) or quick (negative) steps without one as expected
};

}  // namespace quire
