// The door of the waiting queue: how many requests and prompt tokens may wait, whether a deadline
// can still be kept, and when a refused client should come again. Any thread.
//
// What waits is what the loop said last, plus what was let in and the loop had not taken by then: a
// burst between two steps cannot overshoot a limit.
#pragma once

#include <cstdint>
#include <mutex>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/engine/drain_rate.h"

namespace quire {

// As the loop published it: everything taken from the mailbox since the start, and what of it waits
// (or waits again).
struct LoopQueue {
  std::uint64_t taken_requests = 0;
  std::uint64_t taken_tokens = 0;  // of prompts
  int waiting = 0;
  std::int64_t waiting_tokens = 0;
  int running = 0;
};

class QueueGate {
 public:
  struct Limits {
    std::int64_t max_requests = 0;  // that wait; 0: no limit
    int max_running = 0;            // so many more may be let in as could begin at once
    std::int64_t max_tokens = 0;    // of their prompts; 0: no limit
    // A request with so much time goes behind all that waits. One with less may overtake, so that
    // nobody knows what is before it.
    absl::Duration behind_all_from = absl::InfiniteDuration();
  };
  struct Refusals {
    std::uint64_t requests = 0, tokens = 0, deadline = 0;
  };
  explicit QueueGate(const Limits& limits) : limits_(limits) {}

  // Lets a request in, or ResourceExhausted with what waits and the limit, or DeadlineExceeded with
  // what the time is needed for. `at_once` is set when nobody waits before it.
  absl::Status enter(const LoopQueue& loop, std::int64_t prompt_tokens, absl::Time deadline,
                     absl::Time now, bool* at_once);

  void on_step(const LoopQueue& loop, absl::Time now);
  // The first token of a request that was let in at once.
  void on_first_token(std::int64_t prompt_tokens, absl::Time arrival, absl::Time now);

  // When half of what waits will have left, in [1 s, 600 s]; 1 s while the rate is not known.
  absl::Duration retry_after(const LoopQueue& loop) const;

  Refusals refusals() const;

 private:
  struct Waiting {
    std::int64_t requests = 0, tokens = 0;
  };
  Waiting waiting(const LoopQueue& loop) const;
  absl::Status check_limits(const Waiting& waiting, int running, std::int64_t prompt_tokens);
  absl::Status check_deadline(const Waiting& waiting, std::int64_t prompt_tokens,
                              absl::Time deadline, absl::Time now);

  const Limits limits_;
  mutable std::mutex mutex_;  // guards what follows
  std::uint64_t entered_requests_ = 0, entered_tokens_ = 0;
  DrainRate drain_;
  PrefillSpeed prefill_;
  Refusals refusals_;
};

}  // namespace quire
