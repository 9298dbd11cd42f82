// Runs a grid: keeps a number of blocks under way, gives them turns by the seed, and begins another
// where one has ended. All of it on the launching thread, so that launches of several threads run
// at once and none knows of the others.
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/fiber.h"
#include "tests/cuda_emulation/guard.h"
#include "tests/cuda_emulation/launch.h"
#include "tests/cuda_emulation/occupancy.h"
#include "tests/cuda_emulation/schedule.h"
#include "tests/cuda_emulation/shared_memory.h"

constinit thread_local uint3 threadIdx = {};
constinit thread_local uint3 blockIdx = {};
constinit thread_local dim3 blockDim = {};
constinit thread_local dim3 gridDim = {};

namespace quire::cuda_emulation {

constinit thread_local Lane* current_lane = nullptr;

namespace {

// A place for a block: its lanes' stacks and shared memory outlive it.
struct Place {
  Block block;
  StackArena stacks;
  int prepared = 0;
};

struct Machine {
  std::vector<std::unique_ptr<Place>> places;
  bool running = false;
};
thread_local Machine machine;

class GridRunner {
 public:
  explicit GridRunner(const GridRun& run) : run_(run), random_(seed() * 2 + 1) {
    total_ = uint64_t{run.grid.x} * run.grid.y * run.grid.z;
    threads_ = static_cast<int>(run.block.x * run.block.y * run.block.z);
    for (int i = 0; i < 4; ++i) next_random(random_);
  }

  void run() {
    uint64_t resident = static_cast<uint64_t>(resident_blocks());
    if (resident == 0) resident = resident_limit(threads_, run_.shared_bytes);
    resident = std::min(resident, total_);
    while (machine.places.size() < resident) machine.places.push_back(std::make_unique<Place>());
    for (uint64_t i = 0; i < resident; ++i) {
      active_.push_back(machine.places[i].get());
      begin_block(*active_.back());
    }
    while (!active_.empty()) turn();
  }

 private:
  void begin_block(Place& place) {
    Block& block = place.block;
    const uint64_t number = begun_++;
    block.index = {static_cast<unsigned>(number % run_.grid.x),
                   static_cast<unsigned>(number / run_.grid.x % run_.grid.y),
                   static_cast<unsigned>(number / run_.grid.x / run_.grid.y)};
    shape(place);
    block.run = run_.run;
    block.closure = run_.closure;
    block.live = threads_;
    block.at_barrier = 0;
    block.barrier_count = 0;
    block.random = next_random(random_) | 1;
    block.warps_ready = 0;
    for (Lane& lane : block.lanes) {
      lane.state = LaneState::kReady;
      lane.copy_group = 0;
      lane.copies.clear();
    }
    for (Warp& warp : block.warps) {
      warp.exited = 0;
      warp.yielded = 0;
      warp.open = 0;
    }
    make_all_ready(block);
    if (block.shared == nullptr) block.shared = std::make_unique<SharedMemory>();
    block.shared->begin_block(run_.shared_bytes);
  }

  // Lanes and warps for this launch's block shape.
  void shape(Place& place) {
    Block& block = place.block;
    block.grid_shape = run_.grid;
    if (block.threads == threads_ && block.shape.x == run_.block.x &&
        block.shape.y == run_.block.y) {
      block.shape = run_.block;
      return;
    }
    block.shape = run_.block;
    block.threads = threads_;
    if (threads_ > place.prepared) {
      place.stacks.reserve(threads_);
      place.prepared = threads_;
    }
    block.lanes.clear();
    block.lanes.resize(static_cast<size_t>(threads_));
    block.warps.clear();
    block.warps.resize(static_cast<size_t>(threads_ + 31) / 32);
    block.root.block = &block;
    for (int i = 0; i < threads_; ++i) {
      Lane& lane = block.lanes[static_cast<size_t>(i)];
      const auto t = static_cast<unsigned>(i);
      lane.thread_index = {t % block.shape.x, t / block.shape.x % block.shape.y,
                           t / block.shape.x / block.shape.y};
      lane.block = &block;
      lane.warp = &block.warps[t / 32];
      lane.index = static_cast<uint8_t>(t % 32);
      lane.warp->existing |= uint32_t{1} << lane.index;
      if (lane.index == 0) lane.warp->lanes = &lane;
      lane.warp->bit = uint32_t{1} << t / 32;
      place.stacks.prepare(i, lane);
    }
  }

