// One sequence: its tokens, how far they are computed, its state and its block table; and the
// request that it is a choice or a beam of. The scheduler owns both; nobody else changes one.
//
// Invariant: num_applied <= num_computed_tokens <= num_known_tokens() <= max_total_tokens, and the
// table covers at least num_computed_tokens positions (none unless running).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "common/sampling_params.h"
#include "coordinator/cache/kv_manager.h"
#include "coordinator/schedule/beam_search.h"
#include "coordinator/schedule/draft_gain.h"
#include "coordinator/schedule/ngram_drafter.h"
#include "coordinator/schedule/token_list.h"

namespace quire {

struct Sequence;

// Of the prefix cache: what is found under one is never found under another.
inline std::string scope_of(int tenant, const std::string& salt) {
  return absl::StrCat(tenant, ":", salt);
}

// What the sequences of one request share.
struct ScheduledRequest {
  RequestId id = 0;
  SamplingParams params;  // as workers get them
  int n = 1;
  BeamParams beams;
  int tenant = 0;
  int priority = 0;
  std::string scope;  // of the prefix cache
  int num_prompt_tokens = 0;
  int max_total_tokens = 0;        // prompt and output of a sequence: by max_tokens, max_model_len
  std::int64_t order_us = 0;       // smaller is earlier; see policy::order_us
  int times_passed = 0;            // by later ones, while first in the queue (lpm)
  bool wants_logprobs = false;     // the client, of every token
  bool gained = false;             // the first token has been reported
  int num_cached_tokens = 0;       // of the prompt, at its first admission
  bool is_warm = false;            // that admission has been
  std::vector<Sequence*> choices;  // [choice]; null: ended. None with beams
  // Choices that wait for the first one's prompt to be computed: they fork from it.
  std::vector<Sequence*> held;

  // Of a beam search: the sequences of the open beams, in the order of `search`'s (at first one);
  // between a step's result and the next plan those of the step before, which `due` continues.
  std::unique_ptr<BeamSearch> search;
  std::vector<Sequence*> open;
  std::vector<BeamSearch::Open> due;
  int reserved_slots = 0;  // that the beams may still need

  bool is_beam() const { return beams.width > 0; }
};

enum class SequenceState : std::uint8_t {
  kHeld,      // waits for the first choice's prompt
  kWaiting,   // has no slot and no blocks; new, preempted, or the group was lost
  kRunning,   // has a slot: the workers know it
  kFinished,  // only kept until the results of its rows in flight have passed by
};

// What every step touches comes first, in 192 bytes, and copies what it needs of the request: with
// thousands of sequences the time of a step is that of reaching for memory.
struct Sequence {
  SequenceState state = SequenceState::kWaiting;
  bool is_beam = false;
  bool granted = false;    // in the plan that is being made
  bool preempted = false;  // has given way since it last ran
  bool recovers = false;   // had tokens already when the epoch began
  bool returns_logprobs = false;
  bool ends_on_token = false;   // an eos or a stop token may end it
  SlotId slot = -1;             // while running
  int num_computed_tokens = 0;  // positions granted since the last admission, in flight or applied
  int num_applied_tokens = 0;   // those of them whose results are in
  int num_rows_in_flight = 0;   // plans that hold a row of it and are not applied yet
  int num_sampled_in_flight = 0;  // picks of them that only the workers know yet
  int num_prompt_tokens = 0;
  int max_total_tokens = 0;    // see ScheduledRequest
  std::uint32_t life = 0;      // grows whenever the slot is given up
  int wanted_drafts = 0;       // that may follow its results
  float net_draft_tokens = 0;  // what they bring, see DraftGain
  int tenant = 0;
  int choice = 0;     // which of the request's n
  SequenceId id = 0;  // grows with arrival
  RequestId request_id = 0;
  std::vector<TokenId> drafts;            // in flight
  TokenId guess = -1;                     // what is next, by the drafter; -1: it does not know
  std::unique_ptr<NgramDrafter> drafter;  // once it may have drafts
  BlockTable table;
  TokenList tokens;  // prompt, then every token applied

  std::shared_ptr<ScheduledRequest> request;
  DraftGain draft_gain;

  int num_tokens() const { return tokens.size(); }
  // Tokens that exist, also those that only the workers have seen.
  int num_known_tokens() const { return num_tokens() + num_sampled_in_flight; }
  int num_missing_tokens() const { return num_known_tokens() - num_computed_tokens; }
  // False once the last token it may have is on its way: nothing is left to plan.
  bool may_grow() const { return num_known_tokens() < max_total_tokens; }
};

// Where thousands are walked through in order: so many before its turn.
inline constexpr std::size_t kAhead = 6;
inline void prefetch(const Sequence& sequence) {
  const auto* bytes = reinterpret_cast<const char*>(&sequence);
  for (int line = 0; line < 3; ++line) __builtin_prefetch(bytes + 64 * line, /*rw=*/1);
}

// The order in which sequences are served, among equals of a policy: a total one.
struct Earlier {
  bool operator()(const Sequence* a, const Sequence* b) const {
    return std::tuple(a->request->order_us, a->request_id, a->id) <
           std::tuple(b->request->order_us, b->request_id, b->id);
  }
};

}  // namespace quire
