// The barrier spins for well under a microsecond and then yields: ranks may share a core, and a
// thread that spins on would keep the very thread it waits for from running. Where a yield hands
// the core to somebody else's work it comes back milliseconds later, while a thread that sleeps is
// woken at once: so after a while it sleeps.
#include "kernels/cpu/team.h"

#include <immintrin.h>
#include <sched.h>

#include <chrono>
#include <limits>

#include "common/check.h"

namespace quire::cpu {
namespace {

constexpr int kSpins = 16;
constexpr std::chrono::microseconds kYields(200);
constexpr int kNoFailure = std::numeric_limits<int>::max();
constexpr unsigned kMxcsr = 0x1f80;  // exceptions masked, nearest even, no flush to zero

// How many commands from the first one on divide their rows as it does.
std::size_t run_length(absl::Span<const Command> commands) {
  std::size_t n = 1;
  while (n < commands.size() && commands[n].by_rows != nullptr &&
         commands[n].shares == commands[0].shares) {
    ++n;
  }
  return n;
}

}  // namespace

Team::Team(int num_threads) : num_threads_(num_threads) {
  QUIRE_CHECK_GT(num_threads, 0);
  for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this, i] { work(i); });
}

Team::~Team() {
  stopping_.store(true, std::memory_order_relaxed);
  runs_.fetch_add(1, std::memory_order_release);
  runs_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status Team::run(absl::Span<const Command> commands) {
  if (commands.empty()) return absl::OkStatus();
  const unsigned callers_mxcsr = _mm_getcsr();
  _mm_setcsr(kMxcsr);
  commands_ = commands;
  status_ = absl::OkStatus();
  failed_at_.store(kNoFailure, std::memory_order_relaxed);
  runs_.fetch_add(1, std::memory_order_release);
  if (num_threads_ > 1) runs_.notify_all();
  run_list(0);
  _mm_setcsr(callers_mxcsr);
  return status_;
}

void Team::work(int thread) {
  _mm_setcsr(kMxcsr);
  for (std::uint32_t seen = 0;;) {
    runs_.wait(seen, std::memory_order_acquire);
    ++seen;  // a run cannot end without this thread, so it sees every one
    if (stopping_.load(std::memory_order_relaxed)) return;
    run_list(thread);
  }
}

void Team::run_list(int thread) {
  // Once a thread has passed the last barrier the caller may already be building the next list, so
  // nothing of this one is read after it.
  const absl::Span<const Command> commands = commands_;
  std::uint32_t phase = phase_.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < commands.size();) {
    const Command& command = commands[i];
    const bool host = command.host != nullptr;
    std::size_t next = i + 1;
    if (command.by_rows != nullptr) {
      next = i + run_length(commands.subspan(i));
      run_rows(commands.subspan(i, next - i), thread);
    } else if (!host) {
      command.compute(thread, num_threads_);
    } else if (thread == 0) {
      status_ = command.host();
      if (!status_.ok()) failed_at_.store(static_cast<int>(i), std::memory_order_relaxed);
    }
    const bool last = next == commands.size();
    meet(phase);
    // Thread 0 may be ahead and have failed a later command: only this one's failure counts here.
    if (host && !last && failed_at_.load(std::memory_order_relaxed) == static_cast<int>(i)) {
      meet(phase);  // nobody still looks when the next run resets it
      return;
    }
    i = next;
  }
}

void Team::run_rows(absl::Span<const Command> commands, int thread) {
  const RowShares& shares = *commands[0].shares;
  for (std::size_t i = 0; i < commands.size();) {
    std::size_t end = i + 1;
    if (!commands[i].begins_groups) {
      commands[i].by_rows(shares.of(thread), thread);
    } else {
      while (end < commands.size() && commands[end].may_be_grouped) ++end;
      for (int g = 0; g < shares.num_groups(thread); ++g) {
        for (std::size_t c = i; c < end; ++c) commands[c].by_rows(shares.group(thread, g), thread);
      }
    }
    i = end;
  }
}

void Team::meet(std::uint32_t& phase) {
  if (num_threads_ == 1) return;
  const std::uint32_t old = phase++;
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase, std::memory_order_release);
    phase_.notify_all();  // no more than a look where nobody sleeps
    return;
  }
  for (int spins = 0; spins < kSpins; ++spins) {
    if (phase_.load(std::memory_order_acquire) != old) return;
    _mm_pause();
  }
  const auto sleep_at = std::chrono::steady_clock::now() + kYields;
  while (phase_.load(std::memory_order_acquire) == old) {
    if (std::chrono::steady_clock::now() < sleep_at) {
      sched_yield();
    } else {
      phase_.wait(old, std::memory_order_acquire);
    }
  }
}

}  // namespace quire::cpu
