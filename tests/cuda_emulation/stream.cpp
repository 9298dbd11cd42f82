// The order of work: queues, captures, and what is refused while one is under way.
#include "tests/cuda_emulation/stream.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <string_view>

#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/launch.h"

namespace quire::cuda_emulation {
namespace {

StreamMode first_mode() {
  const char* text = std::getenv("QUIRE_EMULATION_STREAMS");
  const bool deferred = text != nullptr && std::string_view(text) == "deferred";
  return deferred ? StreamMode::kDeferred : StreamMode::kEager;
}

std::atomic<StreamMode> stream_mode{first_mode()};
std::atomic<int> global_captures{0};
thread_local std::vector<Capture*> captures_of_thread;
thread_local bool host_function_runs = false;

std::mutex default_mutex;

std::map<int, std::unique_ptr<CUstream_st>>& default_streams() {
  static auto* streams = new std::map<int, std::unique_ptr<CUstream_st>>;
  return *streams;
}

}  // namespace

void set_stream_mode(StreamMode mode) {
  stream_mode = mode;
}

CUstream_st* resolve(cudaStream_t stream) {
  if (stream != nullptr && stream != cudaStreamLegacy && stream != cudaStreamPerThread) {
    return stream;
  }
  const std::lock_guard lock(default_mutex);
  auto& own = default_streams()[current_device()];
  if (own == nullptr) {
    own = std::make_unique<CUstream_st>();
    own->device = current_device();
  }
  return own.get();
}

bool run_one(CUstream_st& stream) {
  const std::lock_guard lock(stream.mutex);
  if (stream.queue.empty()) return false;
  const Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  work();
  return true;
}

void drain(CUstream_st& stream) {
  while (run_one(stream)) {
  }
}

void drain_until(CUstream_st& stream, const Moment& moment) {
  while (!moment.passed && run_one(stream)) {
  }
}

cudaError_t enqueue(cudaStream_t handle, std::function<void()> work) {
  if (in_host_function()) return failed(cudaErrorNotPermitted);
  CUstream_st& stream = *resolve(handle);
  if (stream.device != current_device()) return failed(cudaErrorInvalidResourceHandle);
  const std::lock_guard lock(stream.mutex);
  if (stream.capture != nullptr) {
    if (!stream.capture->valid) return failed(cudaErrorStreamCaptureInvalidated);
    stream.capture->nodes.push_back(std::move(work));
    stream.joined = false;
    return cudaSuccess;
  }
  if (&stream != handle) drain_blocking(stream.device);
  if (stream_mode == StreamMode::kDeferred) {
    stream.queue.push_back(std::move(work));
    if (&stream != handle) drain(stream);
    return cudaSuccess;
  }
  drain(stream);
  work();
  return cudaSuccess;
}

cudaError_t refuse_in_capture() {
  if (in_host_function()) return failed(cudaErrorNotPermitted);
  bool refused = global_captures > 0;
  for (Capture* capture : captures_of_thread) {
    if (capture->mode == cudaStreamCaptureModeRelaxed) continue;
    capture->valid = false;
    refused = true;
  }
  return refused ? failed(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

bool in_host_function() {
  return host_function_runs;
}

void run_host_function(cudaHostFn_t function, void* data) {
  host_function_runs = true;
  function(data);
  host_function_runs = false;
}

std::shared_ptr<Capture> begin_capture(CUstream_st& stream, cudaStreamCaptureMode mode) {
  auto capture = std::make_shared<Capture>();
  capture->mode = mode;
  capture->origin = &stream;
  capture->streams.push_back(&stream);
  if (mode == cudaStreamCaptureModeGlobal) ++global_captures;
  captures_of_thread.push_back(capture.get());
  return capture;
}

void leave_capture(Capture& capture) {
  if (capture.mode == cudaStreamCaptureModeGlobal) --global_captures;
  std::erase(captures_of_thread, &capture);
  for (CUstream_st* stream : capture.streams) stream->capture = nullptr;
}

}  // namespace quire::cuda_emulation
