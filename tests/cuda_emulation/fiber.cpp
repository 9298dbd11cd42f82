// Fibers over Boost.Context's jump_fcontext. AddressSanitizer is told of every switch.
#include "tests/cuda_emulation/fiber.h"

#include <sys/mman.h>

#include <boost/context/detail/fcontext.hpp>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace quire::cuda_emulation {
namespace {

namespace context = boost::context::detail;

constexpr size_t kPage = 4096;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 512 * 1024;
#else
constexpr size_t kStackBytes = 128 * 1024;
#endif
constexpr size_t kStride = kStackBytes + kPage;
constexpr size_t kStagger = 16 * 1024;

void arrive(context::transfer_t from) {
  auto* left = static_cast<Lane*>(from.data);
  left->context = from.fctx;
#if defined(__SANITIZE_ADDRESS__)
  const void* low = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(current_lane->fake_stack, &low, &bytes);
  if (left->stack_low == nullptr) {  // the launching thread's own stack, learnt here
    left->stack_low = low;
    left->stack_bytes = bytes;
  }
#endif
}

void begin(context::transfer_t from) {
  arrive(from);
  lane_main();
}

}  // namespace

StackArena::~StackArena() {
  unmap();
}

void StackArena::unmap() {
  if (base_ == nullptr) return;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(base_, static_cast<size_t>(count_) * kStride);
#endif
  munmap(base_, static_cast<size_t>(count_) * kStride);
}

void StackArena::reserve(int count) {
  if (count <= count_) return;
  unmap();
  void* memory = mmap(nullptr, count * kStride, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) die("no memory for the stacks of a block of %d threads", count);
  base_ = static_cast<char*>(memory);
  count_ = count;
  for (int i = 0; i < count; ++i) {
    if (mprotect(base_ + i * kStride, kPage, PROT_NONE) != 0) {
      die("cannot protect the stacks of a block of %d threads: raise vm.max_map_count", count);
    }
  }
}

void StackArena::prepare(int i, Lane& lane) {
  char* low = base_ + i * kStride + kPage;
  const size_t stagger = static_cast<size_t>(i) * 832 % kStagger & ~size_t{63};
  lane.stack_low = low;
  lane.stack_bytes = kStackBytes - stagger;
  lane.fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(low, kStackBytes);  // frames of the fiber before
#endif
  lane.context = context::make_fcontext(low + lane.stack_bytes, lane.stack_bytes, begin);
}

void switch_lane(Lane& from, Lane& to) {
  current_lane = &to;
  threadIdx = to.thread_index;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_low, to.stack_bytes);
#endif
  arrive(context::jump_fcontext(to.context, &from));
}

}  // namespace quire::cuda_emulation
