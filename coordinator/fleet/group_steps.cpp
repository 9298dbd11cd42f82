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

GroupActions Group::plan(const StepPlan& plan, absl::Time now) {
  GroupActions out;
  if (!live_ || !live_->ready || plan.epoch != live_->epoch) return out;
  broadcast(plan, now, out);
  return out;
}

void Group::broadcast(const StepPlan& plan, absl::Time now, GroupActions& out) {
  QUIRE_CHECK_EQ(plan.step, live_->sent + 1);
  QUIRE_CHECK_EQ(plan.sampling_rank, kSamplingRank);
  std::string bytes = wire::encode(plan);
  live_->digests.push_back(wire::plan_digest(live_->digests.back(), bytes));
  if (live_->sent == live_->answered) live_->oldest_unanswered = now;
  live_->sent = plan.step;
  out.push_back(action::Broadcast{live_links(), std::move(bytes)});
}

void Group::advance_proof(absl::Time now, GroupActions& out) {
  if (!live_ || live_->ready || live_->awaits_id) return;
  if (live_->sent == live_->answered && live_->sent < kDummySteps) {
    const int num_kv_groups = live_->instance.ranks.at(0).hello.num_kv_groups;
    broadcast(dummy_plan(live_->epoch, live_->sent + 1, num_kv_groups), now, out);
    return;
  }
  if (live_->answered < kDummySteps) return;
  for (const auto& [rank, member] : live_->instance.ranks) {
    if (rank != kSamplingRank && member.confirmed < kDummySteps) return;
  }
  live_->ready = true;
  out.push_back(action::Ready{GroupReady{
      live_->epoch, live_->num_blocks, rules_.world, kDummySteps + 1, live_->num_host_blocks,
      live_->saved_prefixes, hash64(0, live_->instance.ranks.at(0).hello.numerics_id)}});
}

GroupActions Group::heartbeat(LinkId link, EpochId epoch, StepId step, std::uint64_t digest,
                              absl::Time now) {
  GroupActions out;
  Member* member = live_member(link);
  if (member == nullptr) return out;  // a standby's, or of a stream that is closing
  if (epoch != live_->epoch) {
    ++stale_dropped_;
    return out;
  }
  member->last_heard = now;
  const std::string who = absl::StrCat("rank ", member->hello.rank, " on ", member->hello.host);
  if (step > live_->sent || step < member->confirmed) {
    end(EndCause::kProtocol,
        absl::StrCat(who, " reports step ", step, ", but it had confirmed ", member->confirmed,
                     " and ", live_->sent, " were sent"),
        now, out);
    return out;
  }
  // Steps below digests_from were confirmed by every rank, so `step` is not below it.
  if (digest != live_->digests[step - live_->digests_from]) {
    end(EndCause::kProtocol,
        absl::StrCat(who, " was given other plans than we sent, up to step ", step), now, out);
    return out;
  }
  if (step == member->confirmed) return out;
  member->confirmed = step;
  drop_confirmed_digests();
  advance_proof(now, out);
  return out;
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

GroupActions Group::result(LinkId link, StepResult result, absl::Time now) {
  GroupActions out;
  Member* member = live_member(link);
  if (member == nullptr || result.epoch != live_->epoch) {
    ++stale_dropped_;
    return out;
  }
  member->last_heard = now;
  if (member->hello.rank != kSamplingRank) {
    end(EndCause::kProtocol,
        absl::StrCat("rank ", member->hello.rank, " sent the result of step ", result.step,
                     ", but rank ", kSamplingRank, " samples"),
        now, out);
    return out;
  }
  if (result.step != live_->answered + 1 || result.step > live_->sent) {
    end(EndCause::kProtocol,
        absl::StrCat("rank ", kSamplingRank, " answered step ", result.step, " after ",
                     live_->answered, " of ", live_->sent, " sent"),
        now, out);
    return out;
  }
  live_->answered = result.step;
  live_->oldest_unanswered = now;
  if (live_->ready) {
    out.push_back(action::Result{std::move(result)});
    return out;
  }
  if (result.step < kDummySteps && result.rows.size() != 1) {
    end(EndCause::kProtocol,
        absl::StrCat("the first step sampled ", result.rows.size(), " rows instead of 1"), now,
        out);
    return out;
  }
  advance_proof(now, out);
  return out;
}

GroupActions Group::worker_error(LinkId link, EpochId epoch, const std::string& message,
                                 absl::Time now) {
  GroupActions out;
  if (const Member* member = live_member(link); member != nullptr && epoch == live_->epoch) {
    end(EndCause::kWorkerError,
        absl::StrCat("rank ", member->hello.rank, " on ", member->hello.host, " failed: ", message),
        now, out);
  }
  return out;
}

GroupActions Group::tick(absl::Time now) {
  GroupActions out;
  if (!live_) return out;
  for (const auto& [rank, member] : live_->instance.ranks) {
    if (now - member.last_heard <= rules_.lease) continue;
    end(EndCause::kRankSilent,
        absl::StrCat("rank ", rank, " on ", member.hello.host, " was silent for ",
                     absl::FormatDuration(now - member.last_heard)),
        now, out);
    return out;
  }
  if (live_->awaits_id && now > live_->id_due) {
    end(EndCause::kStepDeadline,
        absl::StrCat("rank 0 on ", live_->instance.ranks.at(0).hello.host,
                     " made no id for the group's collective within ",
                     absl::FormatDuration(rules_.id_deadline)),
        now, out);
    return out;
  }
  if (now - live_->oldest_unanswered <= rules_.step_deadline) return out;
  const std::string deadline = absl::FormatDuration(rules_.step_deadline);
  if (live_->sent > live_->answered) {
    end(EndCause::kStepDeadline,
        absl::StrCat("step ", live_->answered + 1, " was not answered within ", deadline), now,
        out);
  } else if (!live_->ready && !live_->awaits_id) {
    end(EndCause::kStepDeadline,
        absl::StrCat("not every rank confirmed the first steps within ", deadline), now, out);
  }
  return out;
}

}  // namespace quire
