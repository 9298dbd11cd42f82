// Messages from other threads to the engine's thread, in the order they were left. The only place
// where threads meet in the engine.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/engine/message.h"

namespace quire {

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
