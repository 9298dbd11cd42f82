// The step loop and what each message does to it.
#include "coordinator/engine/step_loop.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"

namespace quire {
namespace {

// Exponential mean over about the last twenty steps.
void update_mean(double* mean, absl::Duration sample) {
  const double us = absl::ToDoubleMicroseconds(sample);
  *mean = *mean == 0 ? us : *mean + 0.05 * (us - *mean);
}

NewRequest wish_of(Request* request) {
  return {.id = request->id,
          .prompt = std::exchange(request->prompt, {}),
          .params = request->params,
          .n = request->n,
          .beams = request->beams,
          .tenant = request->tenant,
          .priority = request->priority,
          .cache_salt = request->cache_salt,
          .arrival = request->arrival,
          .deadline = request->deadline};
}

// What was learned of steps is not held against deadlines when no prompt was computed for so long:
// those that are refused bring no news, so that a slow time must not refuse for ever.
constexpr absl::Duration kFresh = absl::Seconds(30);
constexpr absl::Duration kWasteEvery = absl::Milliseconds(100);
constexpr absl::Duration kStood = absl::Minutes(1);  // ready, with nothing to do: a good life
constexpr char kNoNumber[] =
    "The model's logits for this request are not numbers (NaN or infinite), so no token can be "
    "picked; its weights may be damaged, or this input exceeds what its arithmetic can hold.";

// A deadline counts only if this thread was there when it passed: after a pause of the whole
// process the answer may lie in a socket.
constexpr absl::Duration kLate = absl::Milliseconds(100);
constexpr absl::Duration kLateGrace = absl::Milliseconds(500);
constexpr int kSavesPerStep = 64;  // when the cache is saved as a whole: bounds a step's length

}  // namespace

StepLoop::StepLoop(SchedulerConfig config, StepDeadline deadline, Clock clock)
    : deadline_(deadline), clock_(std::move(clock)), scheduler_(std::move(config)) {}

void StepLoop::turn(std::vector<Message>* inbox) {
  take_all(inbox);  // a StepResult is applied here
  expire(clock_());
  send_plans();
  publish();  // who is given a token finds it in the numbers
  release();
  tell_idle();
  assert(verify().ok());
}

void StepLoop::end(std::vector<Message>* inbox) {
  take_all(inbox);
  stopping_ = true;
  for (const RequestId id : live_.ids()) end_request(id, FinishReason::kCancelled, "");
  release();
  publish();
}

void StepLoop::take_all(std::vector<Message>* inbox) {
  for (Message& message : *inbox) {
    std::visit([this](auto& each) { take(std::move(each)); }, message);
  }
}

void StepLoop::send_plans() {
  isolate_suspect();
  while (scheduler_.can_plan()) {
    const absl::Time start = clock_();
    const StepPlan plan = scheduler_.plan();
    if (plan.rows.empty()) return go_on_saving();
    const absl::Time now = clock_();
    update_mean(&counted_.plan_us, now - start);
    send(plan, now);
  }
}

void StepLoop::send(const StepPlan& plan, absl::Time now) {
  Sent sent{.time = now, .forecast = {}, .allowed = {}};
  sent.forecast.us = scheduler_.newest_step_us(&sent.forecast.sure);
  sent.allowed = deadline_.of(sent.forecast);
  counted_.step_deadline_s = absl::ToDoubleSeconds(sent.allowed);
  if (sent_.empty()) answer_due_ = now + sent.allowed;
  sent_.push_back(sent);
  group_->send(plan);
}

// A suspect's steps are its own, until one has brought a token.
void StepLoop::isolate_suspect() {
  std::optional<RequestId> suspect = suspects_.alone();
  while (suspect.has_value() && live_.find(*suspect) == nullptr) {  // it has ended
    suspects_.forget(*suspect);
    suspect = suspects_.alone();
  }
  scheduler_.run_alone(suspect);
}

// The last steps of a life: saves alone.
void StepLoop::go_on_saving() {
  if (saving_ == nullptr || scheduler_.num_in_flight() > 0) return;
  const StepPlan plan = scheduler_.plan_saves(kSavesPerStep);
  if (!plan.saves.empty()) return send(plan, clock_());
  std::exchange(saving_, nullptr)->set_value(scheduler_.stored_index());
}

void StepLoop::take(StepResult result) {
  if (scheduler_.epoch() == 0 || result.epoch != scheduler_.epoch()) {
    ++counted_.stale_replies_dropped;
    return;
  }
  absl::StatusOr<std::vector<Gain>> gains = scheduler_.apply(std::move(result));
  if (!gains.ok()) {
    return end_epoch(EndCause::kProtocol, std::string(gains.status().message()));
  }
  const absl::Time now = clock_();
  const Sent& sent = sent_.front();
  update_mean(&counted_.step_us, now - sent.time);
  deadline_.observe(sent.forecast, now - std::max(sent.time, last_answer_));
  sent_.pop_front();
  answer_due_ = sent_.empty() ? absl::InfiniteFuture() : now + sent_.front().allowed;
  counted_.last_step = last_answer_ = now;
  ++counted_.steps;
  tell_progress();
  for (Gain& gain : *gains) deliver(std::move(gain), FinishReason::kNone);
}

absl::Time StepLoop::wake_time() const {
  return std::min({live_.first_deadline(), answer_due_, stood_due_});
}

void StepLoop::expire(absl::Time now) {
  for (const RequestId id : live_.expired(now)) end_request(id, FinishReason::kDeadline, "");
  if (now >= answer_due_ + kLate) {
    answer_due_ = now + kLateGrace;
  } else if (now >= answer_due_) {
    end_epoch(EndCause::kStepDeadline,
              absl::StrCat("the workers have not answered step ", scheduler_.oldest_step(),
                           " within ", absl::FormatDuration(sent_.front().allowed)));
  }
  if (now < stood_due_) return;
  if (live_.empty()) tell_progress();
  stood_due_ = absl::InfiniteFuture();
}

void StepLoop::take(Request request) {
  LiveRequest& live = live_.insert(std::move(request));
  const Request& wish = live.request;
  ++counted_.taken_requests;
  counted_.taken_tokens += wish.prompt.size();
  if (stopping_) return end_request(wish.id, FinishReason::kCancelled, "");
  const absl::Status status = scheduler_.add(wish_of(&live.request));
  if (!status.ok()) end_request(wish.id, FinishReason::kError, std::string(status.message()));
}

// Refused, it leaves no trace here.
void StepLoop::take(DoubtfulRequest message) {
  absl::Status verdict = check_deadline(needs_of(&message.request, message.speeds));
  if (stopping_) verdict = absl::OkStatus();
  const bool refused = !verdict.ok();
  if (message.verdict->give(std::move(verdict)) && refused) return;
  take(std::move(message.request));
}

DeadlineNeeds StepLoop::needs_of(Request* request, const SpeedsSeen& speeds) {
  NewRequest wish = wish_of(request);
  const Outlook outlook = scheduler_.outlook(wish);
  request->prompt = std::move(wish.prompt);
  const absl::Time now = clock_();
  DeadlineNeeds needs{.left_s = absl::ToDoubleSeconds(request->deadline - now),
                      .tokens_before = outlook.tokens_before,
                      .queue_s = 0,
                      .missing_tokens = outlook.missing_tokens,
                      .prompt_s = 0};
  if (speeds.queue_tokens > 0) {
    needs.queue_s = static_cast<double>(outlook.tokens_before) / speeds.queue_tokens / 2;
  }
  if (speeds.prompt_tokens > 0) needs.prompt_s = outlook.missing_tokens / speeds.prompt_tokens;
  // What steps cost says more, where it is sure.
  if (outlook.prompt_s > 0 && now - prompt_seen_ < kFresh) needs.prompt_s = outlook.prompt_s;
  return needs;
}

void StepLoop::take(ResumedRequest message) {
  LiveRequest* live = &live_.insert(std::move(message.request));
  const RequestId id = live->request.id;
  const bool is_beam = live->request.beams.width > 0;
  NewRequest wish = wish_of(&live->request);
  for (std::size_t i = 0; i < message.past.size(); ++i) {
    live->answered = live->answered || !message.past[i].tokens.empty();
  }
  if (live->answered) live->numerics = message.numerics;
  if (!is_beam) wish.past = message.past;  // a search begins anew
  const absl::Status status = scheduler_.add(std::move(wish));
  if (!status.ok()) end_request(id, FinishReason::kError, std::string(status.message()));
  for (std::size_t i = 0; i < message.past.size(); ++i) {
    live = live_.find(id);
    const int choice = static_cast<int>(i);
    if (message.past[i].ended && live != nullptr && live->is_open(choice)) {
      live_.close(live, choice);
    }
  }
}

void StepLoop::take(const CancelRequest& message) {
  end_request(message.request, FinishReason::kCancelled, "");
}

void StepLoop::take(const StopChoice& message) {
  LiveRequest* live = live_.find(message.request);
  if (live == nullptr || !live->is_open(message.choice)) return;
  scheduler_.stop_choice(message.request, message.choice);
  count(FinishReason::kStop);
  OutputDelta end;
  end.request = message.request;
  end.choice = message.choice;
  end.finish = FinishReason::kStop;
  outbox_.push_back({nullptr, std::move(end)});
  live_.close(live, message.choice);
}

// The first step of the engine's, or what counts as one.
void StepLoop::tell_progress() {
  if (std::exchange(advanced_, true)) return;
  stood_due_ = absl::InfiniteFuture();
  events_.on_progress(scheduler_.epoch());
}

void StepLoop::take(AwaitIdle message) {
  tell_idle_ = std::move(message.tell);
}

void StepLoop::tell_idle() {
  if (tell_idle_ == nullptr || !live_.empty()) return;
  std::exchange(tell_idle_, nullptr)();
}

void StepLoop::take(const GroupReady& ready) {
  lose_group(EndCause::kRankGone);
  deadline_.begin_group();
  counted_.requests_recovered += std::exchange(to_recover_, 0);
  counted_.tokens_recomputed += std::exchange(to_recompute_, 0);
  stood_due_ = clock_() + kStood;
  advanced_ = false;
  numerics_ = ready.numerics;
  numerics_changed_ = false;
  for (const RequestId gone : scheduler_.start_group(ready.epoch, ready.num_blocks, ready.next_step,
                                                     ready.num_host_blocks)) {
    end_request(gone, FinishReason::kError,
                absl::StrCat("The request can grow beyond the ", ready.num_blocks,
                             " blocks that the new worker group's KV cache has."));
  }
  publish();  // who hears of it finds it true
  events_.on_ready();
  const std::string saved = std::exchange(saved_prefixes_, {});
  if (saved.empty()) return;
  if (ready.saved_prefixes == 0) {
    spdlog::warn(
        "The prefix cache of the last run is not used: the offload stores do not hold what its "
        "index "
        "says. They are kept by an orderly stop only.");
    return;
  }
  const absl::Status status = scheduler_.restore_index(saved);
  if (!status.ok()) spdlog::warn("{}", std::string(status.message()));
}

void StepLoop::take(SavePrefixes message) {
  stopping_ = true;
  for (const RequestId id : live_.ids()) end_request(id, FinishReason::kCancelled, "");
  saving_ = std::move(message.index);
  if (scheduler_.epoch() == 0 || scheduler_.num_host_blocks() == 0) {
    return std::exchange(saving_, nullptr)->set_value("");
  }
  scheduler_.begin_saving();
}

void StepLoop::take(const GroupLost& lost) {
  if (lost.epoch == scheduler_.epoch()) lose_group(lost.cause);
}

// `ends`: why, where the scheduler does not say.
void StepLoop::deliver(Gain gain, FinishReason ends) {
  LiveRequest* live = live_.find(gain.request);
  if (live == nullptr || !live->is_open(gain.choice)) return;
  counted_.generation_tokens += gain.tokens.size();
  if (!suspects_.empty() && !gain.tokens.empty()) suspects_.on_gain(gain.request);
  if (!gain.tokens.empty()) note_numerics(live);
  if (!live->answered && !gain.tokens.empty()) {
    live->answered = true;
    counted_.prompt_tokens += static_cast<std::uint64_t>(live->num_prompt_tokens);
    prompt_seen_ = clock_();
  }
  OutputDelta delta;
  delta.request = gain.request;
  delta.choice = gain.choice;
  delta.num_cached_tokens = gain.num_cached_tokens;
  delta.tokens.assign(gain.tokens.begin(), gain.tokens.end());
  delta.logprobs = std::move(gain.logprobs);
  delta.finish = ends;
  if (gain.end == EndReason::kStop) {
    delta.finish = FinishReason::kStop;
    delta.stop_token = delta.tokens.back();
  } else if (gain.end == EndReason::kLength) {
    delta.finish = FinishReason::kLength;
  } else if (gain.end == EndReason::kNoNumber) {
    delta.finish = FinishReason::kError;
    delta.error = kNoNumber;
    delta.error_code = "numerical_error";
  }
  const FinishReason finish = delta.finish;
  outbox_.push_back({live->deliver, std::move(delta)});
  if (finish == FinishReason::kNone) return;
  count(finish);
  live_.close(live, gain.choice);
}

// Tokens of one answer should come by one way of computing.
void StepLoop::note_numerics(LiveRequest* live) {
  const std::uint64_t before = std::exchange(live->numerics, numerics_);
  if (before == numerics_ || before == 0 || numerics_ == 0) return;
  ++counted_.numerics_changes;
  if (std::exchange(numerics_changed_, true)) return;
  spdlog::warn(
      "epoch {} computes by another numerics id (instruction set, kernels, types) than the one "
      "before: "
      "answers that go on may differ from what they would have been",
      scheduler_.epoch());
}

void StepLoop::end_request(RequestId id, FinishReason reason, const std::string& error,
                           const std::string& code) {
  LiveRequest* live = live_.find(id);
  if (live == nullptr) return;
  // A search has something to show at its deadline; of others everything was delivered before.
  for (Gain& gain : scheduler_.finish_early(id)) {
    if (reason == FinishReason::kDeadline) deliver(std::move(gain), reason);
  }
  live = live_.find(id);
  if (live == nullptr) return;
  std::vector<int> open;
  for (int choice = 0; choice < live->request.n; ++choice) {
    if (live->is_open(choice)) open.push_back(choice);
  }
  for (const int choice : open) end_choice(live, choice, reason, error, code);
}

void StepLoop::end_choice(LiveRequest* live, int choice, FinishReason reason,
                          const std::string& error, const std::string& code) {
  OutputDelta delta;
  delta.request = live->request.id;
  delta.choice = choice;
  delta.finish = reason;
  delta.error = error;
  delta.error_code = code;
  const bool goes_on = stopping_ && reason == FinishReason::kCancelled;
  outbox_.push_back({live->deliver, std::move(delta), !goes_on});
  count(reason);
  live_.close(live, choice);
}

void StepLoop::release() {
  if (outbox_.empty()) return;
  std::vector<Delivery> deliveries = std::exchange(outbox_, {});
  if (journal_ != nullptr) return journal_->release(std::move(deliveries));
  for (Delivery& delivery : deliveries) {
    if (delivery.to != nullptr) (*delivery.to)(std::move(delivery.delta));
  }
}

void StepLoop::count(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return;
    case FinishReason::kStop:
      ++counted_.finished_stop;
      return;
    case FinishReason::kLength:
      ++counted_.finished_length;
      return;
    case FinishReason::kCancelled:
    case FinishReason::kDeadline:
      ++counted_.finished_abort;
      return;
    case FinishReason::kError:
      ++counted_.finished_error;
      return;
  }
}

