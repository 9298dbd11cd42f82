// The door of the waiting queue: how many requests and prompt tokens may wait, which deadlines are
// in doubt, and when a refused client should come again. Any thread. Whether a deadline in doubt
// can be kept is for the loop to say, which knows the order, the cache and what steps cost.
//
// What waits is what the loop said last, plus what was let in and the loop had not taken by then: a
// burst between two steps cannot overshoot a limit.
#pragma once

#include <cstdint>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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
  int free_slots = 0;       // so many more may be let in: they could begin at once
  double full_step_us = 0;  // at most, of a step full of one prompt; 0: not known
};

// Of late, per second, of those who went fastest; 0: too little was seen.
struct SpeedsSeen {
  double queue_tokens = 0;   // of prompts that left the queue
  double prompt_tokens = 0;  // computed, of a prompt about as long that waited for nobody
};

// What a deadline leaves, and what comes before a first token; none of it too high.
struct DeadlineNeeds {
  double left_s = 0;
  std::int64_t tokens_before = 0;  // of prompts that leave the queue earlier
  double queue_s = 0;              // 0: not known
  std::int64_t missing_tokens = 0;
  double prompt_s = 0;  // 0: not known
};
// DeadlineExceeded, with what the time is needed for.
absl::Status check_deadline(const DeadlineNeeds& needs);

class QueueGate {
 public:
  struct Limits {
    std::int64_t max_requests = 0;  // that wait; 0: no limit
    std::int64_t max_tokens = 0;    // of their prompts; 0: no limit
    int max_batched_tokens = 1;     // in a step
  };
  struct Refusals {
    std::uint64_t requests = 0, tokens = 0, deadline = 0;
  };
  // Of a request that was let in.
  struct Entry {
    bool at_once = false;      // nobody waits before it
    bool is_doubtful = false;  // its deadline may not be kept: ask the loop
    SpeedsSeen speeds;
  };
  explicit QueueGate(const Limits& limits) : limits_(limits) {}

  // Lets a request in, or ResourceExhausted with what waits and the limit, or DeadlineExceeded if
  // its deadline has passed.
  absl::StatusOr<Entry> enter(const LoopQueue& loop, std::int64_t prompt_tokens,
                              absl::Time deadline, absl::Time now);
  // One that was let in is refused by the loop, which has not counted it.
  void turn_away(std::int64_t prompt_tokens);

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
  absl::Status check_limits(const Waiting& waiting, int free_slots, std::int64_t prompt_tokens);
  bool is_doubtful(const LoopQueue& loop, const Waiting& waiting, std::int64_t prompt_tokens,
                   const SpeedsSeen& speeds, absl::Duration left) const;

  const Limits limits_;
  mutable std::mutex mutex_;  // guards what follows
  std::uint64_t entered_requests_ = 0, entered_tokens_ = 0;
  DrainRate drain_;
  PrefillSpeed prefill_;
  Refusals refusals_;
};

}  // namespace quire
