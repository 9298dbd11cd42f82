// The scheduler and the three things a lane can wait for: the block, lanes of its warp, a turn.
#include "tests/cuda_emulation/schedule.h"

#include <bit>
#include <cstring>
#include <string>

#include "tests/cuda_emulation/fiber.h"

namespace quire::cuda_emulation {
namespace {

// Inverses of the odd numbers modulo 32.
constexpr uint32_t kInverse[16] = {1, 11, 13, 23, 25, 3, 5, 15, 17, 27, 29, 7, 9, 19, 21, 31};

Lane* take(Warp& warp) {
  const auto turn = static_cast<uint32_t>(std::countr_zero(warp.ready));
  warp.ready &= warp.ready - 1;
  return &warp.lanes[index_of(warp, turn)];
}

Lane* pick(Block& block, Warp& warp) {
  if (warp.ready != 0) return take(warp);
  block.warps_ready &= ~warp.bit;
  if (block.warps_ready == 0) return &block.root;
  const int turn = static_cast<int>(next_random(block.random) >> 59);
  const uint32_t rotated = std::rotr(block.warps_ready, turn);
  return take(block.warps[(std::countr_zero(rotated) + turn) & 31]);
}

std::string thread_name(const Lane& lane) {
  const uint3& t = lane.thread_index;
  return "(" + std::to_string(t.x) + "," + std::to_string(t.y) + "," + std::to_string(t.z) + ")";
}

std::string wait_name(const Lane& lane) {
  switch (lane.state) {
    case LaneState::kAtBarrier:
      return std::string("waits at __syncthreads in ") + lane.waits_at + ":" +
             std::to_string(lane.waits_at_line);
    case LaneState::kAtWarpOperation:
      return std::string("waits in ") + lane.waits_at;
    case LaneState::kExited:
      return "has returned";
    case LaneState::kReady:
      break;
  }
  return "runs";
}

WarpOperation& operation_for(Warp& warp, uint32_t mask) {
  for (uint32_t rest = warp.open; rest != 0; rest &= rest - 1) {
    WarpOperation& operation = warp.operations[std::countr_zero(rest)];
    if (operation.mask == mask) return operation;
  }
  const int unused = std::countr_one(warp.open);
  warp.open |= uint32_t{1} << unused;
  WarpOperation& operation = warp.operations[unused];
  operation.mask = mask;
  operation.arrived = 0;
  std::memset(operation.args, 0, sizeof(operation.args));
  return operation;
}

void check_barrier(const Block& block, const char* file, int line) {
  if (block.live != block.threads) {
    for (const Lane& lane : block.lanes) {
      if (lane.state != LaneState::kExited) continue;
      die("waits at __syncthreads in %s:%d, but thread %s has returned: divergent barrier", file,
          line, thread_name(lane).c_str());
    }
  }
  if (block.at_barrier == 0) return;
  if (block.barrier_line == line &&
      (block.barrier_file == file || std::strcmp(block.barrier_file, file) == 0)) {
    return;
  }
  for (const Lane& lane : block.lanes) {
    if (lane.state != LaneState::kAtBarrier) continue;
    die("waits at __syncthreads in %s:%d, but thread %s waits at %s:%d: divergent barrier", file,
        line, thread_name(lane).c_str(), lane.waits_at, lane.waits_at_line);
  }
}

}  // namespace

uint32_t turns_of(const Warp& warp, uint32_t indices) {
  if (indices == ~uint32_t{0}) return indices;
  uint32_t turns = 0;
  for (uint32_t rest = indices; rest != 0; rest &= rest - 1) {
    turns |= uint32_t{1} << turn_of(warp, static_cast<uint32_t>(std::countr_zero(rest)));
  }
  return turns;
}

void reorder(Block& block, Warp& warp) {
  const uint64_t random = next_random(block.random) >> 32;
  warp.stride = (static_cast<uint32_t>(random) & 31) | 1;
  warp.inverse = kInverse[warp.stride / 2];
  warp.start = static_cast<uint32_t>(random >> 5) & 31;
}

void make_all_ready(Block& block) {
  for (Warp& warp : block.warps) {
    reorder(block, warp);
    warp.ready = turns_of(warp, warp.existing);
    block.warps_ready |= warp.bit;
  }
}

void end_yields(Block& block) {
  for (Warp& warp : block.warps) {
    warp.ready |= warp.yielded;
    warp.yielded = 0;
    if (warp.ready != 0) block.warps_ready |= warp.bit;
  }
}

void run_another(Lane& self) {
  Lane* next = pick(*self.block, *self.warp);
  if (next != &self) switch_lane(self, *next);
}

void die_stuck(const Block& block) {
  const Lane* at_barrier = nullptr;
  const Lane* in_warp = nullptr;
  for (const Lane& lane : block.lanes) {
    if (lane.state == LaneState::kAtBarrier && at_barrier == nullptr) at_barrier = &lane;
    if (lane.state == LaneState::kAtWarpOperation && in_warp == nullptr) in_warp = &lane;
  }
  const Lane* other = at_barrier;
  for (const Lane& lane : block.lanes) {
    if (in_warp == nullptr || other != nullptr) break;
    if (lane.warp == in_warp->warp && lane.state != LaneState::kAtWarpOperation) other = &lane;
  }
  const Lane* first = in_warp != nullptr ? in_warp : at_barrier;
  if (first == nullptr) die("block cannot go on");
  current_lane = const_cast<Lane*>(first);
  die("%s and cannot go on%s%s%s: divergent barrier", wait_name(*first).c_str(),
      other != nullptr && other != first ? ", while thread " : "",
      other != nullptr && other != first ? (thread_name(*other) + " ").c_str() : "",
      other != nullptr && other != first ? wait_name(*other).c_str() : "");
}

void block_barrier(const char* file, int line) {
  Lane& self = *current_lane;
  Block& block = *self.block;
  check_barrier(block, file, line);
  block.barrier_file = file;
  block.barrier_line = line;
  if (++block.at_barrier < block.threads) {
    self.state = LaneState::kAtBarrier;
    self.waits_at = file;
    self.waits_at_line = line;
    run_another(self);
    return;
  }
  block.at_barrier = 0;
  block.barrier_result = block.barrier_count;
  block.barrier_count = 0;
  for (Lane& lane : block.lanes) lane.state = LaneState::kReady;
  make_all_ready(block);
  if (--block.phases_left == 0) {
    switch_lane(self, block.root);
  } else {
    run_another(self);
  }
}

int block_count(bool predicate, const char* file, int line) {
  current_lane->block->barrier_count += predicate;
  block_barrier(file, line);
  return current_lane->block->barrier_result;
}

void warp_operation(uint32_t mask, void* args, WarpFunction function, const char* name) {
  Lane& self = *current_lane;
  Warp& warp = *self.warp;
  const uint32_t own = uint32_t{1} << self.index;
  mask &= warp.existing;
  if ((mask & own) == 0) die("calls %s with a mask that does not name the caller", name);
  if ((mask & warp.exited) != 0) {
    die("calls %s with a mask that names thread %s, which has returned", name,
        thread_name(warp.lanes[std::countr_zero(mask & warp.exited)]).c_str());
  }
  WarpOperation& operation = operation_for(warp, mask);
  if (operation.arrived != 0 && operation.function != function) {
    die("calls %s while lanes of its mask are in %s: divergent warp", name, operation.name);
  }
  operation.function = function;
  operation.name = name;
  operation.args[self.index] = args;
  operation.arrived |= own;
  if (operation.arrived != mask) {
    self.state = LaneState::kAtWarpOperation;
    self.waits_at = name;
    run_another(self);
    return;
  }
  if (function != nullptr) function(operation.args, mask);
  warp.open &= ~(uint32_t{1} << (&operation - warp.operations));
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    warp.lanes[std::countr_zero(rest)].state = LaneState::kReady;
  }
  if (mask == warp.existing) reorder(*self.block, warp);
  warp.ready |= turns_of(warp, mask & ~own);
  if (warp.ready != 0) self.block->warps_ready |= warp.bit;
}

void yield_lane() {
  Lane& self = *current_lane;
  self.warp->yielded |= uint32_t{1} << turn_of(*self.warp, self.index);
  run_another(self);
}

void perhaps_yield() {
  if (next_random(current_lane->block->random) >> 61 == 0) yield_lane();
}

void lane_main() {
  for (;;) {
    Lane& self = *current_lane;
    Block& block = *self.block;
    block.run(block.closure);
    if (block.at_barrier != 0) {
      for (const Lane& lane : block.lanes) {
        if (lane.state != LaneState::kAtBarrier) continue;
        die("has returned while thread %s waits at __syncthreads in %s:%d: divergent barrier",
            thread_name(lane).c_str(), lane.waits_at, lane.waits_at_line);
      }
    }
    self.state = LaneState::kExited;
    self.copies.clear();
    self.warp->exited |= uint32_t{1} << self.index;
    --block.live;
    run_another(self);
  }
}

}  // namespace quire::cuda_emulation
