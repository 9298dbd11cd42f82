// The scheduling rules of policy.h.
#include "coordinator/schedule/policy.h"

#include <algorithm>

namespace quire::policy {

int grant_tokens(const Sequence& sequence, int budget_tokens, int reachable_tokens) {
  const int room = reachable_tokens - sequence.num_computed_tokens;
  return std::max(0, std::min({sequence.num_missing_tokens(), budget_tokens, room}));
}

Sequence* pick_victim(absl::Span<Sequence* const> running, const Sequence& needy) {
  if (running.empty() || running.back()->id <= needy.id) return nullptr;
  return running.back();
}

int watermark_blocks(int total_blocks) {
  return std::max(1, total_blocks / 100);
}

bool may_admit(const Room& room) {
  if (!room.anyone_running) return room.needed_blocks <= room.free_blocks;
  return room.free_blocks - room.promised_blocks - room.needed_blocks >=
         watermark_blocks(room.total_blocks);
}

int blocks_at_end(int max_total_tokens, int block_size) {
  return (max_total_tokens - 1 + block_size - 1) / block_size;
}

}  // namespace quire::policy
