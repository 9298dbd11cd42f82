// Faults of kernels: SIGSEGV and SIGBUS while a lane runs end the process with a sentence that
// names the allocation, the shared array or the stack. Faults outside kernels that hit guarded
// memory are named too; all others go to whoever handled them before.
#include <signal.h>
#include <ucontext.h>

#include <cstdlib>
#include <mutex>

#include "tests/cuda_emulation/guard.h"
#include "tests/cuda_emulation/guard_registry.h"
#include "tests/cuda_emulation/lane.h"
#include "tests/cuda_emulation/shared_memory.h"

namespace quire::cuda_emulation {
namespace {

struct sigaction previous_segv;
struct sigaction previous_bus;

// The signal's stack: a lane may have overflown its own.
struct SignalStack {
  SignalStack() {
    stack_t now = {};
    if (sigaltstack(nullptr, &now) != 0 || (now.ss_flags & SS_DISABLE) == 0) return;
    stack_t ours = {};
    ours.ss_sp = memory = std::malloc(kBytes);
    ours.ss_size = kBytes;
    if (memory != nullptr) sigaltstack(&ours, nullptr);
  }
  ~SignalStack() {
    if (memory == nullptr) return;
    stack_t off = {};
    off.ss_flags = SS_DISABLE;
    sigaltstack(&off, nullptr);
    std::free(memory);
  }
  static constexpr size_t kBytes = 64 * 1024;
  void* memory = nullptr;
};

const char* access_name(const void* context) {
#if defined(__x86_64__)
  const auto* state = static_cast<const ucontext_t*>(context);
  return (state->uc_mcontext.gregs[REG_ERR] & 2) != 0 ? "writes" : "reads";
#else
  static_cast<void>(context);
  return "touches";
#endif
}

void die_by_allocation(const Allocation& a, const char* at, const char* access) {
  if (a.freed) die("%s %s, which is gone", access, describe(a).c_str());
  if (at >= a.at + a.bytes) {
    die("%s %td bytes behind the end of %s", access, at - a.at - static_cast<ptrdiff_t>(a.bytes),
        describe(a).c_str());
  }
  die("%s %td bytes before the start of %s", access, a.at - at, describe(a).c_str());
}

void explain(const char* at, const char* access) {
  Registry& r = registry();
  if (r.mutex.try_lock()) {
    const Allocation* live = r.holding(at);
    for (const Allocation& a : r.freed) {
      if (live == nullptr && at >= a.base && at < a.base + a.mapped) live = &a;
    }
    if (live != nullptr) die_by_allocation(*live, at, access);
    r.mutex.unlock();
  }
  if (current_lane == nullptr) return;
  if (const char* owner = current_lane->block->shared->owner_of(at)) {
    die("%s outside of shared array '%s'", access, owner);
  }
  const char* low = static_cast<const char*>(current_lane->stack_low);
  if (low != nullptr && at < low && at + 65536 > low) {
    die("has used up its stack of %zu bytes", current_lane->stack_bytes);
  }
  die("%s address %p, which is no device memory (or is not aligned as its type must be)", access,
      static_cast<const void*>(at));
}

void on_fault(int signal, siginfo_t* info, void* context) {
  explain(static_cast<const char*>(info->si_addr), access_name(context));
  sigaction(signal, signal == SIGSEGV ? &previous_segv : &previous_bus, nullptr);
}

}  // namespace

void install_fault_handler() {
  thread_local SignalStack stack;
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &previous_segv);
    sigaction(SIGBUS, &action, &previous_bus);
  });
}

}  // namespace quire::cuda_emulation
