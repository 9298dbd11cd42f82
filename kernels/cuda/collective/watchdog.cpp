#include "kernels/cuda/collective/watchdog.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quire::cuda {
namespace {

// Between two looks: while a step is waited for, and while nothing is.
constexpr absl::Duration kBusyPause = absl::Milliseconds(10);
constexpr absl::Duration kIdlePause = absl::Milliseconds(200);

}  // namespace

Watchdog::Watchdog(Communicator communicator, absl::Duration deadline)
    : communicator_(std::move(communicator)), deadline_(deadline), thread_([this] { run(); }) {}

void Watchdog::begin_wait() {
  absl::MutexLock lock(&mutex_);
  if (waits_++ == 0) give_up_at_ = absl::Now() + deadline_;
}

void Watchdog::end_wait() {
  absl::MutexLock lock(&mutex_);
  if (--waits_ == 0) give_up_at_ = absl::InfiniteFuture();
}

absl::Status Watchdog::status() {
  absl::MutexLock lock(&mutex_);
  return status_;
}

void Watchdog::fail(const absl::Status& why) {
  absl::MutexLock lock(&mutex_);
  if (status_.ok()) status_ = why;
}

void Watchdog::stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void Watchdog::run() {
  const auto over = [this]()
                        ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopped_ || !status_.ok(); };
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      const absl::Duration pause = waits_ > 0 ? kBusyPause : kIdlePause;
      mutex_.AwaitWithTimeout(absl::Condition(&over), std::min(pause, deadline_));
      if (stopped_) return;
      if (status_.ok() && absl::Now() > give_up_at_) {
        status_ = absl::DeadlineExceededError(
            absl::StrCat("a peer did not arrive at an exchange within ",
                         absl::FormatDuration(deadline_), ", or the device is stuck"));
      }
      if (!status_.ok()) break;
    }
    if (const absl::Status found = communicator_.poll(); !found.ok()) fail(found);
  }
  communicator_.give_up();
}

}  // namespace quire::cuda
