// Fibers: stacks for the lanes of a block, and the switch from one to another. A stack has an
// inaccessible page below it, so that an overflow faults. Tops are staggered: lanes of a warp would
// otherwise keep their hot lines in the same sets of the cache.
#pragma once

#include <cstddef>

#include "tests/cuda_emulation/lane.h"

namespace quire::cuda_emulation {

class StackArena {
 public:
  StackArena() = default;
  StackArena(const StackArena&) = delete;
  StackArena& operator=(const StackArena&) = delete;
  ~StackArena();

  // Makes room for `count` stacks; those made before stay where they are only if `count` does not
  // grow beyond them, so no fiber may be alive.
  void reserve(int count);
  // Gives `lane` stack number `i` and a context that will begin in lane_main.
  void prepare(int i, Lane& lane);

 private:
  void unmap();

  char* base_ = nullptr;
  int count_ = 0;
};

// Leaves `from` and goes on in `to`; returns when somebody switches back to `from`.
void switch_lane(Lane& from, Lane& to);

// What a lane's fiber runs: the kernel, once for each block that the stack is used for. Never
// returns.
void lane_main();

}  // namespace quire::cuda_emulation
