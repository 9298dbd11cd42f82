#include "kernels/cuda/queue.h"

#include <sched.h>

#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "kernels/cuda/status.h"

namespace quire::cuda {

absl::Status Queue::open_stream() {
  QUIRE_RETURN_IF_ERROR(
      to_status(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"));
  for (cudaEvent_t& end : ends_) {
    QUIRE_RETURN_IF_ERROR(
        to_status(cudaEventCreateWithFlags(&end, cudaEventDisableTiming), "making an event"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Queue>> Queue::open() {
  auto queue = std::unique_ptr<Queue>(new Queue());
  QUIRE_RETURN_IF_ERROR(queue->open_stream());
  return queue;
}

Queue::~Queue() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (cudaEvent_t end : ends_) {
    if (end != nullptr) cudaEventDestroy(end);
  }
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void Queue::fail(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  if (first_error_.ok()) first_error_ = status;
  failed_ = true;
}

void Queue::check(cudaError_t error, absl::string_view what) {
  if (error != cudaSuccess && !capturing_) fail(to_status(error, what));
}

// Of this thread alone: a watchdog may call the driver meanwhile.
cudaError_t Queue::capture(const std::function<void()>& record, cudaGraph_t& graph) {
  graph = nullptr;
  const cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
  if (error != cudaSuccess) return error;
  capturing_ = true;
  record();
  capturing_ = false;
  return cudaStreamEndCapture(stream_, &graph);
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
  QUIRE_CHECK(!capturing_);  // the task would be gone when the graph runs
  tasks_.push_back({this, std::move(task)});
  check(cudaLaunchHostFunc(stream_, run_task, &tasks_.back()), "a host task");
}

void Queue::end_step() {
  QUIRE_CHECK_LT(steps_.size(), kSteps);
  cudaEvent_t end = ends_[next_end_];
  next_end_ = (next_end_ + 1) % kSteps;
  check(cudaEventRecord(end, stream_), "the end of a step");
  steps_.push_back({end, tasks_.size() - tasks_in_steps_});
  tasks_in_steps_ = tasks_.size();
}

bool Queue::step_has_run() {
  QUIRE_CHECK(!steps_.empty());
  return cudaEventQuery(steps_.front().end) != cudaErrorNotReady;
}

absl::Status Queue::wait_for(const std::function<cudaError_t()>& ask,
                             const std::function<absl::Status()>& watch) {
  cudaError_t state = ask();
  while (state == cudaErrorNotReady) {
    if (watch) {
      // A collective that gave up has freed its kernels from waiting: the stream runs empty.
      if (absl::Status status = watch(); !status.ok()) fail(status);
    }
    sched_yield();
    state = ask();
  }
  check(state, "the step");
  if (watch) {
    if (absl::Status status = watch(); !status.ok()) fail(status);
  }
  const std::lock_guard lock(mutex_);
  return first_error_;
}

absl::Status Queue::wait_step(const std::function<absl::Status()>& watch) {
  QUIRE_CHECK(!steps_.empty());
  const Step step = steps_.front();
  const absl::Status status = wait_for([&step] { return cudaEventQuery(step.end); }, watch);
  if (!status.ok()) return wait(watch);  // whatever follows is dropped
  steps_.pop_front();
  tasks_.erase(tasks_.begin(), tasks_.begin() + static_cast<std::ptrdiff_t>(step.num_tasks));
  tasks_in_steps_ -= step.num_tasks;
  return status;
}

absl::Status Queue::wait(const std::function<absl::Status()>& watch) {
  static_cast<void>(wait_for([this] { return cudaStreamQuery(stream_); }, watch));
  tasks_.clear();
  steps_.clear();
  tasks_in_steps_ = 0;
  const std::lock_guard lock(mutex_);
  failed_ = false;
  return std::exchange(first_error_, absl::OkStatus());
}

}  // namespace quire::cuda
