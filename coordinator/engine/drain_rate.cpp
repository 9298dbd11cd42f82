// The sums behind both estimates; see drain_rate.h.
#include "coordinator/engine/drain_rate.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace quire {
namespace {

constexpr double kEnoughSeconds = 0.5;
constexpr double kPauseSeconds = 10.0;   // without a step: nobody was there to drain the queue
constexpr double kEnoughRequests = 8.0;  // of late
constexpr int kEnoughPrompts = 3;
constexpr absl::Duration kFresh = absl::Seconds(10);
constexpr double kForget = 0.1;  // of the lead that a fast prompt has over the next one of its size

// Preempted requests wait again, so what has left can also shrink.
double grown(std::uint64_t now, std::uint64_t before) {
  return now > before ? static_cast<double>(now - before) : 0.0;
}

int size_class(std::int64_t tokens) {
  const auto bits = std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(tokens, 1)));
  return std::min(31, static_cast<int>(bits) - 1);
}

}  // namespace

void DrainRate::observe(const QueueCount& count, absl::Time now) {
  if (observed_ && now < last_time_) return;  // two threads may come in either order
  const double passed = observed_ ? absl::ToDoubleSeconds(now - last_time_) : 0.0;
  if (passed > 0.0 && passed < kPauseSeconds && last_.waiting > 0) {
    const double keep = std::exp(-passed / absl::ToDoubleSeconds(memory_));
    busy_s_ = busy_s_ * keep + passed;
    left_requests_ = left_requests_ * keep + grown(count.left_requests, last_.left_requests);
    left_tokens_ = left_tokens_ * keep + grown(count.left_tokens, last_.left_tokens);
  }
  observed_ = true;
  last_ = count;
  last_time_ = now;
}

std::optional<double> DrainRate::requests() const {
  if (busy_s_ < kEnoughSeconds) return std::nullopt;
  return (left_requests_ + 1.0) / busy_s_;
}

std::optional<double> DrainRate::tokens() const {
  if (busy_s_ < kEnoughSeconds || left_requests_ < kEnoughRequests) return std::nullopt;
  return left_tokens_ / busy_s_;
}

void PrefillSpeed::observe(std::int64_t tokens, absl::Duration took, absl::Time now) {
  const double seconds = std::max(1e-6, absl::ToDoubleSeconds(took));
  const double speed = static_cast<double>(tokens) / seconds;
  Size& size = sizes_[size_class(tokens)];
  if (now - size.last > kFresh) size = {};
  size.speed = std::max(speed, size.speed + kForget * (speed - size.speed));
  ++size.seen;
  size.last = now;
}

std::optional<double> PrefillSpeed::of(std::int64_t tokens, absl::Time now) const {
  double best = 0.0;
  for (int i = std::max(0, size_class(tokens) - 1); i < kSizes; ++i) {
    const Size& size = sizes_[i];
    if (size.seen >= kEnoughPrompts && now - size.last <= kFresh) best = std::max(best, size.speed);
  }
  if (best == 0.0) return std::nullopt;
  return best;
}

}  // namespace quire
