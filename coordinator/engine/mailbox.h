// Messages from other threads to the engine's thread, in the order they were left. The only place
// where threads meet in the engine.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/step.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/queue_gate.h"
#include "coordinator/engine/request.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {

struct CancelRequest {
  RequestId request = 0;
};
struct StopChoice {
  RequestId request = 0;
  int choice = 0;
};
struct GroupLost {
  EndCause cause = EndCause::kRankGone;
  std::string why;
};
// Ends every request; then moves the prefix cache into the offload stores and answers with its
// index (empty: there is none).
struct SavePrefixes {
  std::shared_ptr<std::promise<std::string>> index;
};
// `tell` is called once, as soon as no request is unfinished.
struct AwaitIdle {
  std::function<void()> tell;
};
// The loop's answer to a thread that waits for it, unless it has given up.
class Verdict {
 public:
  // False, and the answer is not taken: nobody waits any more.
  bool give(absl::Status answer) {
    std::lock_guard lock(mutex_);
    if (given_up_) return false;
    answer_ = std::move(answer);
    news_.notify_one();
    return true;
  }
  // Ok if none comes within `patience`.
  absl::Status wait(absl::Duration patience) {
    std::unique_lock lock(mutex_);
    news_.wait_for(lock, absl::ToChronoNanoseconds(patience),
                   [this] { return answer_.has_value(); });
    given_up_ = !answer_.has_value();
    if (given_up_) return absl::OkStatus();
    // A copy of its own: ThreadSanitizer does not see how copies of one Status share a count.
    return absl::Status(answer_->code(), answer_->message());
  }

 private:
  std::mutex mutex_;  // guards what follows
  std::condition_variable news_;
  std::optional<absl::Status> answer_;
  bool given_up_ = false;
};
// One that is only taken if its deadline can be kept.
struct DoubtfulRequest {
  Request request;
  SpeedsSeen speeds;
  std::shared_ptr<Verdict> verdict;
};
// One that an earlier coordinator had accepted.
struct ResumedRequest {
  Request request;
  std::vector<ChoicePast> past;  // [choice]
};
using Message = std::variant<Request, DoubtfulRequest, ResumedRequest, CancelRequest, StopChoice,
                             GroupReady, StepResult, GroupLost, SavePrefixes, AwaitIdle>;

// std::mutex rather than absl's: ThreadSanitizer sees through it in a build against packages.
class Mailbox {
 public:
  // False once closed: the message is not taken.
  bool push(Message message) {
    std::lock_guard lock(mutex_);
    if (closed_) return false;
    if (messages_.empty()) waiting_since_ = steady_now();
    messages_.push_back(std::move(message));
    news_.notify_one();
    return true;
  }

  void close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    news_.notify_one();
  }

  // When the oldest message that nobody has taken came; InfiniteFuture if there is none.
  absl::Time waiting_since() const {
    std::lock_guard lock(mutex_);
    return messages_.empty() ? absl::InfiniteFuture() : waiting_since_;
  }

  // Sleeps until there are messages, or `until`, or the mailbox is closed. Replaces `inbox` by what
  // came, also by the last messages before closing; false once closed.
  bool wait(absl::Time until, std::vector<Message>* inbox) {
    inbox->clear();
    const auto has_news = [this] { return closed_ || !messages_.empty(); };
    std::unique_lock lock(mutex_);
    if (until == absl::InfiniteFuture()) {
      news_.wait(lock, has_news);
    } else {
      // Not longer than a day at a time: the sum of two times must stay one.
      const absl::Duration patience = std::min(until - steady_now(), absl::Hours(24));
      news_.wait_for(lock, absl::ToChronoNanoseconds(patience), has_news);
    }
    std::swap(messages_, *inbox);
    return !closed_;
  }

 private:
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable news_;
  std::vector<Message> messages_;
  absl::Time waiting_since_;  // while there are any
  bool closed_ = false;
};

}  // namespace quire