  // One block runs until it ends, only waits for others, or has had its share.
  void turn() {
    const size_t at = active_.size() == 1 ? 0 : (next_random(random_) >> 33) % active_.size();
    Place& place = *active_[at];
    Block& block = place.block;
    block.phases_left = active_.size() == 1 ? -1 : 1 + static_cast<int>(next_random(random_) >> 62);
    enter(block);
    if (block.live == 0) {
      block.shared->end_block();
      waits_ = 0;
      if (begun_ < total_) {
        begin_block(place);
      } else {
        active_.erase(active_.begin() + static_cast<ptrdiff_t>(at));
      }
      return;
    }
    if (block.warps_ready != 0) {
      waits_ = 0;
      return;
    }
    end_yields(block);
    if (block.warps_ready == 0) die_stuck(block);
    if (++waits_ > 4 * active_.size()) wait_for_others(block);
  }

  void enter(Block& block) {
    blockIdx = block.index;
    blockDim = block.shape;
    gridDim = block.grid_shape;
    const int turn = static_cast<int>(next_random(block.random) >> 59);
    const uint32_t rotated = std::rotr(block.warps_ready, turn);
    Warp& warp = block.warps[(std::countr_zero(rotated) + turn) & 31];
    const auto first = static_cast<uint32_t>(std::countr_zero(warp.ready));
    warp.ready &= warp.ready - 1;
    switch_lane(block.root, warp.lanes[index_of(warp, first)]);
    current_lane = nullptr;
  }

  // Every block of the grid spins: what they wait for must come from another host thread.
  void wait_for_others(Block& block) {
    using Clock = std::chrono::steady_clock;
    if (waits_ == 4 * active_.size() + 1) spinning_since_ = Clock::now();
    std::this_thread::yield();
    if (waits_ % 256 != 0) return;
    if (Clock::now() - spinning_since_ < std::chrono::seconds(spin_limit_seconds())) return;
    current_lane = &block.lanes[0];
    die("and all other blocks under way (%zu of %llu) have waited for %d s, and nothing came",
        active_.size(), static_cast<unsigned long long>(total_), spin_limit_seconds());
  }

  const GridRun& run_;
  uint64_t random_;
  uint64_t total_ = 0;
  uint64_t begun_ = 0;
  int threads_ = 0;
  uint64_t waits_ = 0;  // turns in a row that only waited
  std::chrono::steady_clock::time_point spinning_since_;
  std::vector<Place*> active_;
};

}  // namespace

void run_grid(const GridRun& run) {
  if (machine.running) die("a launch inside a launch");
  install_fault_handler();
  machine.running = true;
  GridRunner(run).run();
  machine.running = false;
}

void* static_shared_bytes(const SharedKey* key, size_t bytes) {
  return current_lane->block->shared->find(key, bytes);
}

void* dynamic_shared() {
  return current_lane->block->shared->dynamic();
}

void check_aligned(const void* address, size_t bytes, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % bytes == 0) return;
  die("calls %s with address %p, which is not a multiple of %zu", what, address, bytes);
}

void die(const char* format, ...) {
  std::fputs("emulated CUDA: ", stderr);
  if (current_lane != nullptr) {
    const uint3& b = current_lane->block->index;
    const uint3& t = current_lane->thread_index;
    std::fprintf(stderr, "block (%u,%u,%u) thread (%u,%u,%u) ", b.x, b.y, b.z, t.x, t.y, t.z);
  }
  va_list list;
  va_start(list, format);
  std::vfprintf(stderr, format, list);
  va_end(list);
  std::fprintf(stderr, " [seed %llu]\n", static_cast<unsigned long long>(seed()));
  std::fflush(stderr);
  std::abort();
}

}  // namespace quire::cuda_emulation
