// A persistent team of threads that runs a list of commands as one parallel region. Every thread
// executes every command with its own index, and a barrier stands between two commands, unless both
// treat the rows one by one and divide them alike. The caller of run() is thread 0. Between runs
// the others sleep in the kernel: an idle server uses no CPU. All threads compute with the same
// MXCSR (round to nearest, subnormals kept).
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/shard.h"
#include "kernels/cpu/share.h"

namespace quire::cpu {

// One of the three functions is set.
struct Command {
  std::function<void(int thread, int num_threads)> compute = nullptr;
  std::function<absl::Status()> host = nullptr;  // on thread 0 alone
  // Called for runs of rows that together are the thread's share. It writes those rows alone, and
  // reads no others that neighbouring commands of the same shares write.
  std::function<void(Range run, int thread)> by_rows = nullptr;
  std::shared_ptr<const RowShares> shares = nullptr;  // of by_rows
  // A thread does a command that begins groups and its neighbours after it, as far as they may be
  // grouped, with one group of its rows after the other.
  bool begins_groups = false;
  bool may_be_grouped = false;
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
  // Neighbours of the same shares.
  static void run_rows(absl::Span<const Command> commands, int thread);
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
