// Capture and graphs: closures in the order in which they were issued, over all streams that
// joined.
#include <cuda_runtime_api.h>

#include <atomic>

#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/launch.h"
#include "tests/cuda_emulation/stream.h"

namespace emulation = quire::cuda_emulation;
using emulation::failed;

namespace {

std::atomic<int> launches = 0;

}  // namespace

namespace quire::cuda_emulation {

int graph_launches() {
  return launches;
}

}  // namespace quire::cuda_emulation

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (emulation::resolve(stream) != stream) return failed(cudaErrorStreamCaptureUnsupported);
  if (stream->capture != nullptr) return failed(cudaErrorIllegalState);
  emulation::drain(*stream);
  stream->capture = emulation::begin_capture(*stream, mode);
  stream->joined = true;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (emulation::resolve(stream) != stream || stream->capture == nullptr) {
    return failed(cudaErrorIllegalState);
  }
  const auto capture = stream->capture;
  if (capture->origin != stream) return failed(cudaErrorStreamCaptureUnmatched);
  bool joined = true;
  for (const CUstream_st* other : capture->streams) joined &= other == stream || other->joined;
  emulation::leave_capture(*capture);
  if (!capture->valid) return failed(cudaErrorStreamCaptureInvalidated);
  if (!joined) return failed(cudaErrorStreamCaptureUnjoined);
  *graph = new CUgraph_st{std::move(capture->nodes)};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const auto& capture = emulation::resolve(stream)->capture;
  *status = capture == nullptr ? cudaStreamCaptureStatusNone
            : capture->valid   ? cudaStreamCaptureStatusActive
                               : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  if (graph == nullptr) return failed(cudaErrorInvalidValue);
  *exec = new CUgraphExec_st{graph->nodes};
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  if (nodes != nullptr) return failed(cudaErrorNotSupported);
  *count = graph->nodes.size();
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (exec == nullptr) return failed(cudaErrorInvalidValue);
  ++launches;
  return emulation::enqueue(stream, [nodes = exec->nodes] {
    for (const emulation::Work& node : nodes) node();
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