void StepLoop::end_epoch(EndCause cause, const std::string& why) {
  group_->end_epoch(scheduler_.epoch(), cause, why);
  lose_group(cause);
}

// One path for every end of an epoch; harmless if it has ended already.
void StepLoop::lose_group(EndCause cause) {
  if (scheduler_.epoch() == 0) return;
  const std::vector<RequestId> guilty = suspects_.on_death(scheduler_.requests_in_flight());
  to_recover_ += static_cast<std::uint64_t>(scheduler_.num_running_requests());
  to_recompute_ += static_cast<std::uint64_t>(scheduler_.num_computed_tokens());
  scheduler_.lose_group();
  for (const RequestId id : guilty) {
    if (live_.find(id) == nullptr) continue;
    ++counted_.requests_quarantined;
    spdlog::error("request {} is ended: three worker groups died while it was computed", id);
    end_request(id, FinishReason::kError,
                "The request was in the step in flight each time that three worker groups died, "
                "the last time alone; it is not tried again.",
                "request_quarantined");
  }
  if (saving_ != nullptr) std::exchange(saving_, nullptr)->set_value("");
  sent_.clear();
  answer_due_ = stood_due_ = absl::InfiniteFuture();
  ++counted_.group_losses;
  ++counted_.group_ends[static_cast<std::size_t>(cause)];
  publish();
  events_.on_lost();
}

