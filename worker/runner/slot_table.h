// The worker's mirror of the rows it was told about: tokens, block tables, sampling parameters.
// Every delta is checked here before anything runs; a plan that breaks a rule is a Status that
// names the slot and the field, and ends the epoch.
//
// Invariants: a used slot has 0 <= num_computed <= tokens.size() <= max_model_len, and its tables
// cover its computed positions with block ids inside the arena.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/step.h"

namespace quire {

// What the coordinator told this worker in Welcome; every buffer is sized by it.
struct StepLimits {
  int num_blocks = 0;
  int block_size = 16;
  int max_num_seqs = 0;
  int max_num_batched_tokens = 0;
  int max_model_len = 0;
};

// Stands for a token that a step in flight picks.
inline constexpr TokenId kUnseen = -1;

struct Slot {
  bool used = false;
  bool granted = false;         // has had a row; its first one may start behind a cached prefix
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

  // Releases, admits, then rows: appends blocks and advances num_computed.
  absl::Status apply(const StepPlan& plan);
  const Slot& at(SlotId slot) const { return slots_[static_cast<std::size_t>(slot)]; }
  // A step picks a token for the slot, as its `pick`-th: the slot's next row may be granted it.
  struct Expected {
    SlotId slot = 0;
    std::uint64_t admission = 0;
    std::size_t index = 0;  // of the token
  };
  Expected expect(SlotId slot, int pick);
  // The token has come; the slot may have another occupant by then.
  void settle(const Expected& expected, TokenId token);
  int num_used() const;

 private:
  absl::Status check_slot(SlotId slot, bool used, const char* field) const;
  absl::Status admit(const AdmitRow& row);
  absl::Status grant(const PlanRow& row);
  absl::Status append_blocks(const PlanRow& row, Slot& slot);
  absl::Status check_copy(const BlockCopy& copy) const;

  const StepLimits limits_;
  const int vocab_;
  const std::size_t num_kv_groups_;
  std::vector<Slot> slots_;  // [max_num_seqs]
  std::uint64_t num_admissions_ = 0;
};

}  // namespace quire
