#include "coordinator/engine/step_deadline.h"

#include <algorithm>

namespace quire {
namespace {

constexpr double kTimes = 20, kTimesUnsure = 100;
constexpr absl::Duration kShortest = absl::Seconds(2);
constexpr absl::Duration kShortestUnsure = absl::Seconds(10);
constexpr int kFirstSteps = 8;  // of a group: its memory is touched for the first time
constexpr double kMostSlowness = 10;
constexpr double kFades = 0.998;  // by half in some 350 steps

}  // namespace

absl::Duration StepDeadline::of(const StepForecast& forecast) const {
  if (fixed_ > absl::ZeroDuration()) return fixed_;
  if (forecast.us <= 0) return longest_;
  const absl::Duration expected = absl::Microseconds(forecast.us) * slowness_;
  if (!forecast.sure || num_steps_ < kFirstSteps) {
    return std::min(longest_, std::max(kShortestUnsure, expected * kTimesUnsure));
  }
  return std::min(longest_, std::max(kShortest, expected * kTimes));
}

void StepDeadline::observe(const StepForecast& forecast, absl::Duration took) {
  ++num_steps_;
  slowness_ = std::max(1.0, slowness_ * kFades);
  if (!forecast.sure || forecast.us <= 0) return;
  const double ratio = absl::ToDoubleMicroseconds(took) / forecast.us;
  slowness_ = std::clamp(ratio, slowness_, kMostSlowness);
}

}  // namespace quire
