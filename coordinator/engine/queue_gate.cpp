// Limits, estimates and their sentences; see queue_gate.h.
#include "coordinator/engine/queue_gate.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr double kMinRetrySeconds = 1.0, kMaxRetrySeconds = 600.0;

double seconds_for(double amount, std::optional<double> rate) {
  if (!rate.has_value() || *rate <= 0.0) return 0.0;
  return amount / *rate;
}

// What may be let in beside `entered`: the loop's counts are older than ours, never newer.
std::int64_t not_taken(std::uint64_t entered, std::uint64_t taken) {
  return entered > taken ? static_cast<std::int64_t>(entered - taken) : 0;
}

}  // namespace

QueueGate::Waiting QueueGate::waiting(const LoopQueue& loop) const {
  return {loop.waiting + not_taken(entered_requests_, loop.taken_requests),
          loop.waiting_tokens + not_taken(entered_tokens_, loop.taken_tokens)};
}

absl::Status QueueGate::enter(const LoopQueue& loop, std::int64_t prompt_tokens,
                              absl::Time deadline, absl::Time now, bool* at_once) {
  const std::lock_guard lock(mutex_);
  const Waiting before = waiting(loop);
  QUIRE_RETURN_IF_ERROR(check_deadline(before, prompt_tokens, deadline, now));
  QUIRE_RETURN_IF_ERROR(check_limits(before, loop.running, prompt_tokens));
  *at_once = before.requests == 0;
  ++entered_requests_;
  entered_tokens_ += static_cast<std::uint64_t>(prompt_tokens);
  return absl::OkStatus();
}

absl::Status QueueGate::check_limits(const Waiting& waiting, int running,
                                     std::int64_t prompt_tokens) {
  const std::int64_t begin_at_once = std::max(0, limits_.max_running - running);
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

absl::Status QueueGate::check_deadline(const Waiting& waiting, std::int64_t prompt_tokens,
                                       absl::Time deadline, absl::Time now) {
  const absl::Duration left = deadline - now;
  if (left == absl::InfiniteDuration()) return absl::OkStatus();
  const double left_s = absl::ToDoubleSeconds(left);
  if (left_s <= 0.0) {
    ++refusals_.deadline;
    return absl::DeadlineExceededError(
        absl::StrFormat("The request's deadline passed %.3f s before it could begin.", -left_s));
  }
  const double queue_s = left >= limits_.behind_all_from
                             ? seconds_for(static_cast<double>(waiting.tokens), drain_.tokens()) / 2
                             : 0.0;
  const double prompt_s =
      seconds_for(static_cast<double>(prompt_tokens), prefill_.of(prompt_tokens, now));
  if (queue_s + prompt_s <= left_s) return absl::OkStatus();
  ++refusals_.deadline;
  return absl::DeadlineExceededError(absl::StrFormat(
      "The request's deadline is in %.3f s and cannot be kept: the prompts that wait before it (%d "
      "tokens) need %.3f s even at twice the pace of late, its own %d tokens %.3f s. Allow more "
      "time or come again later.",
      left_s, waiting.tokens, queue_s, prompt_tokens, prompt_s));
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
