// Messages from other threads to the engine's thread, in the order they were left. The only place
// where threads meet in the engine.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/step.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/request.h"

namespace quire {

struct CancelRequest {
  RequestId request = 0;
};
struct StopChoice {
  RequestId request = 0;
  int choice = 0;
};
struct GroupLost {
  std::string why;
};
using Message = std::variant<Request, CancelRequest, StopChoice, GroupReady, StepResult, GroupLost>;

class Mailbox {
 public:
  // False once closed: the message is not taken.
  bool push(Message message) {
    absl::MutexLock lock(&mutex_);
    if (closed_) return false;
    messages_.push_back(std::move(message));
    return true;
  }

  void close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }

  // Sleeps until there are messages, or `until`, or the mailbox is closed. Replaces `inbox` by what
  // came, also by the last messages before closing; false once closed.
  bool wait(absl::Time until, std::vector<Message>* inbox) {
    inbox->clear();
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithDeadline(absl::Condition(this, &Mailbox::has_news), until);
    std::swap(messages_, *inbox);
    return !closed_;
  }

 private:
  bool has_news() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closed_ || !messages_.empty(); }

  absl::Mutex mutex_;
  std::vector<Message> messages_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace quire
