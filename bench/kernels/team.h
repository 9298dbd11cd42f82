// A few threads that start together again and again: what the CPU device's own team does, without
// the rest of the device.
#pragma once

#include <time.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace quire::bench {

// Seconds of the wall's clock, or of the calling thread on a processor.
inline double clock_seconds(bool cpu_time) {
  timespec t{};
  clock_gettime(cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Spins for some microseconds until `size` threads have arrived, then yields; reusable.
class SpinBarrier {
 public:
  explicit SpinBarrier(int size) : size_(size) {}
  void arrive_and_wait() {
    const unsigned phase = phase_.load();
    if (arrived_.fetch_add(1) + 1 == size_) {
      arrived_.store(0);
      phase_.store(phase + 1);
      return;
    }
    for (int spins = 0; phase_.load() == phase; ++spins) {
      if (spins < 100) {
        __builtin_ia32_pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  const int size_;
  std::atomic<int> arrived_{0};
  std::atomic<unsigned> phase_{0};
};

class Team {
 public:
  explicit Team(int size) : size_(size), barrier_(size) {
    for (int i = 1; i < size; ++i) {
      threads_.emplace_back([this, i] {
        for (;;) {
          barrier_.arrive_and_wait();
          if (stop_) return;
          work_(i, *this);
          barrier_.arrive_and_wait();
        }
      });
    }
  }
  ~Team() {
    stop_ = true;
    barrier_.arrive_and_wait();
    for (std::thread& thread : threads_) thread.join();
  }
  int size() const { return size_; }

  // work(thread, team) on every thread; returns when all are done.
  void run(std::function<void(int, Team&)> work) {
    work_ = std::move(work);
    barrier_.arrive_and_wait();
    work_(0, *this);
    barrier_.arrive_and_wait();
  }
  // Inside work: waits for the others.
  void meet() { barrier_.arrive_and_wait(); }

 private:
  const int size_;
  SpinBarrier barrier_;
  std::atomic<bool> stop_{false};
  std::function<void(int, Team&)> work_;
  std::vector<std::thread> threads_;
};

}  // namespace quire::bench
