// Scheduling ideas as pure functions: who is admitted, who gives way, how much a row is granted.
// The scheduler asks; nothing here has state. First come, first served, by SequenceId.
#pragma once

#include "absl/types/span.h"
#include "coordinator/schedule/sequence.h"

namespace quire::policy {

// A row that only needs its newest token computed goes before every prefill: a long prompt cannot
// stop the streams that already run.
inline bool is_decode(const Sequence& sequence) {
  return sequence.num_missing_tokens() == 1;
}

// What a row gets: no more than it needs, than the step's budget leaves and than blocks can hold.
int grant_tokens(const Sequence& sequence, int budget_tokens, int reachable_tokens);

// Who gives its blocks to `needy`: the latest arrival, if that is later than `needy` itself;
// otherwise nullptr, and `needy` waits in place (it keeps its blocks, which an earlier one may
// take). `running` is in order of arrival. So the earliest sequence always advances.
Sequence* pick_victim(absl::Span<Sequence* const> running, const Sequence& needy);

// Blocks kept free at admission, so that running rows can grow for a while before anyone must be
// preempted.
int watermark_blocks(int total_blocks);

// Blocks as they stand when the head of the waiting queue asks to run.
struct Room {
  int total_blocks = 0;
  int free_blocks = 0;
  int promised_blocks = 0;  // that running prefills still need for tokens they have
  int needed_blocks = 0;    // for every token the newcomer has
  bool anyone_running = false;
};
// A newcomer must fit with all its tokens, not only its first chunk: one that is stopped half way
// through its prompt would hold blocks, then be preempted, and all its work be lost.
bool may_admit(const Room& room);

// Blocks that a sequence holds at its longest. Its last token is never computed.
int blocks_at_end(int max_total_tokens, int block_size);

}  // namespace quire::policy
