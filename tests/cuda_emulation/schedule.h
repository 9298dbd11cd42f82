// Who runs next. One run of a warp goes on until each of its lanes waits at the block's barrier or
// has returned; then another warp of the block goes. The order of lanes changes with every barrier
// and every full warp operation, the order of warps with every choice, both by the seed.
#pragma once

#include <cstdint>

#include "tests/cuda_emulation/lane.h"

namespace quire::cuda_emulation {

inline uint64_t next_random(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state * 0x2545f4914f6cdd1dull;
}

inline uint32_t turn_of(const Warp& warp, uint32_t index) {
  return (index - warp.start) * warp.inverse & 31;
}
inline uint32_t index_of(const Warp& warp, uint32_t turn) {
  return (turn * warp.stride + warp.start) & 31;
}

// The lanes of `indices` as a set of turns.
uint32_t turns_of(const Warp& warp, uint32_t indices);
// A new order; none of the warp's lanes may be in `ready` or `yielded`.
void reorder(Block& block, Warp& warp);
// All lanes of all warps are ready, in new orders.
void make_all_ready(Block& block);
// Lanes that yielded are ready again.
void end_yields(Block& block);
// Goes on in any lane that is ready, or in the root where none is.
void run_another(Lane& self);
// Says who waits where, and ends the process: nothing of the block can go on.
[[noreturn]] void die_stuck(const Block& block);

}  // namespace quire::cuda_emulation
