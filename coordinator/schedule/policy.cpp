// The scheduling rules of policy.h.
#include "coordinator/schedule/policy.h"

#include <algorithm>
#include <tuple>

namespace quire::policy {
namespace {

constexpr absl::Duration kPerPromptToken = absl::Milliseconds(2);
constexpr int kGrowthTokens = 256;

// What is lost with a sequence: tokens to compute again. What it shares is kept by others.
int lost_tokens(const Sequence& sequence) {
  if (sequence.request->search == nullptr) return sequence.num_computed_tokens;
  int lost = 0;
  for (const Sequence* beam : sequence.request->open) lost += beam->num_computed_tokens;
  return lost;
}

bool is_granted(const Sequence& sequence) {
  if (sequence.request->search == nullptr) return sequence.granted;
  const auto& open = sequence.request->open;
  return std::any_of(open.begin(), open.end(), [](const Sequence* beam) { return beam->granted; });
}

}  // namespace

std::int64_t order_us(const OrderInput& input) {
  absl::Time due = std::min(input.deadline, input.arrival + kPatience);
  if (input.policy == Policy::kPriority) due += input.priority * input.ageing;
  if (input.policy == Policy::kSpf) due += input.num_prompt_tokens * kPerPromptToken;
  return absl::ToUnixMicros(due);
}

Sequence* pick_victim(const VictimInput& input) {
  const Earlier earlier;
  Sequence* best = nullptr;
  // Larger gives way first.
  const auto claim = [&](const Sequence& s) {
    const auto tenant = static_cast<std::size_t>(s.request->tenant);
    return std::tuple(input.policy == Policy::kPriority ? s.request->priority : 0,
                      input.policy == Policy::kFair ? input.service[tenant] : 0.0, -lost_tokens(s));
  };
  for (auto it = input.running.rbegin(); it != input.running.rend(); ++it) {
    Sequence* sequence = *it;
    if (!earlier(input.needy, sequence)) break;
    if (sequence->request == input.needy->request && sequence->request->is_beam()) continue;
    if (is_granted(*sequence)) continue;
    if (best == nullptr || claim(*sequence) > claim(*best)) best = sequence;
  }
  return best;
}

int watermark_blocks(int total_blocks) {
  return std::max(1, total_blocks / 100);
}

bool may_admit(const Room& room) {
  if (!room.anyone_running) return room.needed_blocks <= room.available_blocks;
  return room.available_blocks - room.promised_blocks - room.needed_blocks >=
         watermark_blocks(room.total_blocks);
}

int tokens_to_fit(const Sequence& sequence) {
  if (!sequence.preempted) return sequence.num_tokens();
  return std::min(sequence.max_total_tokens - 1, sequence.num_tokens() + kGrowthTokens);
}

int blocks_at_end(int max_total_tokens, int block_size) {
  return (max_total_tokens - 1 + block_size - 1) / block_size;
}

int beam_blocks_at_end(int num_prompt_tokens, int max_total_tokens, int width, int block_size) {
  // Full blocks of the prompt are shared; the partly filled one and what follows is each beam's.
  const int shared = num_prompt_tokens / block_size;
  return shared + width * (blocks_at_end(max_total_tokens, block_size) - shared + 1);
}

}  // namespace quire::policy
