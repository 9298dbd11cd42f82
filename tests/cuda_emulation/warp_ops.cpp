// The votes' and integer reductions' bodies, run by the last lane to arrive.
#include "tests/cuda_emulation/warp_ops.h"

#include <algorithm>

namespace quire::cuda_emulation {
namespace {

template <typename Record, typename Visit>
void for_lanes(void* const* args, uint32_t mask, Visit visit) {
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    visit(lane, *static_cast<Record*>(args[lane]));
  }
}

}  // namespace

void Vote::run(void* const* args, uint32_t mask) {
  uint32_t ballot = 0;
  for_lanes<Vote>(args, mask, [&](int lane, Vote& v) { ballot |= uint32_t{v.predicate} << lane; });
  for_lanes<Vote>(args, mask, [&](int, Vote& v) { v.ballot = ballot; });
}

uint32_t ballot_of(uint32_t mask, bool predicate) {
  Vote record{predicate, 0};
  warp_operation(mask, &record, &Vote::run, "a vote");
  return record.ballot;
}

void Match::run(void* const* args, uint32_t mask) {
  for_lanes<Match>(args, mask, [&](int, Match& mine) {
    mine.same = 0;
    for_lanes<Match>(args, mask, [&](int lane, const Match& other) {
      mine.same |= uint32_t{other.value == mine.value} << lane;
    });
  });
}

void IntegerReduction::run(void* const* args, uint32_t mask) {
  const uint32_t first = static_cast<IntegerReduction*>(args[std::countr_zero(mask)])->value;
  IntegerReduction all{
      0, 0, first, first, first, first, static_cast<int32_t>(first), static_cast<int32_t>(first)};
  for_lanes<IntegerReduction>(args, mask, [&](int, const IntegerReduction& lane) {
    all.sum += lane.value;
    all.least = std::min(all.least, lane.value);
    all.most = std::max(all.most, lane.value);
    all.both &= lane.value;
    all.either |= lane.value;
    all.signed_least = std::min(all.signed_least, static_cast<int32_t>(lane.value));
    all.signed_most = std::max(all.signed_most, static_cast<int32_t>(lane.value));
  });
  for_lanes<IntegerReduction>(args, mask, [&](int, IntegerReduction& lane) { lane = all; });
}

IntegerReduction reduce_integers(uint32_t mask, uint32_t value) {
  IntegerReduction record{value, 0, 0, 0, 0, 0, 0, 0};
  warp_operation(mask, &record, &IntegerReduction::run, "__reduce_*_sync");
  return record;
}

}  // namespace quire::cuda_emulation