void StepLoop::publish() {
  counted_.ready = scheduler_.epoch() != 0;
  counted_.epoch = scheduler_.epoch();
  counted_.answer_due = answer_due_;
  counted_.unfinished = live_.size();
  counted_.running = scheduler_.num_running();
  counted_.waiting = scheduler_.num_waiting();
  counted_.waiting_tokens = scheduler_.num_waiting_tokens();
  counted_.total_blocks = scheduler_.num_blocks();
  counted_.used_blocks = scheduler_.num_used_blocks();
  counted_.cached_blocks = scheduler_.num_cached_blocks();
  counted_.full_step_us = scheduler_.full_step_us();
  if (const absl::Time now = clock_(); now >= waste_due_) {
    waste_due_ = now + kWasteEvery;
    const KvUse use = scheduler_.kv_use();
    const auto allocated = static_cast<double>(std::max<std::int64_t>(1, use.allocated));
    counted_.kv_waste = static_cast<double>(use.allocated - use.filled) / allocated;
  }
  const SchedulerCounts& counts = scheduler_.counts();
  counted_.preemptions = counts.preemptions;
  counted_.prefix_queries = counts.prefix_queries;
  counted_.prefix_hits = counts.prefix_hits;
  counted_.offload_saved_blocks = counts.saved_blocks;
  counted_.offload_loaded_blocks = counts.loaded_blocks;
  counted_.drafts = counts.drafts;
  counted_.draft_tokens = counts.draft_tokens;
  counted_.accepted_draft_tokens = counts.accepted_draft_tokens;
  std::lock_guard lock(stats_mutex_);
  stats_ = counted_;
}

EngineStats StepLoop::stats() const {
  std::lock_guard lock(stats_mutex_);
  return stats_;
}

}  // namespace quire
