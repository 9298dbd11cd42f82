#include "bench/scale/virtual_fleets.h"

#include <time.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "common/wire.h"
#include "fleet.pb.h"

namespace quire::bench {
namespace {

double cpu_s() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

VirtualFleets::VirtualFleets(const FleetsOptions& options, const Trace& trace)
    : options_(options),
      trace_(trace),
      loop_(
          options.scheduler, StepDeadline(absl::Hours(1), absl::Hours(1)),
          [this] { return absl::UnixEpoch() + absl::Seconds(now_); }, options.num_groups),
      seats_(static_cast<std::size_t>(options.num_groups)) {
  loop_.begin(this);
  for (int i = 0; i < options.num_groups; ++i) {
    seats_[static_cast<std::size_t>(i)].fleet = std::make_unique<FakeFleet>(
        options.gpu, options.scheduler.max_num_seqs, options.scheduler.block_size,
        static_cast<std::size_t>(options.num_requests));
    GroupReady ready;
    ready.epoch = static_cast<EpochId>(i + 1);
    ready.num_blocks = options.gpu.num_blocks(options.scheduler.block_size);
    ready.seat = i;
    ready.instance = absl::StrCat("group", i);
    inbox_.push_back(ready);
  }
}

void VirtualFleets::send(const StepPlan& plan) {
  plans_.push_back(plan);
}

void VirtualFleets::end_epoch(EpochId epoch, EndCause, const std::string& why) {
  failure_ = absl::StrCat("epoch ", epoch, " was ended: ", why);
}

void VirtualFleets::refill() {
  const int most =
      static_cast<int>(options_.oversupply * options_.scheduler.max_num_seqs) * options_.num_groups;
  while (num_submitted_ < options_.num_requests && num_submitted_ - seen_.finished < most) {
    const int index = num_submitted_++;
    const std::size_t call = static_cast<std::size_t>(index) % trace_.calls.size();
    Request request;
    request.id = static_cast<RequestId>(num_submitted_);
    request.prompt = trace_.prompt(call);
    request.params.max_tokens = trace_.calls[call].output_tokens;
    request.params.ignore_eos = true;
    request.params.seed = static_cast<std::uint64_t>(index);  // by which FakeFleet knows it
    request.arrival = absl::UnixEpoch() + absl::Seconds(now_);
    request.deliver = [this](const OutputDelta& delta) {
      seen_.tokens += static_cast<std::int64_t>(delta.tokens.size());
      if (delta.finish == FinishReason::kNone) return;
      ++seen_.finished;
      if (delta.finish != FinishReason::kLength) failure_ = absl::StrCat("ended: ", delta.error);
    };
    inbox_.push_back(std::move(request));
  }
}

// The loop takes what has come, and its time passes. What workers would do with the plans is free.
void VirtualFleets::turn() {
  std::vector<std::string> wired;
  const double start = cpu_s();
  loop_.turn(&inbox_);
  for (const StepPlan& plan : plans_) wired.push_back(wire::encode(plan));
  const double took = cpu_s() - start;
  inbox_.clear();
  now_ += took;
  seen_.loop_s += took;
  ++seen_.turns;
  for (const StepPlan& plan : plans_) {
    Seat& seat = seats_[static_cast<std::size_t>(plan.epoch - 1)];
    StepResult result;
    const double seconds = seat.fleet->run(plan, &result);
    const double begins = std::max(now_ + options_.gpu.message_s, seat.free_at);
    if (plan.step > 1) seen_.idle_s += begins - seat.free_at;
    seat.free_at = begins + seconds;
    v1::StepResult message;
    wire::encode(result, &message);
    events_.push(
        {seat.free_at + options_.gpu.message_s, ++num_events_, message.SerializeAsString()});
  }
  plans_.clear();
}

absl::StatusOr<FleetsSeen> VirtualFleets::run() {
  while (seen_.finished < options_.num_requests) {
    refill();
    turn();
    if (!failure_.empty()) return absl::InternalError(failure_);
    if (events_.empty()) {
      if (seen_.finished == options_.num_requests) break;
      return absl::InternalError(
          absl::StrCat("the loop stands still after ", seen_.finished, " requests"));
    }
    now_ = std::max(now_, events_.top().at);
    const double start = cpu_s();
    while (!events_.empty() && events_.top().at <= now_) {
      v1::StepResult message;
      QUIRE_CHECK(message.ParseFromString(events_.top().bytes));
      events_.pop();
      QUIRE_ASSIGN_OR_RETURN(StepResult result, wire::decode(message));
      ++seen_.steps;
      inbox_.push_back(std::move(result));
    }
    const double took = cpu_s() - start;
    seen_.loop_s += took;
    now_ += took;
  }
  seen_.virtual_s = now_;
  return seen_;
}

}  // namespace quire::bench
