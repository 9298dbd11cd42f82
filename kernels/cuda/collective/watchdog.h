// Looks after the exchanges of one communicator from a thread of its own: polls for errors that
// happened behind our back, measures how long the device has been waited for, and after the first
// failure, whatever its cause, makes the kernels that wait for a peer leave, once.
//
// Shared by the collective, which opens and stops it, and the device, whose wait() it bounds:
//   begin_wait(); ... until the stream is empty, status() may be asked ...; end_wait()
#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace quire::cuda {

class Watchdog {
 public:
  struct Communicator {
    std::function<absl::Status()> poll;  // an error that came on its own, or OK
    std::function<void()> give_up;       // makes kernels that wait leave
  };
  Watchdog(Communicator communicator, absl::Duration deadline);
  ~Watchdog() { stop(); }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // While somebody waits, the deadline runs. Waits may nest: the outermost one counts.
  void begin_wait();
  void end_wait();

  // The first failure of all. Any thread.
  absl::Status status();
  void fail(const absl::Status& why);  // any thread; only the first one counts
  // The communicator is about to go: neither function is called any more. Any failure stays.
  void stop();

 private:
  void run();

  const Communicator communicator_;
  const absl::Duration deadline_;
  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int waits_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time give_up_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses all of the above
};

// Begins and ends a wait.
class WatchedWait {
 public:
  explicit WatchedWait(Watchdog& watchdog) : watchdog_(watchdog) { watchdog_.begin_wait(); }
  ~WatchedWait() { watchdog_.end_wait(); }
  WatchedWait(const WatchedWait&) = delete;
  WatchedWait& operator=(const WatchedWait&) = delete;

 private:
  Watchdog& watchdog_;
};

}  // namespace quire::cuda
