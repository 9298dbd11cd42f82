#include "kernels/cuda/queue.h"

#include <sched.h>

#include <utility>

#include "kernels/cuda/status.h"

namespace quire::cuda {

absl::StatusOr<std::unique_ptr<Queue>> Queue::open() {
  auto queue = std::unique_ptr<Queue>(new Queue());
  const cudaError_t error = cudaStreamCreateWithFlags(&queue->stream_, cudaStreamNonBlocking);
  if (error != cudaSuccess) return to_status(error, "making a stream");
  return queue;
}

Queue::~Queue() {
  if (stream_ == nullptr) return;
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

void Queue::fail(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  if (first_error_.ok()) first_error_ = status;
  failed_ = true;
}

void Queue::check(cudaError_t error, absl::string_view what) {
  if (error != cudaSuccess) fail(to_status(error, what));
}

void Queue::copy(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "a copy");
}

void Queue::run_task(void* argument) {
  Task* task = static_cast<Task*>(argument);
  if (task->queue->failed_) return;
  if (absl::Status status = task->run(); !status.ok()) task->queue->fail(status);
}

void Queue::host_task(std::function<absl::Status()> task) {
  tasks_.push_back({this, std::move(task)});
  check(cudaLaunchHostFunc(stream_, run_task, &tasks_.back()), "a host task");
}

absl::Status Queue::wait(const std::function<absl::Status()>& watch) {
  cudaError_t state = cudaStreamQuery(stream_);
  while (state == cudaErrorNotReady) {
    if (watch) {
      // A collective that gave up has freed its kernels from waiting: the stream runs empty.
      if (absl::Status status = watch(); !status.ok()) fail(status);
    }
    sched_yield();
    state = cudaStreamQuery(stream_);
  }
  check(state, "the step");
  if (watch) {
    if (absl::Status status = watch(); !status.ok()) fail(status);
  }
  tasks_.clear();
  failed_ = false;
  return std::exchange(first_error_, absl::OkStatus());
}

}  // namespace quire::cuda
