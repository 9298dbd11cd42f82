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
  void copy(void* to, const void* from, std::size_t bytes);
  // Skipped once anything has failed.
  void host_task(std::function<absl::Status()> task);
  // Until the stream is empty or `watch` (may be null) reports an error; the first error of all.
  absl::Status wait(const std::function<absl::Status()>& watch);

 private:
  struct Task {
    Queue* queue;
    std::function<absl::Status()> run;
  };
  Queue() = default;
  static void run_task(void* task);
  void fail(const absl::Status& status);

  cudaStream_t stream_ = nullptr;
  std::deque<Task> tasks_;  // of this step; addresses are stable
  std::mutex mutex_;
  absl::Status first_error_;
  std::atomic<bool> failed_ = false;
};

}  // namespace quire::cuda
