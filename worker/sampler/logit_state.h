// What a sequence's tokens and parameters do to its logits, kept from step to step: each token is
// looked at once. Everything follows from the tokens, so a sequence that is admitted again (after
// preemption, or by another group) goes on as it was. Only the rank that samples keeps this.
//
// Invariant: entries are by ascending id, each id once (LogitAdjustment).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "common/sampling_params.h"
#include "kernels/sampling.h"

namespace quire {

// One sequence's.
class LogitState {
 public:
  // `eos` are the ids that end an answer.
  LogitState(const SamplingParams& params, int num_prompt_tokens, absl::Span<const TokenId> eos,
             int vocab);
  LogitState(const LogitState&) = delete;
  LogitState& operator=(const LogitState&) = delete;

  // For the pick of the token that follows `tokens`: those of the last call, and more. Good until
  // the next call.
  const LogitAdjustment& update(absl::Span<const TokenId> tokens);

 private:
  LogitEntry& entry(TokenId id);
  void add_entries(absl::Span<const TokenId> tokens);
  void ban(TokenId id);
  void count(TokenId token, bool is_output);

  const bool counts_;         // some penalty is asked for
  const bool counts_prompt_;  // and it is one that the prompt's tokens are under
  const std::size_t num_prompt_tokens_;
  const std::size_t ban_end_;  // the number of tokens from which on nothing is banned
  std::size_t num_counted_ = 0;
  std::vector<LogitEntry> entries_;
  struct Ban {
    TokenId token;
    float bias;  // once it is over
  };
  std::vector<Ban> bans_;
  std::vector<std::uint32_t> allowed_;
  LogitAdjustment adjustment_;
};

// Those of all slots.
class LogitStates {
 public:
  LogitStates(int num_slots, std::vector<TokenId> eos, int vocab);

  // As LogitState::update, or null where the parameters adjust nothing. `admission` tells one
  // sequence of the slot from the next.
  const LogitAdjustment* update(SlotId slot, std::uint64_t admission, const SamplingParams& params,
                                int num_prompt_tokens, absl::Span<const TokenId> tokens);

 private:
  struct Held {
    std::uint64_t admission = 0;
    std::unique_ptr<LogitState> state;
  };
  const std::vector<TokenId> eos_;
  const int vocab_;
  std::vector<Held> slots_;
};

}  // namespace quire
