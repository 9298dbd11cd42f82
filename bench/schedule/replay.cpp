#include "bench/schedule/replay.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace quire::bench {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

double wall_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Replay::Replay(const ReplayOptions& options, const Trace& trace)
    : options_(options),
      trace_(trace),
      scheduler_(options.scheduler),
      fleet_(options.gpu, options.scheduler.max_num_seqs, options.scheduler.block_size,
             trace.calls.size()),
      requests_(trace.calls.size()),
      unadmitted_(static_cast<std::size_t>(options.tenants)),
      share_(static_cast<std::size_t>(options.tenants)) {
  const int blocks = options.num_blocks > 0 ? options.num_blocks
                                            : options.gpu.num_blocks(options.scheduler.block_size);
  scheduler_.start_group(1, blocks, 1, options.num_host_blocks);
}

absl::Status Replay::run() {
  const double start = wall_s();
  for (;;) {
    QUIRE_RETURN_IF_ERROR(add_arrivals());
    QUIRE_RETURN_IF_ERROR(plan_steps());
    const double arrival =
        next_arrival_ < trace_.calls.size() ? trace_.calls[next_arrival_].at_s : kNever;
    const double done = in_flight_.empty() ? kNever : in_flight_.front().done_s;
    if (arrival == kNever && done == kNever) break;
    // While nothing more can be planned, an arrival changes nothing: it is added with the result.
    if (done <= arrival || !scheduler_.can_plan()) {
      now_s_ = done;
      QUIRE_RETURN_IF_ERROR(apply_oldest());
      continue;
    }
    if (in_flight_.empty() && scheduler_.num_waiting() > 0) idle_with_work_s_ += arrival - now_s_;
    now_s_ = arrival;
  }
  run_wall_s_ = wall_s() - start;
  settle_shares(false);
  if (scheduler_.num_waiting() == 0 && scheduler_.num_running() == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("The scheduler stands still at ", now_s_, " s with ",
                                          scheduler_.num_running(), " sequences running and ",
                                          scheduler_.num_waiting(), " requests waiting."));
}

int Replay::tenant_of(std::size_t request) const {
  if (options_.tenants == 1) return 0;
  const double others = options_.tenants - 1;
  const double drawn = static_cast<double>(mix(99, request) % 1000000) / 1e6;
  const double first = options_.skew / (options_.skew + others);
  if (drawn < first) return 0;
  const int other = static_cast<int>((drawn - first) / (1 - first) * others);
  return 1 + std::min(other, options_.tenants - 2);
}

absl::Status Replay::add_arrivals() {
  while (next_arrival_ < trace_.calls.size() && trace_.calls[next_arrival_].at_s <= now_s_) {
    const std::size_t index = next_arrival_++;
    const Call& call = trace_.calls[index];
    NewRequest wish;
    wish.id = index;
    wish.prompt = trace_.prompt(index);
    wish.params.max_tokens = call.output_tokens;
    wish.params.ignore_eos = true;
    wish.params.seed = index;
    wish.n = options_.n;
    wish.tenant = tenant_of(index);
    wish.arrival = absl::UnixEpoch() + absl::Seconds(call.at_s);
    if (options_.beam_width > 0) {
      wish.beams.width = options_.beam_width;
      wish.params.beam_width = options_.beam_width;
      wish.params.logprobs = 2 * options_.beam_width;
    }
    const int tenant = wish.tenant;
    requests_[index].arrival_s = call.at_s;
    const double start = wall_s();
    const absl::Status added = scheduler_.add(std::move(wish));
    add_wall_s_ += wall_s() - start;
    if (absl::IsResourceExhausted(added)) {
      refused_ += 1;
      continue;
    }
    QUIRE_RETURN_IF_ERROR(added);
    requests_[index].open_choices = options_.n;
    ++unadmitted_[static_cast<std::size_t>(tenant)];
  }
  if (options_.tenants > 1) {
    settle_shares(
        std::none_of(unadmitted_.begin(), unadmitted_.end(), [](int count) { return count == 0; }));
  }
  max_waiting_ = std::max(max_waiting_, scheduler_.num_waiting());
  return absl::OkStatus();
}

