#include "deploy/quire/restart_budget.h"

#include <algorithm>

namespace quire {
namespace {

using std::chrono::milliseconds;

constexpr int kMaxFailedLives = 5;
constexpr milliseconds kFirstPause{500};
constexpr milliseconds kLongestPause{30000};

}  // namespace

std::optional<milliseconds> RestartBudget::next_pause() {
  ++failed_lives_;
  if (failed_lives_ >= kMaxFailedLives) return std::nullopt;
  if (failed_lives_ == 1) return milliseconds{0};
  return std::min(kFirstPause * (1 << (failed_lives_ - 2)), kLongestPause);
}

}  // namespace quire
