// One CUDA stream with host tasks in it, and the first error of whatever was enqueued: kernels that
// could not be launched, tasks that failed, a collective that gave up. One thread enqueues and
// waits; tasks run on a thread of CUDA's.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire::cuda {

class Queue {
 public:
  static absl::StatusOr<std::unique_ptr<Queue>> open();
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  cudaStream_t stream() const { return stream_; }
  // Takes note of an enqueue that failed; `what` as in to_status().
  void check(cudaError_t error, absl::string_view what);
  // Captures what `record` enqueues. What fails meanwhile is the capture's failure and no other.
  cudaError_t capture(const std::function<void()>& record, cudaGraph_t& graph);
  bool capturing() const { return capturing_; }
  void copy(void* to, const void* from, std::size_t bytes);
  // Skipped once anything has failed.
  void host_task(std::function<absl::Status()> task);
  // What was enqueued since the last call is a step; two may be unfinished.
  void end_step();
  bool step_has_run();  // the oldest unfinished one
  // Until the oldest unfinished step has run, or the stream is empty, or `watch` (may be null)
  // reports an error; the first error of all.
  absl::Status wait_step(const std::function<absl::Status()>& watch);
  absl::Status wait(const std::function<absl::Status()>& watch);
  int unfinished_steps() const { return static_cast<int>(steps_.size()); }

 private:
  struct Task {
    Queue* queue;
    std::function<absl::Status()> run;
  };
  struct Step {
    cudaEvent_t end;
    std::size_t num_tasks;
  };
  static constexpr std::size_t kSteps = 2;
  Queue() = default;
  absl::Status open_stream();
  static void run_task(void* task);
  void fail(const absl::Status& status);
  absl::Status wait_for(const std::function<cudaError_t()>& state,
                        const std::function<absl::Status()>& watch);

  cudaStream_t stream_ = nullptr;
  std::deque<Task> tasks_;  // of unfinished steps and the one begun; addresses are stable
  std::size_t tasks_in_steps_ = 0;
  std::deque<Step> steps_;  // unfinished, oldest first
  cudaEvent_t ends_[kSteps] = {};
  std::size_t next_end_ = 0;
  std::mutex mutex_;
  absl::Status first_error_;
  std::atomic<bool> failed_ = false;
  bool capturing_ = false;
};

}  // namespace quire::cuda
