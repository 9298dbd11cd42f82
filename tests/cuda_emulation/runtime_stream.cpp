// cudaStream*, cudaEvent*, cudaLaunchHostFunc.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <set>

#include "tests/cuda_emulation/launch.h"
#include "tests/cuda_emulation/stream.h"

namespace quire::cuda_emulation {
namespace {

std::mutex streams_mutex;

std::set<CUstream_st*>& streams() {
  static auto* all = new std::set<CUstream_st*>;
  return *all;
}

std::vector<CUstream_st*> streams_of(int device) {
  std::vector<CUstream_st*> all;
  const std::lock_guard lock(streams_mutex);
  for (CUstream_st* stream : streams()) {
    if (stream->device == device) all.push_back(stream);
  }
  return all;
}

// Waiting on a capturing stream ends its capture.
cudaError_t refuse_waiting(CUstream_st& stream) {
  if (in_host_function()) return failed(cudaErrorNotPermitted);
  if (stream.capture == nullptr) return cudaSuccess;
  stream.capture->valid = false;
  return failed(cudaErrorStreamCaptureUnsupported);
}

// A stream that waits for an event of a capture takes part in it from then on.
cudaError_t join(CUstream_st& stream, CUevent_st& event, Capture& capture) {
  if (stream.capture != nullptr && stream.capture.get() != &capture) {
    return failed(cudaErrorStreamCaptureMerge);
  }
  if (stream.capture == nullptr) {
    stream.capture = event.capture.lock();
    stream.joined = false;
    capture.streams.push_back(&stream);
  }
  if (event.captured_on != &stream) event.captured_on->joined = true;
  return cudaSuccess;
}

}  // namespace

void drain_device(int device) {
  for (CUstream_st* stream : streams_of(device)) drain(*stream);
}

void drain_blocking(int device) {
  for (CUstream_st* stream : streams_of(device)) {
    if (stream->waits_for_default) drain(*stream);
  }
}

}  // namespace quire::cuda_emulation

namespace emulation = quire::cuda_emulation;
using emulation::failed;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags) {
  auto* made = new CUstream_st;
  made->waits_for_default = (flags & cudaStreamNonBlocking) == 0;
  made->device = emulation::current_device();
  const std::lock_guard lock(emulation::streams_mutex);
  emulation::streams().insert(made);
  *stream = made;
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, 0);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (stream == nullptr) return failed(cudaErrorInvalidResourceHandle);
  if (const cudaError_t refused = emulation::refuse_waiting(*stream)) return refused;
  emulation::drain(*stream);
  {
    const std::lock_guard lock(emulation::streams_mutex);
    if (emulation::streams().erase(stream) == 0) return failed(cudaErrorInvalidResourceHandle);
  }
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  CUstream_st& stream = *emulation::resolve(handle);
  if (const cudaError_t refused = emulation::refuse_waiting(stream)) return refused;
  emulation::drain(stream);
  return cudaSuccess;
}

// In deferred mode each query lets one piece of work happen, so that polling ends.
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  CUstream_st& stream = *emulation::resolve(handle);
  if (const cudaError_t refused = emulation::refuse_waiting(stream)) return refused;
  return emulation::run_one(stream) ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned int) {
  if (event == nullptr) return failed(cudaErrorInvalidResourceHandle);
  CUstream_st& stream = *emulation::resolve(handle);
  std::shared_ptr<emulation::Moment> moment;
  {
    const std::lock_guard lock(event->mutex);
    if (auto capture = event->capture.lock()) return emulation::join(stream, *event, *capture);
    if (stream.capture != nullptr) {
      stream.capture->valid = false;
      return failed(cudaErrorStreamCaptureIsolation);
    }
    moment = event->moment;
  }
  if (moment == nullptr || moment->passed || moment->stream == &stream) return cudaSuccess;
  const std::lock_guard lock(stream.mutex);
  stream.queue.push_back([moment] { emulation::drain_until(*moment->stream, *moment); });
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  if (function == nullptr) return failed(cudaErrorInvalidValue);
  return emulation::enqueue(stream,
                            [function, data] { emulation::run_host_function(function, data); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) {
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  if (event == nullptr) return failed(cudaErrorInvalidResourceHandle);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  if (event == nullptr) return failed(cudaErrorInvalidResourceHandle);
  CUstream_st* stream = emulation::resolve(handle);
  if (stream->capture != nullptr) {
    const std::lock_guard lock(event->mutex);
    event->capture = stream->capture;
    event->captured_on = stream;
    return cudaSuccess;
  }
  auto moment = std::make_shared<emulation::Moment>();
  moment->stream = stream;
  {
    const std::lock_guard lock(event->mutex);
    event->capture.reset();
    event->moment = moment;
  }
  return emulation::enqueue(handle, [moment] {
    moment->when = std::chrono::steady_clock::now();
    moment->passed = true;
  });
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned int) {
  return cudaEventRecord(event, stream);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  std::shared_ptr<emulation::Moment> moment;
  {
    const std::lock_guard lock(event->mutex);
    if (!event->capture.expired()) return failed(cudaErrorCapturedEvent);
    moment = event->moment;
  }
  if (moment == nullptr || moment->passed) return cudaSuccess;
  emulation::run_one(*moment->stream);
  return cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (emulation::in_host_function()) return failed(cudaErrorNotPermitted);
  std::shared_ptr<emulation::Moment> moment;
  {
    const std::lock_guard lock(event->mutex);
    if (!event->capture.expired()) return failed(cudaErrorCapturedEvent);
    moment = event->moment;
  }
  if (moment != nullptr) emulation::drain_until(*moment->stream, *moment);
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  const std::scoped_lock lock(start->mutex, end->mutex);
  if (start->moment == nullptr || end->moment == nullptr) {
    return failed(cudaErrorInvalidResourceHandle);
  }
  if (!start->moment->passed || !end->moment->passed) return failed(cudaErrorNotReady);
  const auto spent = end->moment->when - start->moment->when;
  *ms = std::chrono::duration<float, std::milli>(spent).count();
  return cudaSuccess;
}
