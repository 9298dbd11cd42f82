// Makes the next plan: decodes first, then prefills, then newcomers, each in order of arrival.
//
// A draft collects grants and reserves their blocks; sequences advance only in emit(), so that what
// a row still needs does not change while the plan is made.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "coordinator/schedule/policy.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {

StepPlan Scheduler::plan() {
  QUIRE_CHECK(can_plan());
  Draft draft;
  draft.budget_tokens = config_.max_num_batched_tokens;
  draft.grants.reserve(running_.size());
  grant_running(/*decodes=*/true, &draft);
  grant_running(/*decodes=*/false, &draft);
  admit_waiting(&draft);
  return emit(std::move(draft));
}

void Scheduler::grant_running(bool decodes, Draft* draft) {
  // Preemption takes from the back of running_, behind the row that asks: the index stays good.
  for (std::size_t i = 0; i < running_.size() && draft->budget_tokens > 0; ++i) {
    Sequence* sequence = running_[i];
    if (!sequence->may_grow() || policy::is_decode(*sequence) != decodes) continue;
    if (make_room(*sequence, draft)) grant(sequence, draft);
  }
}

// Frees blocks until `needy` can compute at least one more token. False if it has to wait.
bool Scheduler::make_room(const Sequence& needy, Draft* draft) {
  while (kv_.reachable_tokens(needy.tables) <= needy.num_computed_tokens) {
    Sequence* victim = policy::pick_victim(running_, needy);
    if (victim == nullptr) return false;
    preempt(victim, draft);
  }
  return true;
}

void Scheduler::grant(Sequence* sequence, Draft* draft) {
  const int num_tokens =
      policy::grant_tokens(*sequence, draft->budget_tokens, kv_.reachable_tokens(sequence->tables));
  QUIRE_CHECK_GT(num_tokens, 0);
  Grant row{sequence, num_tokens, {}};
  QUIRE_CHECK(
      kv_.reserve(sequence->num_computed_tokens + num_tokens, &sequence->tables, &row.new_blocks));
  draft->budget_tokens -= num_tokens;
  draft->grants.push_back(std::move(row));
}

// Recompute: the victim gives up slot and blocks and waits with all its tokens. A token of it that
// is in flight is still applied when its result comes.
void Scheduler::preempt(Sequence* victim, Draft* draft) {
  // Prefills take the budget in order, so only the latest running sequence can be in the middle of
  // its prompt, and whoever asks comes before those that are granted later.
  QUIRE_CHECK(std::none_of(draft->grants.begin(), draft->grants.end(),
                           [&](const Grant& grant) { return grant.sequence == victim; }));
  leave_group(victim);
  victim->state = SequenceState::kWaiting;
  waiting_.emplace(victim->id, victim);
  draft->preempted = true;
  ++num_preemptions_;
}

// Blocks that running sequences still need for tokens they already have.
int Scheduler::promised_blocks() const {
  int promised = 0;
  for (const Sequence* sequence : running_) {
    const int needed = kv_.blocks_for(sequence->num_known_tokens());
    promised += config_.num_kv_groups * std::max(0, needed - sequence->tables.num_blocks());
  }
  return promised;
}

// The head of the queue holds back those behind it: they would take the blocks it waits for.
void Scheduler::admit_waiting(Draft* draft) {
  if (draft->preempted || waiting_.empty()) return;
  int promised = promised_blocks();
  while (!waiting_.empty() && draft->budget_tokens > 0 && !free_slots_.empty()) {
    Sequence* sequence = waiting_.begin()->second;
    if (sequence->num_rows_in_flight > 0) return;  // preempted: its last token is on its way
    const int needed = kv_.total_for(sequence->num_tokens());
    if (!policy::may_admit({.total_blocks = kv_.num_total(),
                            .free_blocks = kv_.num_free(),
                            .promised_blocks = promised,
                            .needed_blocks = needed,
                            .anyone_running = !running_.empty()})) {
      return;
    }
    admit(sequence, draft);
    grant(sequence, draft);
    promised += needed - config_.num_kv_groups * sequence->tables.num_blocks();
  }
}

void Scheduler::admit(Sequence* sequence, Draft* draft) {
  waiting_.erase(sequence->id);
  sequence->state = SequenceState::kRunning;
  sequence->slot = free_slots_.back();
  free_slots_.pop_back();
  running_.push_back(sequence);
  draft->admits.push_back({.slot = sequence->slot,
                           .tokens = sequence->tokens,
                           .num_prompt_tokens = sequence->num_prompt_tokens,
                           .sample_index = sequence->choice,
                           .params = sequence->params});
}

StepPlan Scheduler::emit(Draft draft) {
  StepPlan plan;
  if (draft.grants.empty()) return plan;
  plan.epoch = epoch_;
  plan.step = next_step_++;
  plan.releases = std::exchange(releases_, {});
  plan.admits = std::move(draft.admits);
  plan.rows.reserve(draft.grants.size());
  StepInFlight step{plan.step, {}};
  step.rows.reserve(draft.grants.size());
  for (Grant& grant : draft.grants) {
    Sequence& sequence = *grant.sequence;
    const bool samples = grant.num_tokens == sequence.num_missing_tokens();
    plan.rows.push_back({.slot = sequence.slot,
                         .first_position = sequence.num_computed_tokens,
                         .num_tokens = grant.num_tokens,
                         .samples = samples,
                         .new_blocks = std::move(grant.new_blocks)});
    step.rows.push_back({&sequence, samples});
    sequence.num_computed_tokens += grant.num_tokens;
    sequence.num_rows_in_flight += 1;
    sequence.num_sampled_in_flight += samples ? 1 : 0;
  }
  in_flight_.push_back(std::move(step));
  return plan;
}

}  // namespace quire