absl::Status Replay::plan_steps() {
  while (scheduler_.can_plan()) {
    const double start = wall_s();
    const StepPlan plan = scheduler_.plan();
    plan_wall_.add(wall_s() - start);
    if (plan.rows.empty() && plan.saves.empty()) return absl::OkStatus();
    InFlight& step = in_flight_.emplace_back();
    const double seconds = fleet_.run(plan, &step.result);
    const double begin_s = std::max(now_s_ + options_.gpu.message_s, gpu_free_s_);
    gpu_free_s_ = begin_s + seconds;
    step.done_s = gpu_free_s_ + options_.gpu.message_s;
    busy_s_ += seconds;
    ++steps_;
    rows_ += static_cast<std::int64_t>(plan.rows.size());
    max_running_ = std::max(max_running_, scheduler_.num_running());
    sample_memory(seconds);
    note_admitted();
    if (options_.verify_every > 0 && steps_ % options_.verify_every == 0) {
      QUIRE_RETURN_IF_ERROR(scheduler_.verify());
    }
  }
  return absl::OkStatus();
}

absl::Status Replay::apply_oldest() {
  const double start = wall_s();
  absl::StatusOr<std::vector<Gain>> gains = scheduler_.apply(std::move(in_flight_.front().result));
  apply_wall_.add(wall_s() - start);
  in_flight_.pop_front();
  QUIRE_RETURN_IF_ERROR(gains.status());
  for (const Gain& gain : *gains) take(gain);
  return absl::OkStatus();
}

void Replay::take(const Gain& gain) {
  RequestTimes& times = requests_[gain.request];
  output_tokens_ += static_cast<double>(gain.tokens.size());
  if (!gain.tokens.empty() && times.first_s < 0) times.first_s = now_s_;
  if (gain.choice == 0 && !gain.tokens.empty()) {
    if (times.newest_s >= 0) {
      gaps_.add(now_s_ - times.newest_s);
      if (trace_.watched >= 0) watch_gap(now_s_ - times.newest_s);
    }
    times.newest_s = now_s_;
    times.tokens += static_cast<int>(gain.tokens.size());
  }
  if (gain.end == EndReason::kNone) return;
  times.last_s = now_s_;
  --times.open_choices;
}

// Gaps of the others between the watched request's arrival and its first token, and all the rest.
void Replay::watch_gap(double gap_s) {
  const RequestTimes& watched = requests_[static_cast<std::size_t>(trace_.watched)];
  const bool present = watched.open_choices > 0 && watched.first_s < 0;
  (present ? watched_gaps_ : other_gaps_).add(gap_s);
}

void Replay::sample_memory(double seconds) {
  constexpr int kEvery = 7;  // no divisor of a block, so that growing in step is not seen as luck
  if (steps_ % kEvery != 0) return;
  const KvUse kv = scheduler_.kv_use();
  const CopiesUse copies = fleet_.use();
  memory_.push_back({.seconds = kEvery * seconds,
                     .allocated = static_cast<double>(kv.allocated),
                     .filled = static_cast<double>(kv.filled),
                     .copies = copies.copies,
                     .limit = copies.limit});
}

void Replay::note_admitted() {
  for (const RequestId request : fleet_.first_admitted()) {
    --unadmitted_[static_cast<std::size_t>(tenant_of(request))];
  }
}

// Shares count only while every tenant has requests that wait.
void Replay::settle_shares(bool contended) {
  if (contended == contended_) return;
  contended_ = contended;
  const absl::Span<const double> seen = scheduler_.service();
  const std::vector<double> service(seen.begin(), seen.end());
  if (contended) {
    contended_since_ = now_s_;
    before_ = service;
    return;
  }
  contended_s_ += now_s_ - contended_since_;
  for (std::size_t t = 0; t < share_.size(); ++t) share_[t] += service[t] - before_[t];
}

}  // namespace quire::bench
