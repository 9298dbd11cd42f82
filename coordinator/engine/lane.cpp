#include "coordinator/engine/lane.h"

#include <algorithm>
#include <utility>

namespace quire {
namespace {

constexpr absl::Duration kStood = absl::Minutes(1);
constexpr absl::Duration kLate = absl::Milliseconds(100);
constexpr absl::Duration kLateGrace = absl::Milliseconds(500);

}  // namespace

std::vector<RequestId> Lane::begin_group(const GroupReady& ready, absl::Time now) {
  deadline_.begin_group();
  instance_ = ready.instance;
  numerics_ = ready.numerics;
  has_changed_ = false;
  stood_due_ = now + kStood;
  has_advanced_ = false;
  return scheduler_.start_group(ready.epoch, ready.num_blocks, ready.next_step,
                                ready.num_host_blocks, ready.one_answer);
}

void Lane::lose_group() {
  scheduler_.lose_group();
  sent_.clear();
  answer_due_ = stood_due_ = absl::InfiniteFuture();
}

absl::Duration Lane::sent(absl::Time now) {
  Sent sent{.time = now, .forecast = {}, .allowed = {}};
  sent.forecast.us = scheduler_.newest_step_us(&sent.forecast.sure);
  sent.allowed = deadline_.of(sent.forecast);
  if (sent_.empty()) answer_due_ = now + sent.allowed;
  sent_.push_back(sent);
  return sent.allowed;
}

absl::Duration Lane::answered(absl::Time now) {
  const Sent sent = sent_.front();
  sent_.pop_front();
  deadline_.observe(sent.forecast, now - std::max(sent.time, last_answer_));
  answer_due_ = sent_.empty() ? absl::InfiniteFuture() : now + sent_.front().allowed;
  last_answer_ = now;
  ++steps_;
  return now - sent.time;
}

bool Lane::overdue(absl::Time now) {
  if (now < answer_due_) return false;
  if (now < answer_due_ + kLate) return true;
  answer_due_ = now + kLateGrace;
  return false;
}

bool Lane::advanced() {
  if (std::exchange(has_advanced_, true)) return false;
  stood_due_ = absl::InfiniteFuture();
  return true;
}

bool Lane::stood(absl::Time now) {
  if (now < stood_due_) return false;
  stood_due_ = absl::InfiniteFuture();
  return has_nothing() && advanced();
}

}  // namespace quire
