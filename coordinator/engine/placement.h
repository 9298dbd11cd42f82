// Which group gets which request: where it is done first, by what each has to do and what it has of
// the prompt in its cache. Pure: made anew whenever something is to be placed, from what the
// groups' schedulers say; what it has placed counts.
//
// A group takes newcomers while it has slots and blocks for them and less than one step's tokens
// wait in it: so the order of those who wait for any group stays theirs alone, up to a step's worth
// in each. Who would be done first in a group that has slots and blocks but no turn now waits for
// it; that group takes nobody else before.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {

// What is to be placed.
struct Newcomer {
  int num_tokens = 0;       // to compute where a cache has nothing
  int num_answer = 0;       // tokens it may still gain
  int num_seqs = 1;         // slots without which it cannot begin
  int blocks_to_begin = 0;  // where a cache has nothing
  int blocks_at_end = 0;    // at its longest
};

class Placement {
 public:
  struct Lane {
    bool open = false;  // a group is there and takes newcomers
    GroupLoad load;
    int total_blocks = 0;
    const StepCostModel* costs = nullptr;
  };
  // `most_waiting`: prompt tokens that wait in a group before it takes no more.
  Placement(std::vector<Lane> lanes, std::int64_t most_waiting);

  // Some group may still take somebody.
  bool has_turns() const;
  using Cached = Scheduler::Cached;
  // In the order of those who wait; `cached` by lane. The newcomer's lane, whose room it has then;
  // nothing: it must wait, and what it waits for is kept for it.
  std::optional<int> place(const Newcomer& who, absl::Span<const Cached> cached);
  // One that is to run with nobody beside it: whoever is there gives way. The lane is closed then.
  std::optional<int> place_alone(const Newcomer& who, absl::Span<const Cached> cached);
  // Seconds until it is done there, or a number like it where too little is known of steps' times:
  // only to be compared with the same of another lane.
  double cost(int lane, const Newcomer& who, const Cached& cached) const;
  // It could begin at once, in its turn.
  bool has_room(int lane, const Newcomer& who, const Cached& cached) const;

 private:
  bool may_ever(const Lane& lane, const Newcomer& who) const;
  bool has_turn(const Lane& lane) const;
  template <typename Candidate>
  int cheapest(const Newcomer& who, absl::Span<const Cached> cached, Candidate is_candidate) const;

  std::vector<Lane> lanes_;
  const std::int64_t most_waiting_;
  bool timed_ = true;  // of every open lane it is known what steps cost
};

}  // namespace quire
