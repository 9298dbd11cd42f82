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

// What was learned of steps is not held against deadlines when no prompt was computed for so long:
// those that are refused bring no news, so that a slow time must not refuse for ever.
constexpr absl::Duration kFresh = absl::Seconds(30);
constexpr absl::Duration kWasteEvery = absl::Milliseconds(100);
constexpr char kNoNumber[] =
    "The model's logits for this request are not numbers (NaN or infinite), so no token can be "
    "picked; its weights may be damaged, or this input exceeds what its arithmetic can hold.";

constexpr int kSavesPerStep = 64;  // when the cache is saved as a whole: bounds a step's length

}  // namespace

StepLoop::StepLoop(const SchedulerConfig& config, const StepDeadline& deadline, Clock clock,
                   int num_lanes)
    : clock_(std::move(clock)), lanes_(config, deadline, num_lanes) {
  counted_.num_groups = num_lanes;
  counted_.groups.resize(static_cast<std::size_t>(num_lanes));
}

void StepLoop::turn(std::vector<Message>* inbox) {
  take_all(inbox);  // a StepResult is applied here
  expire(clock_());
  distribute();
  for (int lane = 0; lane < lanes_.size(); ++lane) send_plans(lanes_.at(lane));
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

// A suspect's steps are its own, until one has brought a token.
void StepLoop::distribute() {
  std::optional<RequestId> suspect = suspects_.alone();
  while (suspect.has_value() && live_.find(*suspect) == nullptr) {  // it has ended
    suspects_.forget(*suspect);
    suspect = suspects_.alone();
  }
  for (const RequestId id : lanes_.distribute(&live_, suspects_, suspect)) {
    end_request(id, FinishReason::kError,
                "The request can grow beyond the blocks of every worker group's KV cache.");
  }
  const int alone_in = suspect.has_value() ? live_.find(*suspect)->lane : -1;
  for (int lane = 0; lane < lanes_.size(); ++lane) {
    lanes_.at(lane).scheduler().run_alone(lane == alone_in ? suspect : std::nullopt);
  }
}

void StepLoop::send_plans(Lane& lane) {
  while (lane.scheduler().can_plan()) {
    const absl::Time start = clock_();
    const StepPlan plan = lane.scheduler().plan();
    if (plan.rows.empty()) return go_on_saving(lane);
    const absl::Time now = clock_();
    update_mean(&counted_.plan_us, now - start);
    send(lane, plan, now);
  }
}

void StepLoop::send(Lane& lane, const StepPlan& plan, absl::Time now) {
  counted_.step_deadline_s = absl::ToDoubleSeconds(lane.sent(now));
  group_->send(plan);
}

// The last steps of a life: saves alone.
void StepLoop::go_on_saving(Lane& lane) {
  if (saving_ == nullptr || lane.scheduler().num_in_flight() > 0) return;
  const StepPlan plan = lane.scheduler().plan_saves(kSavesPerStep);
  if (!plan.saves.empty()) return send(lane, plan, clock_());
  std::exchange(saving_, nullptr)->set_value(lane.scheduler().stored_index());
}

void StepLoop::take(StepResult result) {
  const int at = lanes_.with_epoch(result.epoch);
  if (at < 0) {
    ++counted_.stale_replies_dropped;
    return;
  }
  Lane& lane = lanes_.at(at);
  absl::StatusOr<std::vector<Gain>> gains = lane.scheduler().apply(std::move(result));
  if (!gains.ok()) {
    return end_epoch(at, EndCause::kProtocol, std::string(gains.status().message()));
  }
  const absl::Time now = clock_();
  update_mean(&counted_.step_us, lane.answered(now));
  counted_.last_step = now;
  ++counted_.steps;
  if (lane.advanced()) events_.on_progress(lane.epoch(), lane.instance());
  if (outbox_.empty()) outbox_.reserve(gains->size());
  for (const Gain& gain : *gains) live_.prefetch(gain.request);
  for (Gain& gain : *gains) deliver(std::move(gain), FinishReason::kNone);
}

absl::Time StepLoop::wake_time() const {
  absl::Time wake = live_.first_deadline();
  for (int lane = 0; lane < lanes_.size(); ++lane) {
    wake = std::min(wake, lanes_.at(lane).wake_time());
  }
  return wake;
}

void StepLoop::expire(absl::Time now) {
  for (const RequestId id : live_.expired(now)) end_request(id, FinishReason::kDeadline, "");
  for (int at = 0; at < lanes_.size(); ++at) {
    Lane& lane = lanes_.at(at);
    if (lane.overdue(now)) {
      end_epoch(at, EndCause::kStepDeadline,
                absl::StrCat("the workers have not answered step ", lane.scheduler().oldest_step(),
                             " within ", absl::FormatDuration(lane.allowed())));
    }
    if (lane.stood(now)) events_.on_progress(lane.epoch(), lane.instance());
  }
}

void StepLoop::take(Request request) {
  LiveRequest& live = live_.insert(std::move(request));
  const Request& wish = live.request;
  ++counted_.taken_requests;
  counted_.taken_tokens += wish.prompt.size();
  if (stopping_) return end_request(wish.id, FinishReason::kCancelled, "");
  const absl::Status status = lanes_.add(&live, wish_of(&live.request));
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
  const Outlook outlook = lanes_.outlook(wish);
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
  const absl::Status status = lanes_.add(live, std::move(wish));
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
  lanes_.home(*live).stop_choice(message.request, message.choice);
  count(FinishReason::kStop);
  OutputDelta end;
  end.request = message.request;
  end.choice = message.choice;
  end.finish = FinishReason::kStop;
  outbox_.push_back({nullptr, std::move(end)});
  live_.close(live, message.choice);
}

void StepLoop::take(AwaitIdle message) {
  tell_idle_ = std::move(message.tell);
}

void StepLoop::tell_idle() {
  if (tell_idle_ == nullptr || !live_.empty()) return;
  std::exchange(tell_idle_, nullptr)();
}

void StepLoop::take(const GroupReady& ready) {
  lose_group(ready.seat, EndCause::kRankGone);
  Lane& lane = lanes_.at(ready.seat);
  count_recovered();
  for (const RequestId gone : lane.begin_group(ready, clock_())) {
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
        "index says. They are kept by an orderly stop only.");
    return;
  }
  const absl::Status status = lane.scheduler().restore_index(saved);
  if (!status.ok()) spdlog::warn("{}", std::string(status.message()));
}

