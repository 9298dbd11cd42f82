// A persistent team of threads that runs a list of commands as one parallel region. Every thread
// executes every command with its own index, and a barrier stands between two commands, unless both
// treat equally many rows one by one. The caller of run() is thread 0. Between runs the others
// sleep in the kernel: an idle server uses no CPU. All threads compute with the same MXCSR (round
// to nearest, subnormals kept).
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace quire::cpu {

// One of the two functions is set.
struct Command {
  std::function<void(int thread, int num_threads)> compute;
  std::function<absl::Status()> host;  // on thread 0 alone
  // If not 0: compute divides so many rows by share_of() (share.h), writes its own rows alone, and
  // reads no others that neighbouring commands of as many rows write.
  int rows = 0;
};

class Team {
 public:
  explicit Team(int num_threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return num_threads_; }

  // Runs the commands in order. A host command's error drops the commands after it and is returned.
  absl::Status run(absl::Span<const Command> commands);

 private:
  void work(int thread);      // the life of thread 1..size-1
  void run_list(int thread);  // one thread's pass over the list
  void meet(std::uint32_t& phase);

  const int num_threads_;
  absl::Span<const Command> commands_;
  absl::Status status_;           // written by thread 0 alone
  std::atomic<int> failed_at_{};  // index of the host command that failed, or INT_MAX

  // Each on a cache line of its own.
  alignas(64) std::atomic<std::uint32_t> runs_{0};  // lists started; the last one ends the threads
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<std::uint32_t> phase_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace quire::cpu
