// Streams, events and graphs behind CUDA's opaque handles. A stream is a queue of closures: in
// eager mode it is always empty; a capturing stream gives its closures to a graph instead.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace quire::cuda_emulation {

using Work = std::function<void()>;

// One capture under way; all streams that joined it share it.
struct Capture {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  CUstream_st* origin = nullptr;
  bool valid = true;
  std::vector<Work> nodes;
  std::vector<CUstream_st*> streams;  // origin first
};

// One recording of an event.
struct Moment {
  std::atomic<bool> passed{false};
  std::chrono::steady_clock::time_point when;
  CUstream_st* stream = nullptr;
};

// The last error of this thread, as cudaGetLastError reports it.
cudaError_t failed(cudaError_t error);
int current_device();

// The stream itself, or the current device's default one; null where the handle is no stream of
// ours.
CUstream_st* resolve(cudaStream_t stream);
// Runs what is queued: all of it, or until `moment` has passed, or one item.
void drain(CUstream_st& stream);
void drain_until(CUstream_st& stream, const Moment& moment);
bool run_one(CUstream_st& stream);
void drain_device(int device);
// Only the streams that work on the default stream waits for.
void drain_blocking(int device);

// cudaSuccess, or why this thread may not call what is unsafe during a capture (which ends there).
cudaError_t refuse_in_capture();
// The same for what a host function may not call.
bool in_host_function();
void run_host_function(cudaHostFn_t function, void* data);

std::shared_ptr<Capture> begin_capture(CUstream_st& stream, cudaStreamCaptureMode mode);
void leave_capture(Capture& capture);

}  // namespace quire::cuda_emulation

struct CUstream_st {
  std::recursive_mutex mutex;
  int device = 0;
  bool waits_for_default = true;  // false: cudaStreamNonBlocking
  std::deque<quire::cuda_emulation::Work> queue;
  std::shared_ptr<quire::cuda_emulation::Capture> capture;
  bool joined = true;  // nothing captured since another stream waited for this one
};

struct CUevent_st {
  std::mutex mutex;
  std::shared_ptr<quire::cuda_emulation::Moment> moment;  // null: never recorded
  std::weak_ptr<quire::cuda_emulation::Capture> capture;  // of the last recording, if captured
  CUstream_st* captured_on = nullptr;
};

struct CUgraph_st {
  std::vector<quire::cuda_emulation::Work> nodes;
};

struct CUgraphExec_st {
  std::vector<quire::cuda_emulation::Work> nodes;
};
