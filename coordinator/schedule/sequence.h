// One sequence: its tokens, how far they are computed, its state and its block table. The scheduler
// owns every sequence; nobody else changes one.
//
// Invariant: num_computed_tokens <= num_known_tokens() <= max_total_tokens, and the tables cover
// exactly num_computed_tokens positions (none unless running).
#pragma once

#include <vector>

#include "common/ids.h"
#include "common/sampling_params.h"
#include "coordinator/cache/kv_manager.h"

namespace quire {

enum class SequenceState {
  kWaiting,   // has no slot and no blocks; new, preempted, or the group was lost
  kRunning,   // has a slot: the workers know it
  kFinished,  // only kept until the results of its rows in flight have passed by
};

struct Sequence {
  SequenceId id = 0;  // grows with arrival
  RequestId request = 0;
  int choice = 0;               // which of the request's n
  std::vector<TokenId> tokens;  // prompt, then every token applied
  int num_prompt_tokens = 0;
  int max_total_tokens = 0;  // prompt and output together: by max_tokens and max_model_len
  SamplingParams params;

  SequenceState state = SequenceState::kWaiting;
  SlotId slot = -1;  // while running
  BlockTables tables;
  int num_computed_tokens = 0;  // positions granted since the last admission, in flight or applied
  int num_rows_in_flight = 0;   // plans that hold a row of it and are not applied yet
  int num_sampled_in_flight = 0;  // those of them that sample: tokens only the workers know yet

  int num_tokens() const { return static_cast<int>(tokens.size()); }
  // Tokens that exist, also those that only the workers have seen.
  int num_known_tokens() const { return num_tokens() + num_sampled_in_flight; }
  int num_missing_tokens() const { return num_known_tokens() - num_computed_tokens; }
  // False once the last token it may have is on its way: nothing is left to plan.
  bool may_grow() const { return num_known_tokens() < max_total_tokens; }
};

}  // namespace quire
