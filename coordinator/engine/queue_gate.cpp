// Limits, estimates and their sentences; see queue_gate.h.
#include "coordinator/engine/queue_gate.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr double kMinRetrySeconds = 1.0, kMaxRetrySeconds = 600.0;

double seconds_for(double amount, std::optional<double> rate) {
  if (!rate.has_value() || *rate <= 0.0) return 0.0;
  return amount / *rate;
}

std::string seconds_text(double seconds) {
  return absl::StrFormat("%.3f s", seconds);
}

// What may be let in beside `entered`: the loop's counts are older than ours, never newer.
std::int64_t not_taken(std::uint64_t entered, std::uint64_t taken) {
  return entered > taken ? static_cast<std::int64_t>(entered - taken) : 0;
}

}  // namespace

absl::Status check_deadline(const DeadlineNeeds& needs) {
  if (needs.queue_s + needs.prompt_s <= needs.left_s) return absl::OkStatus();
  std::vector<std::string> reasons;
  if (needs.queue_s > 0.0) {
    reasons.push_back(absl::StrCat("prompts of ", needs.tokens_before,
                                   " tokens wait before it, for ", seconds_text(needs.queue_s),
                                   " even at twice the pace of late"));
  }
  if (needs.prompt_s > 0.0) {
    reasons.push_back(absl::StrCat("the ", needs.missing_tokens,
                                   " tokens of its prompt that are not cached take ",
                                   seconds_text(needs.prompt_s), " at least"));
  }
  return absl::DeadlineExceededError(absl::StrCat(
      "The request's deadline is in ", seconds_text(needs.left_s), " and cannot be kept: ",
      absl::StrJoin(reasons, ", and "), ". Allow more time or come again later."));
}

QueueGate::Waiting QueueGate::waiting(const LoopQueue& loop) const {
  return {loop.waiting + not_taken(entered_requests_, loop.taken_requests),
          loop.waiting_tokens + not_taken(entered_tokens_, loop.taken_tokens)};
}

absl::StatusOr<QueueGate::Entry> QueueGate::enter(const LoopQueue& loop, std::int64_t prompt_tokens,
                                                  absl::Time deadline, absl::Time now) {
  const std::lock_guard lock(mutex_);
  const Waiting before = waiting(loop);
  const absl::Duration left = deadline - now;
  if (left <= absl::ZeroDuration()) {
    ++refusals_.deadline;
    return absl::DeadlineExceededError(
        absl::StrFormat("The request's deadline passed %.3f s before it could begin.",
                        -absl::ToDoubleSeconds(left)));
  }
  QUIRE_RETURN_IF_ERROR(check_limits(before, loop.free_slots, prompt_tokens));
  ++entered_requests_;
  entered_tokens_ += static_cast<std::uint64_t>(prompt_tokens);
  Entry entry{.at_once = before.requests == 0, .is_doubtful = false, .speeds = {}};
  if (deadline == absl::InfiniteFuture()) return entry;
  entry.speeds = {.queue_tokens = drain_.tokens().value_or(0.0),
                  .prompt_tokens = prefill_.of(prompt_tokens, now).value_or(0.0)};
  entry.is_doubtful = is_doubtful(loop, before, prompt_tokens, entry.speeds, left);
  return entry;
}

void QueueGate::turn_away(std::int64_t prompt_tokens) {
  const std::lock_guard lock(mutex_);
  ++refusals_.deadline;
  --entered_requests_;
  entered_tokens_ -= static_cast<std::uint64_t>(prompt_tokens);
}

// All that the loop may hold against it, none of it too low: nothing cached, everybody before it.
bool QueueGate::is_doubtful(const LoopQueue& loop, const Waiting& waiting,
                            std::int64_t prompt_tokens, const SpeedsSeen& speeds,
                            absl::Duration left) const {
  const std::int64_t steps = (prompt_tokens - 1) / limits_.max_batched_tokens + 1;
  const double model_s = static_cast<double>(steps) * loop.full_step_us / 1e6;
  const double seen_s = seconds_for(static_cast<double>(prompt_tokens), speeds.prompt_tokens);
  const double queue_s = seconds_for(static_cast<double>(waiting.tokens), speeds.queue_tokens);
  return queue_s + std::max(model_s, seen_s) > absl::ToDoubleSeconds(left);
}

absl::Status QueueGate::check_limits(const Waiting& waiting, int free_slots,
                                     std::int64_t prompt_tokens) {
  const std::int64_t begin_at_once = std::max(0, free_slots);
  if (limits_.max_requests > 0 && waiting.requests >= limits_.max_requests + begin_at_once) {
    ++refusals_.requests;
    return absl::ResourceExhaustedError(
        absl::StrCat("The queue is full: ", waiting.requests, " requests wait, and at most ",
                     limits_.max_requests, " may (--max-num-queued-reqs); try again later."));
  }
  // One that is longer than the limit may still wait alone: nothing else could ever help it.
  if (limits_.max_tokens > 0 && waiting.tokens > 0 && waiting.requests >= begin_at_once &&
      waiting.tokens + prompt_tokens > limits_.max_tokens) {
    ++refusals_.tokens;
    return absl::ResourceExhaustedError(
        absl::StrCat("The queue is full: prompts of ", waiting.tokens,
                     " tokens wait, and with the ", prompt_tokens, " of this one they exceed ",
                     limits_.max_tokens, " (--max-num-queued-tokens); try again later."));
  }
  return absl::OkStatus();
}

void QueueGate::on_step(const LoopQueue& loop, absl::Time now) {
  const std::lock_guard lock(mutex_);
  // A preempted request waits again with tokens that were taken long ago: never below zero.
  const auto left = [](std::uint64_t taken, std::int64_t waiting) {
    const auto still = static_cast<std::uint64_t>(std::max<std::int64_t>(waiting, 0));
    return taken > still ? taken - still : 0;
  };
  drain_.observe({left(loop.taken_requests, loop.waiting),
                  left(loop.taken_tokens, loop.waiting_tokens), loop.waiting},
                 now);
}

void QueueGate::on_first_token(std::int64_t prompt_tokens, absl::Time arrival, absl::Time now) {
  const std::lock_guard lock(mutex_);
  prefill_.observe(prompt_tokens, now - arrival, now);
}

absl::Duration QueueGate::retry_after(const LoopQueue& loop) const {
  const std::lock_guard lock(mutex_);
  const Waiting now = waiting(loop);
  const double half_s =
      std::max(seconds_for(static_cast<double>(now.requests) / 2, drain_.requests()),
               seconds_for(static_cast<double>(now.tokens) / 2, drain_.tokens()));
  return absl::Seconds(std::ceil(std::clamp(half_s, kMinRetrySeconds, kMaxRetrySeconds)));
}

QueueGate::Refusals QueueGate::refusals() const {
  const std::lock_guard lock(mutex_);
  return refusals_;
}

}  // namespace quire
