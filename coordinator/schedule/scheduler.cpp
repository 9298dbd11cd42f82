// The life of sequences in the scheduler: arrival, end, and the coming and going of worker groups.
#include "coordinator/schedule/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/schedule/policy.h"

namespace quire {
namespace {

bool arrived_before(const Sequence* a, SequenceId id) {
  return a->id < id;
}

std::vector<SlotId> all_slots(int count) {
  std::vector<SlotId> slots(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) slots[static_cast<std::size_t>(i)] = count - 1 - i;
  return slots;
}

}  // namespace

Scheduler::Scheduler(SchedulerConfig config)
    : config_(std::move(config)), kv_(config_.num_kv_groups, config_.block_size) {
  QUIRE_CHECK_GT(config_.max_num_seqs, 0);
  QUIRE_CHECK_GT(config_.max_num_batched_tokens, 0);
  QUIRE_CHECK_GT(config_.steps_in_flight, 0);
}

absl::StatusOr<SequenceId> Scheduler::add(NewSequence wish) {
  QUIRE_CHECK(!wish.prompt.empty());
  auto sequence = std::make_unique<Sequence>();
  sequence->request = wish.request;
  sequence->choice = wish.choice;
  sequence->tokens = std::move(wish.prompt);
  sequence->num_prompt_tokens = sequence->num_tokens();
  sequence->params = std::move(wish.params);
  QUIRE_CHECK_GE(sequence->params.max_tokens, 1);
  QUIRE_CHECK_LT(sequence->num_prompt_tokens, config_.max_model_len);
  sequence->max_total_tokens =
      sequence->num_prompt_tokens +
      std::min(sequence->params.max_tokens, config_.max_model_len - sequence->num_prompt_tokens);
  if (epoch_ != 0 && !fits(*sequence)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "The request can grow to ", sequence->max_total_tokens, " tokens, but the KV cache holds ",
        kv_.num_total() / config_.num_kv_groups * config_.block_size, "."));
  }
  sequence->id = next_id_++;
  const SequenceId id = sequence->id;
  waiting_.emplace(id, sequence.get());
  sequences_.emplace(id, std::move(sequence));
  return id;
}

void Scheduler::cancel(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || found->second->state == SequenceState::kFinished) return;
  finish(found->second.get());
}

// Gives back slot and blocks; the workers hear of it in the next plan. Blocks may be named again by
// that plan: it runs after every plan in flight.
void Scheduler::leave_group(Sequence* sequence) {
  const auto place =
      std::lower_bound(running_.begin(), running_.end(), sequence->id, arrived_before);
  QUIRE_CHECK(place != running_.end() && *place == sequence);
  running_.erase(place);
  kv_.release(&sequence->tables);
  free_slots_.push_back(sequence->slot);
  releases_.push_back(sequence->slot);
  sequence->slot = -1;
  sequence->num_computed_tokens = 0;
}

void Scheduler::finish(Sequence* sequence) {
  if (sequence->state == SequenceState::kRunning) leave_group(sequence);
  waiting_.erase(sequence->id);
  sequence->state = SequenceState::kFinished;
  forget_if_done(sequence);
}

void Scheduler::forget_if_done(Sequence* sequence) {
  if (sequence->state == SequenceState::kFinished && sequence->num_rows_in_flight == 0) {
    sequences_.erase(sequence->id);
  }
}

bool Scheduler::fits(const Sequence& sequence) const {
  return config_.num_kv_groups *
             policy::blocks_at_end(sequence.max_total_tokens, config_.block_size) <=
         kv_.num_total();
}

std::vector<Gain> Scheduler::start_group(EpochId epoch, int num_blocks, StepId first_step) {
  QUIRE_CHECK_EQ(epoch_, EpochId{0});
  QUIRE_CHECK_GT(epoch, EpochId{0});
  epoch_ = epoch;
  next_step_ = first_step;
  kv_.reset(num_blocks);
  free_slots_ = all_slots(config_.max_num_seqs);
  std::vector<Gain> refused;
  for (const auto& [id, sequence] : waiting_) {
    if (!fits(*sequence)) refused.push_back({id, sequence->request, sequence->choice, 0, {}, {}});
  }
  for (const Gain& gone : refused) cancel(gone.sequence);
  return refused;
}

void Scheduler::lose_group() {
  in_flight_.clear();
  while (!running_.empty()) {
    Sequence* sequence = running_.back();
    leave_group(sequence);
    sequence->state = SequenceState::kWaiting;
    waiting_.emplace(sequence->id, sequence);
  }
  for (auto it = sequences_.begin(); it != sequences_.end();) {
    Sequence& sequence = *it->second;
    sequence.num_rows_in_flight = 0;
    sequence.num_sampled_in_flight = 0;
    const auto current = it++;
    if (sequence.state == SequenceState::kFinished) sequences_.erase(current);
  }
  releases_.clear();
  kv_.reset(0);
  epoch_ = 0;
}

}  // namespace quire
