// The parts of the execution model that device code touches directly: the lane (one thread of a
// block, a fiber) that runs now, its warp and its block. Everything of a launch lives on the OS
// thread that launched; lanes run one at a time there, and switch only inside the calls below.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

// The built-in variables, kept up to date at every switch.
extern constinit thread_local uint3 threadIdx [[gnu::tls_model("initial-exec")]];
extern constinit thread_local uint3 blockIdx [[gnu::tls_model("initial-exec")]];
extern constinit thread_local dim3 blockDim [[gnu::tls_model("initial-exec")]];
extern constinit thread_local dim3 gridDim [[gnu::tls_model("initial-exec")]];

namespace quire::cuda_emulation {

struct Block;
struct Warp;
class SharedMemory;

// A named static shared array in the source; its address is its identity.
struct SharedKey {
  const char* name;
};

// One cp.async under way: zeros where `from` is null.
struct PendingCopy {
  void* to;
  const void* from;
  uint32_t bytes;
  uint32_t group;
};

enum class LaneState : uint8_t { kReady, kAtBarrier, kAtWarpOperation, kExited };

struct Lane {
  uint3 thread_index = {};
  Block* block = nullptr;
  Warp* warp = nullptr;
  void* context = nullptr;  // where the fiber goes on
  uint8_t index = 0;        // within the warp
  LaneState state = LaneState::kReady;
  const char* waits_at = "";  // what the lane waits in: for the sentence of an abort
  int waits_at_line = 0;
  uint32_t copy_group = 0;  // the group that the next commit closes
  std::vector<PendingCopy> copies;
  void* fake_stack = nullptr;  // AddressSanitizer's
  const void* stack_low = nullptr;
  size_t stack_bytes = 0;
};

// What a warp operation runs once all lanes of its mask have arrived: `args[i]` is lane i's record,
// null where the mask does not name it. Runs while all these lanes stand still.
using WarpFunction = void (*)(void* const* args, uint32_t mask);

struct WarpOperation {
  uint32_t mask = 0;
  uint32_t arrived = 0;
  WarpFunction function = nullptr;
  const char* name = "";
  void* args[32] = {};
};

// Lanes are numbered twice: by index, and by their turn in the order of this run, in which
// turn t is lane (t * stride + start) % 32. `ready` and `yielded` are sets of turns.
struct Warp {
  Lane* lanes = nullptr;
  uint32_t existing = 0;  // by index, as are `exited` and masks
  uint32_t exited = 0;
  uint32_t ready = 0;
  uint32_t yielded = 0;
  uint32_t stride = 1;
  uint32_t inverse = 1;
  uint32_t start = 0;
  uint32_t bit = 0;  // of this warp in the block's sets
  uint32_t open = 0;
  WarpOperation operations[32];
};

struct Block {
  uint3 index = {};
  dim3 shape;
  dim3 grid_shape;
  int threads = 0;
  int live = 0;
  int at_barrier = 0;
  const char* barrier_file = "";
  int barrier_line = 0;
  int barrier_count = 0;  // of true predicates, this time and last time
  int barrier_result = 0;
  int phases_left = 0;  // barriers until another block's turn
  uint32_t warps_ready = 0;
  uint64_t random = 0;
  void (*run)(void*) = nullptr;
  void* closure = nullptr;
  std::vector<Lane> lanes;
  std::vector<Warp> warps;
  Lane root;  // the launching thread, in the fibers' eyes
  std::unique_ptr<SharedMemory> shared;
};

extern constinit thread_local Lane* current_lane [[gnu::tls_model("initial-exec")]];

inline Block* current_block() {
  return current_lane->block;
}

void block_barrier(const char* file, int line);
int block_count(bool predicate, const char* file, int line);
void warp_operation(uint32_t mask, void* args, WarpFunction function, const char* name);

// Lets everything else run before this lane goes on: the body of a spinning loop.
void yield_lane();
// Sometimes, by the seed, lets another lane go first.
void perhaps_yield();

void* static_shared_bytes(const SharedKey* key, size_t bytes);
void* dynamic_shared();
template <typename T>
T& static_shared(const SharedKey* key) {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);
  static_assert(alignof(T) <= 128);
  return *static_cast<T*>(static_shared_bytes(key, sizeof(T)));
}

void check_aligned(const void* address, size_t bytes, const char* what);

// Ends the process with a sentence that names the kernel thread that runs now, if any.
[[noreturn]] void die(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace quire::cuda_emulation
