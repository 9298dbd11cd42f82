// A run is not told to the thread: waking it with each step would cost more than it saves. It looks
// now and then, and takes a device as idle that has not run in between.
#include "kernels/cpu/clear_ahead.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>

#include "kernels/host_memory.h"

namespace quire::cpu {
namespace {

constexpr std::chrono::milliseconds kQuiet(10);
constexpr std::uintptr_t kPiece = kHostHugePage;  // what a run may wait for

}  // namespace

ClearAhead::~ClearAhead() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  news_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ClearAhead::expect(std::byte* begin, std::size_t bytes) {
  if (lead_bytes_ == 0) return;
  const auto first = reinterpret_cast<std::uintptr_t>(begin);
  const std::uintptr_t from = (first + kHostPage - 1) / kHostPage * kHostPage;
  const std::uintptr_t to = (first + std::min(bytes, lead_bytes_)) / kHostPage * kHostPage;
  const std::lock_guard lock(mutex_);
  const bool idle = next_ >= end_;
  if (next_ < from || next_ > to) next_ = from;  // else: up to next_ it is done
  end_ = to;
  if (!thread_.joinable()) {
    thread_ = std::thread([this] { work(); });
  } else if (idle) {
    news_.notify_all();
  }
}

void ClearAhead::forget() {
  std::unique_lock lock(mutex_);
  next_ = end_ = 0;
  news_.wait(lock, [this] { return !touching_; });
}

void ClearAhead::work() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (next_ >= end_) {
      news_.wait(lock);
      continue;
    }
    const std::uint32_t seen = runs_.load(std::memory_order_relaxed);
    news_.wait_for(lock, kQuiet, [this] { return stopping_; });
    if (seen % 2 == 0) touch_while_idle(lock, seen);
  }
}

// Where the system cannot (before Linux 5.14), memory is touched by whoever uses it, as ever.
void ClearAhead::touch_while_idle(std::unique_lock<std::mutex>& lock, std::uint32_t seen) {
  while (!stopping_ && next_ < end_ && runs_.load(std::memory_order_relaxed) == seen) {
    const std::uintptr_t begin = next_;
    next_ = std::min(end_, (begin / kPiece + 1) * kPiece);
    touching_ = true;
    const std::uintptr_t bytes = next_ - begin;
    lock.unlock();
    madvise(reinterpret_cast<void*>(begin), bytes, MADV_POPULATE_WRITE);
    lock.lock();
    touching_ = false;
    news_.notify_all();
  }
}

}  // namespace quire::cpu
