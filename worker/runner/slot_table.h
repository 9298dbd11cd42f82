// The worker's mirror of the rows it was told about: tokens, block tables, sampling parameters.
// Every delta is checked here before anything runs; a plan that breaks a rule is a Status that
// names the slot and the field, and ends the epoch.
//
// Invariants: a used slot has 0 <= num_computed <= tokens.size() <= max_model_len, and its tables
// cover its computed positions with block ids inside the arena. Only while a step with drafts is in
// flight are tokens counted as computed that may turn out not to be: such a slot gets no row.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/step.h"

namespace quire {

// What the coordinator told this worker in Welcome; every buffer is sized by it.
struct StepLimits {
  int num_blocks = 0;
  int block_size = 16;
  int max_num_seqs = 0;
  int max_num_batched_tokens = 0;
  int max_model_len = 0;

  int max_picks() const { return quire::max_picks(max_num_seqs); }
};

// Stands for a token that a step in flight picks.
inline constexpr TokenId kUnseen = -1;

struct Slot {
  bool used = false;
  bool granted = false;         // has had a row; its first one may start behind a cached prefix
  bool drafting = false;        // `tokens` ends in drafts of a step in flight
  std::vector<TokenId> tokens;  // the last one may be kUnseen
  int unseen_pick = 0;          // which pick of the newest step that one is
  int num_prompt_tokens = 0;    // of them; the others are output
  std::uint64_t admission = 0;  // no other sequence of this table has it
  int num_computed = 0;
  std::vector<std::vector<BlockId>> tables;  // [KV group][block]
  SamplingParams params;
  int sample_index = 0;
};

class SlotTable {
 public:
  SlotTable(const StepLimits& limits, int vocab, int num_kv_groups);

  // Whether apply() needs picks that are still on their way: the plan has drafts, or names a slot
  // that has some in flight.
  bool awaits_picks(const StepPlan& plan) const;
  // Releases, admits, then rows: appends tokens and blocks and advances num_computed.
  absl::Status apply(const StepPlan& plan);
  const Slot& at(SlotId slot) const { return slots_[static_cast<std::size_t>(slot)]; }
  // Which row of the last plan gives the logits that `row`, one of them, picks from: itself, or its
  // parent's where it has no tokens.
  int logits_row(const PlanRow& row) const;

  // A step picks tokens for the slot, from its `first_pick`-th on: one, and one after each draft.
  struct Expected {
    SlotId slot = 0;
    std::uint64_t admission = 0;
    std::size_t index = 0;  // of the first pick among the slot's tokens
    std::size_t first_pick = 0;
    std::size_t num_picks = 1;
  };
  // The slot's next row may be granted the pick, unless there are drafts.
  Expected expect(SlotId slot, std::size_t first_pick, std::size_t num_drafts = 0);
  // They have come; the slot may have another occupant by then. Drafts that were not picked go.
  void settle(const Expected& expected, absl::Span<const TokenId> picks);
  int num_used() const;

 private:
  absl::Status check_slot(SlotId slot, bool used, const char* field) const;
  absl::Status check_ids(SlotId slot, const char* field, absl::Span<const TokenId> ids) const;
  absl::Status admit(const AdmitRow& row);
  absl::Status check_admitted_tokens(const AdmitRow& row) const;
  absl::Status check_fork(const AdmitRow& row) const;
  absl::Status index_rows(const StepPlan& plan);
  absl::Status grant(const StepPlan& plan, const PlanRow& row);
  absl::Status append_tokens(const PlanRow& row, Slot& slot);
  absl::Status check_drafts(const PlanRow& row, const Slot& slot) const;
  absl::Status check_tokens(const PlanRow& row, const Slot& slot) const;
  absl::Status check_no_tokens(const StepPlan& plan, const PlanRow& row) const;
  absl::Status append_blocks(const PlanRow& row, Slot& slot);
  absl::Status check_copy(const BlockCopy& copy) const;

  const StepLimits limits_;
  const int vocab_;
  const std::size_t num_kv_groups_;
  std::vector<Slot> slots_;  // [max_num_seqs]
  std::uint64_t num_admissions_ = 0;
  // Of the last plan, by slot; -1: none.
  std::vector<SlotId> parents_;  // of the forks that it admits
  std::vector<int> rows_;        // its index
};

}  // namespace quire
