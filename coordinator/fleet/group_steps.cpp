// Steps of the epoch: plans out, results and confirmations in, and the two dummy steps that prove a
// new group before the engine hears of it.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/hash.h"
#include "common/wire.h"
#include "coordinator/fleet/group.h"

namespace quire {
namespace {

constexpr int kSamplingRank = 0;
constexpr StepId kDummySteps = 2;

// Step 1 admits slot 0, runs two tokens through every layer and samples; step 2 releases it.
StepPlan dummy_plan(EpochId epoch, StepId step, int num_kv_groups) {
  StepPlan plan;
  plan.epoch = epoch;
  plan.step = step;
  plan.sampling_rank = kSamplingRank;
  if (step == kDummySteps) {
    plan.releases = {0};
    return plan;
  }
  AdmitRow& admit = plan.admits.emplace_back();
  admit.tokens = {0, 1};
  admit.num_prompt_tokens = 2;
  admit.params.temperature = 0.0f;
  admit.params.max_tokens = 1;
  PlanRow& row = plan.rows.emplace_back();
  row.num_tokens = 2;
  row.samples = true;
  row.new_blocks.assign(static_cast<std::size_t>(num_kv_groups), {BlockId{0}});
  return plan;
}

}  // namespace

void Group::plan(const StepPlan& plan, absl::Time now, GroupActions& out) {
  if (live_ && live_->ready && plan.epoch == live_->epoch) broadcast(plan, now, out);
}

void Group::broadcast(const StepPlan& plan, absl::Time now, GroupActions& out) {
  QUIRE_CHECK_EQ(plan.step, live_->sent + 1);
  QUIRE_CHECK_EQ(plan.sampling_rank, kSamplingRank);
  std::string bytes = wire::encode(plan);
  live_->digests.push_back(wire::plan_digest(live_->digests.back(), bytes));
  if (live_->sent == live_->answered) live_->oldest_unanswered = now;
  live_->sent = plan.step;
  out.push_back(action::Broadcast{links(), std::move(bytes)});
}

void Group::advance_proof(absl::Time now, GroupActions& out) {
  if (!live_ || live_->ready || live_->awaits_id) return;
  if (live_->sent == live_->answered && live_->sent < kDummySteps) {
    const int num_kv_groups = live_->instance.first().num_kv_groups;
    broadcast(dummy_plan(live_->epoch, live_->sent + 1, num_kv_groups), now, out);
    return;
  }
  if (live_->answered < kDummySteps) return;
  for (const auto& [rank, member] : live_->instance.ranks) {
    if (rank != kSamplingRank && member.confirmed < kDummySteps) return;
  }
  live_->ready = true;
  out.push_back(action::Ready{GroupReady{.epoch = live_->epoch,
                                         .num_blocks = live_->num_blocks,
                                         .world = live_->instance.world(),
                                         .next_step = kDummySteps + 1,
                                         .num_host_blocks = live_->num_host_blocks,
                                         .saved_prefixes = live_->saved_prefixes,
                                         .numerics = hash64(0, live_->instance.first().numerics_id),
                                         .one_answer = live_->instance.first().one_answer,
                                         .seat = seat_,
                                         .instance = live_->instance.id}});
}

bool Group::heartbeat(LinkId link, EpochId epoch, StepId step, std::uint64_t digest, absl::Time now,
                      GroupActions& out) {
  if (!live_ || epoch != live_->epoch) return false;
  Member& from = *member(link);
  from.last_heard = now;
  const std::string who = absl::StrCat("rank ", from.hello.rank, " on ", from.hello.host);
  if (step > live_->sent || step < from.confirmed) {
    end(EndCause::kProtocol,
        absl::StrCat(who, " reports step ", step, ", but it had confirmed ", from.confirmed,
                     " and ", live_->sent, " were sent"),
        out);
    return true;
  }
  // Steps below digests_from were confirmed by every rank, so `step` is not below it.
  if (digest != live_->digests[step - live_->digests_from]) {
    end(EndCause::kProtocol,
        absl::StrCat(who, " was given other plans than we sent, up to step ", step), out);
    return true;
  }
  if (step == from.confirmed) return true;
  from.confirmed = step;
  drop_confirmed_digests();
  advance_proof(now, out);
  return true;
}

void Group::drop_confirmed_digests() {
  StepId lowest = live_->sent;
  for (const auto& [rank, member] : live_->instance.ranks) {
    lowest = std::min(lowest, member.confirmed);
  }
  while (live_->digests_from < lowest) {
    live_->digests.pop_front();
    ++live_->digests_from;
  }
}

bool Group::result(LinkId link, StepResult result, absl::Time now, GroupActions& out) {
  if (!live_ || result.epoch != live_->epoch) return false;
  Member& from = *member(link);
  from.last_heard = now;
  if (from.hello.rank != kSamplingRank) {
    end(EndCause::kProtocol,
        absl::StrCat("rank ", from.hello.rank, " sent the result of step ", result.step,
                     ", but rank ", kSamplingRank, " samples"),
        out);
    return true;
  }
  if (result.step != live_->answered + 1 || result.step > live_->sent) {
    end(EndCause::kProtocol,
        absl::StrCat("rank ", kSamplingRank, " answered step ", result.step, " after ",
                     live_->answered, " of ", live_->sent, " sent"),
        out);
    return true;
  }
  live_->answered = result.step;
  live_->oldest_unanswered = now;
  if (live_->ready) {
    out.push_back(action::Result{std::move(result)});
    return true;
  }
  if (result.step < kDummySteps && result.rows.size() != 1) {
    end(EndCause::kProtocol,
        absl::StrCat("the first step sampled ", result.rows.size(), " rows instead of 1"), out);
    return true;
  }
  advance_proof(now, out);
  return true;
}

bool Group::worker_error(LinkId link, EpochId epoch, const std::string& message,
                         GroupActions& out) {
  if (!live_ || epoch != live_->epoch) return false;
  const RankHello& hello = member(link)->hello;
  end(EndCause::kWorkerError,
      absl::StrCat("rank ", hello.rank, " on ", hello.host, " failed: ", message), out);
  return true;
}

void Group::tick(absl::Time now, GroupActions& out) {
  if (!live_) return;
  for (const auto& [rank, member] : live_->instance.ranks) {
    if (now - member.last_heard <= rules_->lease) continue;
    return end(EndCause::kRankSilent,
               absl::StrCat("rank ", rank, " on ", member.hello.host, " was silent for ",
                            absl::FormatDuration(now - member.last_heard)),
               out);
  }
  if (live_->awaits_id && now > live_->id_due) {
    return end(EndCause::kStepDeadline,
               absl::StrCat("rank 0 on ", live_->instance.first().host,
                            " made no id for the group's collective within ",
                            absl::FormatDuration(rules_->id_deadline)),
               out);
  }
  if (now - live_->oldest_unanswered <= rules_->step_deadline) return;
  const std::string deadline = absl::FormatDuration(rules_->step_deadline);
  if (live_->sent > live_->answered) {
    end(EndCause::kStepDeadline,
        absl::StrCat("step ", live_->answered + 1, " was not answered within ", deadline), out);
  } else if (!live_->ready && !live_->awaits_id) {
    end(EndCause::kStepDeadline,
        absl::StrCat("not every rank confirmed the first steps within ", deadline), out);
  }
}

}  // namespace quire
