// Recursive least squares in information form: an estimate, and what is known about each direction
// it could be wrong in. Forgetting lowers the second, where new steps come in, and moves nothing.
// An error is the distance of measured and predicted time in units of their geometric mean, close
// to ln(measured / predicted): twice as slow weighs as much as twice as fast.
#include "coordinator/schedule/cost_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

namespace quire {
namespace {

constexpr std::size_t kFirstSteps = 5;    // before anything is predicted
constexpr std::size_t kWarmUpSteps = 32;  // that are fitted together
// Shares of the quickest first steps that are guessed for the step itself, for samples and for
// tokens, and for tokens again behind each knee.
constexpr double kStepShare = 0.3, kSampleShare = 0.1, kTokenShare = 0.45, kKneeShare = 0.05;
// Of models' shapes: attending to so many positions costs about what the rest of a token does. It
// is never guessed from a short context's steps: what they take has other reasons.
constexpr double kPositionsPerToken = 4000.0;
constexpr double kContextDoubt = 5.0;  // by this factor that may be wrong
constexpr double kGuessSteps = 0.1;    // the guess counts as much as this many measured steps
constexpr double kMemory = 0.98;       // what a step is worth when the next of its kind is measured
constexpr double kDoubt = 0.7;         // what it is worth after one more step of a lasting change
constexpr double kLargeError = 0.5;    // relative to what is uncertain anyway
constexpr double kMostSlower = 1.0;    // that one step makes its like: twice as slow
constexpr int kLastingSurprises = 8;
constexpr double kErrorFades = 0.05;
constexpr double kFirstError = 0.5;  // assumed until it is known
constexpr double kNovel = 0.5;       // about what it is after two steps of a new kind
constexpr double kSafeErrors = 3.0;
constexpr double kMargin = 0.2;

template <typename Vector>
double dot(const Vector& a, const Vector& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

StepCostModel::Vector StepCostModel::features(const StepWork& work) {
  Vector x = {};
  x[kStep] = 1.0;
  x[kSamples] = work.num_samples;
  x[kTokens] = work.num_tokens;
  x[kReads] = work.context_reads;
  x[kAttended] = std::max(0.0, work.context_tokens - work.context_reads);
  for (std::size_t k = 0; k < kKnees.size(); ++k) {
    x[kFirstKnee + k] = std::max(0, work.num_tokens - kKnees[k]);
  }
  return x;
}

// x with matrix * x = target, where only the rows and columns in `chosen` exist; 0 elsewhere. By
// Cholesky: the matrix is positive definite.
StepCostModel::Vector StepCostModel::solve(const Matrix& matrix, const Vector& target,
                                           unsigned chosen) {
  std::array<std::size_t, kNumFeatures> order = {};
  std::size_t n = 0;
  for (std::size_t i = 0; i < kNumFeatures; ++i) {
    if ((chosen >> i & 1u) != 0) order[n++] = i;
  }
  double lower[kNumFeatures][kNumFeatures];  // its diagonal inverted; std::array checks each index
  double z[kNumFeatures];
  for (std::size_t i = 0; i < n; ++i) {
    const double* row = matrix[order[i]].data();
    for (std::size_t j = 0; j < i; ++j) {
      double sum = row[order[j]];
      for (std::size_t k = 0; k < j; ++k) sum -= lower[i][k] * lower[j][k];
      lower[i][j] = sum * lower[j][j];
    }
    double square = row[order[i]];
    double sum = target[order[i]];
    for (std::size_t k = 0; k < i; ++k) {
      square -= lower[i][k] * lower[i][k];
      sum -= lower[i][k] * z[k];
    }
    // Rounding must not make features that are nearly parallel cost a root of less than nothing.
    lower[i][i] = 1.0 / std::sqrt(std::max(square, 1e-12 * row[order[i]]));
    z[i] = sum * lower[i][i];
  }
  Vector x = {};
  for (std::size_t i = n; i-- > 0;) {
    double sum = z[i];
    for (std::size_t k = i + 1; k < n; ++k) sum -= lower[k][i] * x[order[k]];
    x[order[i]] = sum * lower[i][i];
  }
  return x;
}

void StepCostModel::observe(const StepWork& work, double us) {
  if (work.num_tokens <= 0 || !(us > 0.0) || !std::isfinite(us)) return;
  const Sample sample{features(work), us};
  if (known_ && first_.empty()) {
    learn(sample, 1.0);
    return bound_large_steps(sample);
  }
  first_.push_back(sample);
  if (first_.size() < kFirstSteps) return;
  fit_first();
  known_ = true;
  if (first_.size() == kWarmUpSteps) first_ = {};
}

// While steps are few, all of them are fitted anew with each: the quickest relative to the guess
// first, so that by then it is known that a slow one (weights paged in, caches cold) was slow.
void StepCostModel::fit_first() {
  guess();
  std::vector<std::pair<double, const Sample*>> order;
  for (const Sample& sample : first_) {
    order.emplace_back(sample.us / dot(sample.work, cost_), &sample);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [slowness, sample] : order) {
    surprises_ = 0;  // they have no order in time
    learn(*sample, 1.0);
  }
  for (const Sample& sample : first_) bound_large_steps(sample);
  surprises_ = 0;
  typical_error_ = kFirstError;
}

// Time is measured too long, never too short, and large steps are no dearer per token than small
// ones: the least that a unit took in any step is nearest to its cost.
void StepCostModel::guess() {
  const auto least = [this](Feature unit) {
    double us = std::numeric_limits<double>::infinity();
    for (const Sample& sample : first_) {
      us = std::min(us, sample.us / std::max(sample.work[unit], 1.0));
    }
    return us;
  };
  const auto set = [this](std::size_t i, double us, double sure_within) {
    free_[i] = us;
    information_[i][i] = kGuessSteps / (sure_within * sure_within);
  };
  const double token_us = least(kTokens);
  const double position_us = kTokenShare * token_us / kPositionsPerToken;
  information_ = {};
  set(kStep, kStepShare * least(kStep), least(kStep));
  set(kSamples, kSampleShare * least(kSamples), least(kSamples));
  set(kTokens, kTokenShare * token_us, token_us);
  set(kReads, position_us, kContextDoubt * position_us);
  set(kAttended, position_us, kContextDoubt * position_us);
  for (std::size_t i = kFirstKnee; i < kNumFeatures; ++i) set(i, kKneeShare * token_us, token_us);
  cost_ = free_;
  positive_ = (1u << kNumFeatures) - 1;
}

// While large steps have not been measured, they are taken to cost no more per token than any other
// that was: learned a little, as if one had been seen, so that a real one still counts as new.
void StepCostModel::bound_large_steps(const Sample& sample) {
  constexpr int kLargeStep = 512;
  constexpr double kWorse = 1.5, kUnseen = 2.0, kLittle = 0.25;
  Sample large{features({.num_tokens = kLargeStep}), sample.us * kLargeStep / sample.work[kTokens]};
  const double us = dot(large.work, cost_);
  if (us > kWorse * large.us && novelty(large.work, us) > kUnseen) learn(large, kLittle);
}

// How little is known of such a step that takes `us`: 1 after one that was like it, or less.
double StepCostModel::novelty(Vector work, double us) const {
  for (double& w : work) w /= us;
  return dot(work, solve(information_, work, (1u << kNumFeatures) - 1));
}

void StepCostModel::learn(const Sample& sample, double worth) {
  const double expected = std::max(dot(sample.work, cost_), 0.01 * sample.us);
  // One measured far too quick must not weigh more for it, unless it is the first of its kind:
  // what it took is enough, whatever was guessed.
  double unit = std::max(std::sqrt(sample.us * expected), 0.8 * expected);
  const bool is_new = novelty(sample.work, unit) > kNovel;
  if (is_new) unit = std::sqrt(sample.us * expected);
  Vector work = sample.work;
  for (double& w : work) w /= unit;
  const double error = sample.us / unit - dot(work, free_);

  // What is new (much of it unlike the steps before) may err more before it counts as a surprise.
  const Vector direction = solve(information_, work, (1u << kNumFeatures) - 1);
  const double novel = dot(work, direction);
  const double doubt = std::sqrt(1.0 + novel);
  const double large = kLargeError * doubt;
  typical_error_ += kErrorFades * (std::min(1.0, std::abs(error)) / doubt - typical_error_);
  const int surprise = error > large ? 1 : error < -large ? -1 : 0;
  surprises_ = surprise * surprises_ > 0 ? surprises_ + surprise : surprise;
  const bool lasting = std::abs(surprises_) >= kLastingSurprises;
  const bool certain = surprise == 0 || lasting || (surprise < 0 && is_new);
  double weight = certain ? 1.0 : large / std::abs(error);
  // Even what is new may be slow for another reason: it is believed bit by bit.
  const double slower = weight * error * unit * novel / (1.0 + novel);
  if (slower > kMostSlower * expected && !lasting) weight *= kMostSlower * expected / slower;

  // Information is added only up to what the memory holds, and taken away above that: along this
  // step's direction alone, so that others keep theirs (directional forgetting). After a lasting
  // change all of it is in doubt.
  const double kept = lasting ? kDoubt : 1.0;
  const double added = worth * weight * (kMemory - (1.0 - kMemory) / novel);
  const double gain = weight * error / (1.0 + novel);
  for (std::size_t i = 0; i < kNumFeatures; ++i) {
    for (std::size_t j = 0; j < kNumFeatures; ++j) {
      information_[i][j] = kept * (information_[i][j] + added * work[i] * work[j]);
    }
    free_[i] += gain * direction[i];
  }
  project();
}

// A point is nearest if no coefficient above 0 would rather be below, and none at 0 above. Those
// that are wrong change sides until none is: all at once while that goes well, then only the last,
// which ends surely (Murty's rule).
void StepCostModel::project() {
  if (std::all_of(free_.begin(), free_.end(), [](double c) { return c >= 0.0; })) {
    cost_ = free_;
    positive_ = (1u << kNumFeatures) - 1;
    return;
  }
  Vector target = {};
  for (std::size_t i = 0; i < kNumFeatures; ++i) target[i] = dot(information_[i], free_);
  constexpr int kQuickTurns = 4;
  constexpr int kTurns = 64;
  Vector cost = {};
  for (int turn = 0; turn < kTurns; ++turn) {
    cost = solve(information_, target, positive_);
    unsigned wrong = 0;
    for (std::size_t i = 0; i < kNumFeatures; ++i) {
      const bool is_positive = (positive_ >> i & 1u) != 0;
      const double rounding = 1e-9 * information_[i][i] * std::abs(free_[i]);
      const bool stays =
          is_positive ? cost[i] >= 0.0 : dot(information_[i], cost) >= target[i] - rounding;
      if (!stays) wrong |= 1u << i;
    }
    if (wrong == 0) break;
    positive_ ^= turn < kQuickTurns ? wrong : std::bit_floor(wrong);
  }
  for (std::size_t i = 0; i < kNumFeatures; ++i) cost_[i] = std::max(0.0, cost[i]);
}

double StepCostModel::predict_us(const StepWork& work) const {
  return dot(features(work), cost_);
}

double StepCostModel::least_us(const StepWork& work) const {
  if (!known_ || !first_.empty() || work.num_tokens <= 0) return 0.0;
  const double us = predict_us(work);
  if (us <= 0.0 || novelty(features(work), us) > kNovel) return 0.0;
  return us * std::exp(-kMargin - kSafeErrors * typical_error_);
}

double StepCostModel::slope(double num_tokens) const {
  double us = cost_[kTokens];
  for (std::size_t k = 0; k < kKnees.size(); ++k) {
    if (num_tokens >= kKnees[k]) us += cost_[kFirstKnee + k];
  }
  return us;
}

double StepCostModel::us_per_prefill_token(double position, int num_tokens) const {
  return slope(num_tokens) + cost_[kReads] + cost_[kAttended] * position;
}

double StepCostModel::us_per_draft_token(double position, int num_tokens) const {
  return us_per_prefill_token(position, num_tokens) + cost_[kSamples];
}

int StepCostModel::max_prefill_tokens(const StepWork& others, double context_begin,
                                      double allowed_us) const {
  // A row of n tokens from position p on reads p + n positions and attends to (n - 1) * (p + n / 2)
  // more. On one piece of the chain that takes, beside p * (kReads - kAttended),
  //   n * first + n^2 * growth.
  double left_us = allowed_us - context_begin * (cost_[kReads] - cost_[kAttended]);
  if (!(allowed_us >= 0.0) || !(left_us >= 0.0)) return 0;
  const double growth = cost_[kAttended] / 2.0;
  double position = context_begin;
  double in_step = others.num_tokens;
  std::size_t next = 0;  // knee
  for (;;) {
    while (next < kKnees.size() && kKnees[next] <= in_step) ++next;
    const double first =
        std::max(0.0, slope(in_step) + cost_[kReads] + cost_[kAttended] * (position - 0.5));
    if (next < kKnees.size()) {
      const double span = kKnees[next] - in_step;
      const double span_us = span * first + span * span * growth;
      if (span_us <= left_us) {
        left_us -= span_us;
        position += span;
        in_step += span;
        continue;
      }
    }
    // The positive root of growth * n^2 + first * n = left_us, without a difference of equals.
    const double root = std::sqrt(first * first + 4.0 * growth * left_us);
    const double most = position - context_begin + 2.0 * left_us / (first + root);
    constexpr int kLargest = std::numeric_limits<int>::max();
    if (!(most < kLargest)) return kLargest;  // also if tokens cost nothing
    return static_cast<int>(most);
  }
}

}  // namespace quire
