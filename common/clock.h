// The time that deadlines, leases and durations are made of. The wall clock may be set while we
// run; whoever waits for an hour that was skipped, or for one that comes twice, takes the living
// for dead.
//
// absl::Now() remains for what people and files read: dates. absl's own timed waits follow the wall
// clock, too; what must go on when it is set back sleeps in a Pacer.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace quire {

// The wall clock as it was when first asked, moved on by the monotonic clock: never jumps.
inline absl::Time steady_now() {
  using Clock = std::chrono::steady_clock;
  static const absl::Time wall = absl::Now();
  static const Clock::time_point begin = Clock::now();
  return wall + absl::FromChrono(Clock::now() - begin);
}

// Where a part takes its time from: steady_now, or a simulation's.
using Clock = std::function<absl::Time()>;

// The sleep of a thread that does something at intervals.
class Pacer {
 public:
  // True after `pause`; false at once when stop() has been called.
  bool sleep(absl::Duration pause) {
    std::unique_lock lock(mutex_);
    return !changed_.wait_for(lock, absl::ToChronoNanoseconds(pause), [this] { return stopped_; });
  }
  void stop() {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool stopped_ = false;
};

}  // namespace quire