void StepLoop::take(SavePrefixes message) {
  stopping_ = true;
  for (const RequestId id : live_.ids()) end_request(id, FinishReason::kCancelled, "");
  saving_ = std::move(message.index);
  Scheduler& scheduler = lanes_.at(0).scheduler();
  // Which of several groups would come back with what is not known.
  if (lanes_.size() > 1 || scheduler.epoch() == 0 || scheduler.num_host_blocks() == 0) {
    return std::exchange(saving_, nullptr)->set_value("");
  }
  scheduler.begin_saving();
}

void StepLoop::take(const GroupLost& lost) {
  if (const int lane = lanes_.with_epoch(lost.epoch); lane >= 0) lose_group(lane, lost.cause);
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
  Lane& lane = lanes_.at(live->lane);
  const std::uint64_t before = std::exchange(live->numerics, lane.numerics());
  if (before == lane.numerics() || before == 0 || lane.numerics() == 0) return;
  ++counted_.numerics_changes;
  if (!lane.first_change()) return;
  spdlog::warn(
      "epoch {} computes by another numerics id (instruction set, kernels, types) than the one "
      "before: answers that go on may differ from what they would have been",
      lane.epoch());
}

void StepLoop::end_request(RequestId id, FinishReason reason, const std::string& error,
                           const std::string& code) {
  LiveRequest* live = live_.find(id);
  if (live == nullptr) return;
  // A search has something to show at its deadline; of others everything was delivered before.
  for (Gain& gain : lanes_.home(*live).finish_early(id)) {
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
  if (outlet_) return outlet_(std::move(deliveries));
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

void StepLoop::end_epoch(int lane, EndCause cause, const std::string& why) {
  group_->end_epoch(lanes_.at(lane).epoch(), cause, why);
  lose_group(lane, cause);
}

// One path for every end of an epoch; harmless if it has ended already.
void StepLoop::lose_group(int at, EndCause cause) {
  Lane& lane = lanes_.at(at);
  if (!lane.ready()) return;
  const auto was_there = [&](RequestId id) {
    const LiveRequest* live = live_.find(id);
    return live == nullptr || live->lane == at;
  };
  const std::vector<RequestId> guilty =
      suspects_.on_death(lane.scheduler().requests_in_flight(), was_there);
  to_recover_ += static_cast<std::uint64_t>(lane.scheduler().num_running_requests());
  to_recompute_ += static_cast<std::uint64_t>(lane.scheduler().num_computed_tokens());
  lane.lose_group();
  for (const RequestId id : guilty) {
    if (live_.find(id) == nullptr) continue;
    ++counted_.requests_quarantined;
    spdlog::error("request {} is ended: three worker groups died while it was computed", id);
    end_request(id, FinishReason::kError,
                "The request was in the step in flight each time that three worker groups died, "
                "the last time alone; it is not tried again.",
                "request_quarantined");
  }
  lanes_.abandon(at, &live_);
  if (lanes_.num_ready() > 0) count_recovered();  // others take them over
  if (saving_ != nullptr) std::exchange(saving_, nullptr)->set_value("");
  ++counted_.group_losses;
  ++counted_.group_ends[static_cast<std::size_t>(cause)];
  publish();
  if (lanes_.num_ready() == 0) events_.on_lost();
}

void StepLoop::count_recovered() {
  counted_.requests_recovered += std::exchange(to_recover_, 0);
  counted_.tokens_recomputed += std::exchange(to_recompute_, 0);
}

void StepLoop::publish() {
  counted_.unfinished = live_.size();
  lanes_.publish(&counted_);
  if (const absl::Time now = clock_(); now >= waste_due_) {
    waste_due_ = now + kWasteEvery;
    counted_.kv_waste = lanes_.kv_waste();
  }
  std::lock_guard lock(stats_mutex_);
  stats_ = counted_;
}

EngineStats StepLoop::stats() const {
  std::lock_guard lock(stats_mutex_);
  return stats_;
}

}  // namespace quire
