// The rules of placement.h.
#include "coordinator/engine/placement.h"

#include <algorithm>
#include <utility>

namespace quire {
namespace {

// Of an answer whose length nobody knows: what a group's pace is worth beside the prompt.
constexpr int kUsualAnswer = 64;

}  // namespace

Placement::Placement(std::vector<Lane> lanes, std::int64_t most_waiting)
    : lanes_(std::move(lanes)), most_waiting_(most_waiting) {
  for (const Lane& lane : lanes_) timed_ = timed_ && (!lane.open || lane.costs->known());
}

bool Placement::has_turn(const Lane& lane) const {
  return lane.open && lane.load.free_seqs > 0 && lane.load.waiting_tokens < most_waiting_;
}

bool Placement::has_turns() const {
  return std::any_of(lanes_.begin(), lanes_.end(),
                     [this](const Lane& lane) { return has_turn(lane); });
}

bool Placement::may_ever(const Lane& lane, const Newcomer& who) const {
  return lane.open && who.blocks_at_end <= lane.total_blocks;
}

bool Placement::has_room(int index, const Newcomer& who, const Cached& cached) const {
  const Lane& lane = lanes_[static_cast<std::size_t>(index)];
  if (!may_ever(lane, who)) return false;
  if (lane.load.idle) return true;
  return lane.load.free_seqs >= who.num_seqs &&
         lane.load.free_blocks >= who.blocks_to_begin - cached.num_blocks;
}

double Placement::cost(int index, const Newcomer& who, const Cached& cached) const {
  const Lane& lane = lanes_[static_cast<std::size_t>(index)];
  const double missing = std::max(1, who.num_tokens - cached.num_tokens);
  const double prompts = static_cast<double>(lane.load.prompt_tokens) + missing;
  const double answer = std::clamp(who.num_answer, 1, kUsualAnswer);
  if (!timed_) return prompts + answer * (lane.load.streams.num_rows + 1);
  StepWork step = lane.load.streams;
  step.add_row(who.num_tokens, 1);
  step.num_samples += 1;
  const double steps = prompts / static_cast<double>(most_waiting_);
  return (prompts * lane.costs->us_per_prefill_token(cached.num_tokens) +
          steps * lane.costs->us_per_step() + answer * lane.costs->predict_us(step)) /
         1e6;
}

// -1: there is no candidate. Of equals the first.
template <typename Candidate>
int Placement::cheapest(const Newcomer& who, absl::Span<const Cached> cached,
                        Candidate is_candidate) const {
  int best = -1;
  double least = 0.0;
  for (int lane = 0; lane < static_cast<int>(lanes_.size()); ++lane) {
    if (!is_candidate(lane)) continue;
    const double cost_here = cost(lane, who, cached[static_cast<std::size_t>(lane)]);
    if (best >= 0 && cost_here >= least) continue;
    best = lane;
    least = cost_here;
  }
  return best;
}

std::optional<int> Placement::place(const Newcomer& who, absl::Span<const Cached> cached) {
  const int best = cheapest(who, cached, [&](int lane) {
    return has_room(lane, who, cached[static_cast<std::size_t>(lane)]);
  });
  if (best < 0) {  // whichever has room first is kept for it
    for (Lane& lane : lanes_) {
      if (may_ever(lane, who)) lane.open = false;
    }
    return std::nullopt;
  }
  const Cached& found = cached[static_cast<std::size_t>(best)];
  Lane& lane = lanes_[static_cast<std::size_t>(best)];
  if (!lane.load.idle && !has_turn(lane)) {
    lane.open = false;
    return std::nullopt;
  }
  const int missing = std::max(1, who.num_tokens - found.num_tokens);
  lane.load.idle = false;
  lane.load.free_seqs -= who.num_seqs;
  lane.load.free_blocks -= who.blocks_to_begin - found.num_blocks;
  lane.load.waiting_tokens += missing;
  lane.load.prompt_tokens += missing;
  return best;
}

std::optional<int> Placement::place_alone(const Newcomer& who, absl::Span<const Cached> cached) {
  const int best = cheapest(
      who, cached, [&](int lane) { return may_ever(lanes_[static_cast<std::size_t>(lane)], who); });
  if (best < 0) return std::nullopt;
  lanes_[static_cast<std::size_t>(best)].open = false;
  return best;
}

}  // namespace quire
