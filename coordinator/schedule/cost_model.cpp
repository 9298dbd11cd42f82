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

namespace quire {
namespace {

constexpr std::size_t kFirstSteps = 5;
// Shares of a step that the first guess gives to the step itself, samples, context, tokens, and to
// tokens again behind each knee.
constexpr std::array<double, 7> kGuess = {0.3, 0.1, 0.1, 0.4, 0.05, 0.05, 0.05};
constexpr double kGuessSteps = 0.05;  // the guess counts as much as this many measured steps
constexpr double kMemory = 0.98;      // what a step is worth when the next of its kind is measured
constexpr double kDoubt = 0.7;        // what it is worth after one more step of a lasting change
constexpr double kLargeError = 0.5;   // relative to what is uncertain anyway
constexpr int kLastingSurprises = 8;

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
  x[kContext] = work.context_tokens;
  x[kTokens] = work.num_tokens;
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
  if (known_) {
    learn(sample);
    return;
  }
  first_.push_back(sample);
  if (first_.size() == kFirstSteps) begin();
}

// Each coefficient is guessed from the median of what a unit of its feature took, so one slow step
// among the first (weights paged in, caches cold) does not set the scale.
void StepCostModel::begin() {
  for (std::size_t i = 0; i < kNumFeatures; ++i) {
    const std::size_t unit = std::min<std::size_t>(i, kTokens);  // behind a knee: per token, too
    std::array<double, kFirstSteps> us_per_unit = {};
    for (std::size_t k = 0; k < kFirstSteps; ++k) {
      us_per_unit[k] = first_[k].us / std::max(first_[k].work[unit], 1.0);
    }
    const auto median = us_per_unit.begin() + kFirstSteps / 2;
    std::nth_element(us_per_unit.begin(), median, us_per_unit.end());
    free_[i] = cost_[i] = kGuess[i] * *median;
    information_[i][i] = kGuessSteps / (*median * *median);
  }
  positive_ = (1u << kNumFeatures) - 1;
  known_ = true;
  for (const Sample& sample : first_) learn(sample);
  first_ = {};
  surprises_ = 0;
}

void StepCostModel::learn(const Sample& sample) {
  const double expected = std::max(dot(sample.work, cost_), 0.01 * sample.us);
  // One measured far too quick must not weigh more for it.
  const double unit = std::max(std::sqrt(sample.us * expected), 0.8 * expected);
  Vector work = sample.work;
  for (double& w : work) w /= unit;
  const double error = sample.us / unit - dot(work, free_);

  // What is new (much of it unlike the steps before) may err more before it counts as a surprise.
  const Vector direction = solve(information_, work, (1u << kNumFeatures) - 1);
  const double novelty = dot(work, direction);
  const double large = kLargeError * std::sqrt(1.0 + novelty);
  const int surprise = error > large ? 1 : error < -large ? -1 : 0;
  surprises_ = surprise * surprises_ > 0 ? surprises_ + surprise : surprise;
  const bool lasting = std::abs(surprises_) >= kLastingSurprises;
  const double weight = surprise == 0 || lasting ? 1.0 : large / std::abs(error);

  // Information is added only up to what the memory holds, and taken away above that: along this
  // step's direction alone, so that others keep theirs (directional forgetting). After a lasting
  // change all of it is in doubt.
  const double kept = lasting ? kDoubt : 1.0;
  const double added = weight * (kMemory - (1.0 - kMemory) / novelty);
  const double gain = weight * error / (1.0 + weight * novelty);
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

double StepCostModel::slope(double num_tokens) const {
  double us = cost_[kTokens];
  for (std::size_t k = 0; k < kKnees.size(); ++k) {
    if (num_tokens >= kKnees[k]) us += cost_[kFirstKnee + k];
  }
  return us;
}

double StepCostModel::us_per_prefill_token(double position, int num_tokens) const {
  return slope(num_tokens) + cost_[kContext] * (position + 1.0);
}

double StepCostModel::us_per_draft_token(double position, int num_tokens) const {
  return us_per_prefill_token(position, num_tokens) + cost_[kSamples];
}

int StepCostModel::max_prefill_tokens(const StepWork& others, double context_begin,
                                      double allowed_us) const {
  if (!(allowed_us >= 0.0)) return 0;
  // On one piece, n tokens from position p attend to n * p + n * (n + 1) / 2, so they take
  //   n * first + n^2 * growth.
  const double growth = cost_[kContext] / 2.0;
  double position = context_begin;
  double in_step = others.num_tokens;
  double left_us = allowed_us;
  std::size_t next = 0;  // knee
  for (;;) {
    while (next < kKnees.size() && kKnees[next] <= in_step) ++next;
    const double first = slope(in_step) + cost_[kContext] * (position + 0.5);
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
