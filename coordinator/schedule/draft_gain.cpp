// The estimate and the rule of draft_gain.h.
#include "coordinator/schedule/draft_gain.h"

#include <algorithm>

#include "common/check.h"

namespace quire {
namespace {

// What is hoped for without any experience, and how many judged guesses that is worth.
constexpr double kHope = 0.6;
constexpr double kHopeWeight = 2.0;
constexpr double kFade = 0.98;        // of experience, with every guess that is judged
constexpr double kLeastChance = 0.1;  // a draft less likely right is not worth its bookkeeping
// While costs are not known.
constexpr int kFewRows = 4;
constexpr double kGoodChance = 0.25;

}  // namespace

void DraftGain::observe(int guessed, int right) {
  QUIRE_CHECK_GE(right, 0);
  QUIRE_CHECK_LE(right, guessed);
  for (int i = 0; i < std::min(right + 1, guessed); ++i) {
    judged_ = kFade * judged_ + 1.0;
    right_ = kFade * right_ + (i < right ? 1.0 : 0.0);
  }
}

double DraftGain::acceptance() const {
  return (right_ + kHope * kHopeWeight) / (judged_ + kHopeWeight);
}

int DraftGain::worthwhile(int max_tokens, int running_rows, double step_us,
                          double us_per_draft_token) const {
  const bool known = step_us > 0.0;
  if (!known && running_rows > kFewRows) return 0;
  const double acceptance_rate = acceptance();
  const double rows = std::max(running_rows, 1);
  double chance = 1.0;  // that the k-th draft is right
  double gained = 0.0;  // tokens, expected
  double best_rate = known ? rows / step_us : 0.0;
  for (int k = 1; k <= max_tokens; ++k) {
    chance *= acceptance_rate;
    gained += chance;
    if (chance < (known ? kLeastChance : kGoodChance)) return k - 1;
    if (!known) continue;
    // Every draft is less likely right than the one before and costs the same: once the rate does
    // not rise, it never will again.
    const double rate = (rows + gained) / (step_us + k * us_per_draft_token);
    if (rate <= best_rate) return k - 1;
    best_rate = rate;
  }
  return std::max(max_tokens, 0);
}

double DraftGain::net_tokens(int count, int running_rows, double step_us,
                             double us_per_draft_token) const {
  const double acceptance_rate = acceptance();
  double chance = 1.0, gained = 0.0;
  for (int k = 1; k <= count; ++k) gained += chance *= acceptance_rate;
  if (!(step_us > 0.0)) return gained;
  return gained - count * us_per_draft_token * std::max(running_rows, 1) / step_us;
}

}  // namespace quire
