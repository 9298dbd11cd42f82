// Scheduling ideas as pure functions: who comes first, who is admitted, who gives way, how much a
// row is granted. The scheduler asks; nothing here has state.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/schedule/sequence.h"

namespace quire {

enum class Policy {
  kFcfs,      // in order of arrival
  kPriority,  // by priority; waiting makes up for it
  kSpf,       // shortest prefill first; waiting makes up for it
  kLpm,       // longest prefix match first, among the next few
  kFair,      // tenants get equal shares, by weight
};

namespace policy {

// A request without a deadline is due so long after it arrived.
inline constexpr absl::Duration kPatience = absl::Minutes(1);

// The place in the order, in microseconds: of two requests the smaller goes first. A request is due
// at its deadline, or a minute after it arrived if it has none or a later one; so without deadlines
// this is the order of arrival, and with them nobody is passed over by who comes a minute later.
//
// Every step of priority is worth `ageing` of waiting, every prompt token of a shortest-first order
// two milliseconds: the order between two requests never changes while they wait, so waiting costs
// nothing, and whoever waits long enough comes first.
struct OrderInput {
  Policy policy = Policy::kFcfs;
  absl::Time arrival;
  absl::Time deadline = absl::InfiniteFuture();
  int priority = 0;
  absl::Duration ageing;
  int num_prompt_tokens = 0;
};
std::int64_t order_us(const OrderInput& input);

// A row that only needs its newest token computed goes before every prefill: a long prompt cannot
// stop the streams that already run.
inline bool is_decode(const Sequence& sequence) {
  return sequence.num_missing_tokens() == 1;
}

// Who gives its blocks to `needy`: nobody that comes before it, so that the first one always
// advances. Of the others: the least important, then the tenant that had the most (`service`), then
// whoever loses the least work, then the latest. Sequences that the plan being made has granted
// something keep it. Beams count as one. nullptr: `needy` waits in place.
struct VictimInput {
  Policy policy = Policy::kFcfs;
  absl::Span<Sequence* const> running;  // in order
  const Sequence* needy = nullptr;
  absl::Span<const double> service;  // [tenant]
};
Sequence* pick_victim(const VictimInput& input);

// Blocks kept free at admission, so that running rows can grow for a while before anyone must be
// preempted.
int watermark_blocks(int total_blocks);

// Blocks as they stand when a waiting sequence asks to run.
struct Room {
  int total_blocks = 0;
  int available_blocks = 0;
  int promised_blocks = 0;  // that running sequences still need, and to grow for a while
  int needed_blocks =
      0;  // for every token the newcomer has, and for its growth if it was preempted
  bool anyone_running = false;
};
// A newcomer must fit with all its tokens, not only its first chunk: one that is stopped half way
// through its prompt would hold blocks, then be preempted, and all its work be lost.
bool may_admit(const Room& room);

// Tokens that a sequence must have room for: all it has, and where it gave way before, what it will
// grow by for a while (its whole growth if it is no more than that).
int tokens_to_fit(const Sequence& sequence);

// Blocks that a sequence holds at its longest. Its last token is never computed.
int blocks_at_end(int max_total_tokens, int block_size);
// Blocks of a whole beam search at its longest: the prompt once, the rest for every beam.
int beam_blocks_at_end(int num_prompt_tokens, int max_total_tokens, int width, int block_size);
inline int beam_blocks_at_end(const ScheduledRequest& request, int block_size) {
  return beam_blocks_at_end(request.num_prompt_tokens, request.max_total_tokens,
                            request.beams.width, block_size);
}

}  // namespace policy
}  // namespace quire
