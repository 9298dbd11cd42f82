#include "coordinator/engine/intake.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace quire {
namespace {

LoopQueue queue_of(const EngineStats& stats) {
  return {.taken_requests = stats.taken_requests,
          .taken_tokens = stats.taken_tokens,
          .waiting = stats.waiting,
          .waiting_tokens = stats.waiting_tokens,
          .free_slots = stats.free_slots,
          .full_step_us = stats.full_step_us};
}

// What the scheduler goes on from. An open choice has room for another token: the file says so or
// is not believed.
absl::StatusOr<std::vector<ChoicePast>> past_of(const SavedRequest& saved,
                                                const RequestLimits& limits) {
  const Request& request = saved.request;
  std::vector<ChoicePast> past;
  if (saved.past.size() != static_cast<std::size_t>(request.n) || saved.ended()) {
    return absl::DataLossError("its choices are not those of an unfinished request.");
  }
  for (const OutputDelta& choice : saved.past) {
    const bool ended = choice.finish != FinishReason::kNone;
    const auto length = static_cast<std::int64_t>(choice.tokens.size());
    const bool has_room =
        length < request.params.max_tokens &&
        static_cast<std::int64_t>(request.prompt.size()) + length < limits.max_model_len;
    const bool in_vocab = std::all_of(choice.tokens.begin(), choice.tokens.end(),
                                      [&](TokenId id) { return id >= 0 && id < limits.vocab; });
    if (!in_vocab || (!ended && !has_room)) {
      return absl::DataLossError("its tokens cannot be those of this model.");
    }
    past.push_back({choice.tokens, ended});
  }
  return past;
}

}  // namespace

Intake::Intake(const RequestLimits& limits, const QueueGate::Limits& queue,
               std::vector<Tenant> tenants, Clock clock)
    : limits_(limits),
      tenants_(std::move(tenants)),
      clock_(std::move(clock)),
      gate_(queue),
      tenant_limits_(std::make_shared<TenantLimits>(tenants_)) {}

void Intake::on_ready(const GroupReady& ready) {
  const std::lock_guard lock(blocks_mutex_);
  blocks_[ready.seat] = ready.num_blocks;
  int most = 0;
  for (const auto& [seat, blocks] : blocks_) most = std::max(most, blocks);
  total_blocks_.store(most);
}

void Intake::on_step(const EngineStats& loop) {
  gate_.on_step(queue_of(loop), clock_());
}

absl::StatusOr<Intake::Entered> Intake::enter(Request request, const EngineStats& loop) {
  QUIRE_CHECK(request.deliver);
  RequestLimits limits = limits_;
  limits.total_blocks = total_blocks_.load();
  QUIRE_RETURN_IF_ERROR(check_request(request, limits));
  // The prefix cache may outlive this process and its list of tenants: by name, not by number.
  if (!tenants_.empty()) {
    const std::string& name = tenants_[static_cast<std::size_t>(request.tenant)].name;
    request.cache_salt = absl::StrCat(name.size(), ":", name, ":", request.cache_salt);
  }
  request.id = next_id_.fetch_add(1);
  QUIRE_RETURN_IF_ERROR(tenant_limits_->enter(request));
  request.arrival = clock_();
  const auto prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
  QUIRE_ASSIGN_OR_RETURN(
      const QueueGate::Entry entry,
      gate_.enter(queue_of(loop), prompt_tokens, request.deadline, request.arrival));
  if (entry.at_once && request.beams.width == 0) {  // beams are delivered at their end
    request.deliver = watch_first_token(std::move(request.deliver), prompt_tokens, request.arrival);
  }
  return Entered{std::move(request), entry.is_doubtful, entry.speeds};
}

// Tells the gate when the first token comes.
DeliverFn Intake::watch_first_token(DeliverFn deliver, std::int64_t prompt_tokens,
                                    absl::Time arrival) {
  return [this, deliver = std::move(deliver), prompt_tokens, arrival,
          first = true](OutputDelta delta) mutable {
    if (std::exchange(first, false) && !delta.tokens.empty()) {
      gate_.on_first_token(prompt_tokens, arrival, clock_());
    }
    deliver(std::move(delta));
  };
}

absl::StatusOr<ResumedRequest> Intake::resume(SavedRequest saved) {
  Request& request = saved.request;
  QUIRE_CHECK(request.deliver);
  QUIRE_RETURN_IF_ERROR(check_request(request, limits_));
  QUIRE_ASSIGN_OR_RETURN(std::vector<ChoicePast> past, past_of(saved, limits_));
  tenant_limits_->count(request);
  return ResumedRequest{std::move(request), std::move(past), saved.numerics};
}

absl::Duration Intake::retry_after(const EngineStats& loop) const {
  return gate_.retry_after(queue_of(loop));
}

void Intake::add_refusals(EngineStats* stats) const {
  const QueueGate::Refusals refusals = gate_.refusals();
  stats->rejected_queued_reqs = refusals.requests;
  stats->rejected_queued_tokens = refusals.tokens;
  stats->rejected_deadline = refusals.deadline;
  stats->rejected_tenant = tenant_limits_->refusals();
}

}  // namespace quire
