// Memory that the system hands out for the first time is cleared when it is first touched, and on a
// virtual machine the host has to find it first: from 0.1 to 2.3 s a GB were measured. So while a
// device has nothing to run, a thread of its own touches what will be written next. What is touched
// keeps its contents.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>

namespace quire::cpu {

class ClearAhead {
 public:
  // No more than `lead_bytes` from the start of what is expected are touched.
  explicit ClearAhead(std::size_t lead_bytes) : lead_bytes_(lead_bytes) {}
  ~ClearAhead();
  ClearAhead(const ClearAhead&) = delete;
  ClearAhead& operator=(const ClearAhead&) = delete;

  // [begin, begin + bytes), all of it mapped until forget(), is written next, from the front;
  // takes the place of what was expected before. Whole pages of it are touched. The first call
  // starts the thread.
  void expect(std::byte* begin, std::size_t bytes);
  // Nothing is expected any more; returns when nothing is being touched.
  void forget();

  // Between the two nothing is touched, but for a piece that was begun.
  void begin_run() { runs_.fetch_add(1, std::memory_order_relaxed); }
  void end_run() { runs_.fetch_add(1, std::memory_order_relaxed); }

 private:
  void work();
  void touch_while_idle(std::unique_lock<std::mutex>& lock, std::uint32_t seen);

  const std::size_t lead_bytes_;
  std::atomic<std::uint32_t> runs_{0};  // begun and ended: odd while one runs
  std::mutex mutex_;
  std::condition_variable news_;
  std::uintptr_t next_ = 0, end_ = 0;  // what is left to touch
  bool touching_ = false;              // a piece, without the lock
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace quire::cpu
