// The rule of prefill_share.h.
#include "coordinator/schedule/prefill_share.h"

#include <algorithm>
#include <limits>

namespace quire {
namespace {

constexpr double kLongestGap = 2.0;
constexpr int kLeastTokens = 4;  // of the first prompt in a step: it always advances
constexpr int kManySteps = 4;    // that a prompt may fill

}  // namespace

PrefillShare::PrefillShare(const StepCostModel& model, const StepWork& decodes,
                           const Limits& limits)
    : model_(model),
      work_(decodes),
      limits_(limits),
      timed_(limits.threshold < 0 && decodes.num_tokens > 0 && model.known()) {
  if (!timed_) return;
  share_us_ = (kLongestGap - 1.0) * model.predict_us(decodes);
  left_us_ = share_us_ * std::max(1, limits.num_prompts);
}

int PrefillShare::most_tokens(int begin, int missing) const {
  if (limits_.threshold > 0) return limits_.threshold;
  if (limits_.threshold == 0) return std::numeric_limits<int>::max();
  const bool halves = limits_.num_prompts > 1 && missing / kManySteps > limits_.budget_tokens;
  const int room =
      halves ? std::max(1, limits_.budget_tokens / 2) : std::numeric_limits<int>::max();
  if (!timed_) return room;
  const double allowed = std::min(left_us_, std::max(share_us_, left_us_ / 2));
  const int most = model_.max_prefill_tokens(work_, begin, allowed);
  return std::min(room, taken_ ? most : std::max(most, kLeastTokens));
}

void PrefillShare::take(int begin, int num_tokens) {
  taken_ = true;
  if (!timed_) return;
  const double before_us = model_.predict_us(work_);
  work_.add_row(begin, num_tokens);
  left_us_ = std::max(0.0, left_us_ - (model_.predict_us(work_) - before_us));
}

}  // namespace quire
