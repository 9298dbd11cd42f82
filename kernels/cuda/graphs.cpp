// Captures are of this thread alone: a watchdog may call the driver meanwhile.
#include "kernels/cuda/graphs.h"

namespace quire::cuda {

cudaError_t Graphs::capture(const std::function<void()>& record, cudaGraphExec_t& exec) {
  cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
  if (error != cudaSuccess) return error;
  record();
  cudaGraph_t graph = nullptr;
  error = cudaStreamEndCapture(stream_, &graph);
  if (error != cudaSuccess) return error;
  error = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  return error;
}

cudaError_t Graphs::replay(std::uint64_t key, const std::function<void()>& record) {
  const auto [found, first_time] = graphs_.try_emplace(key);
  Graph& graph = found->second;
  if (first_time || graph.refused) {
    record();
    return cudaSuccess;
  }
  if (graph.exec == nullptr && capture(record, graph.exec) != cudaSuccess) {
    cudaGetLastError();  // told by what follows: the work is enqueued all the same
    graph.refused = true;
    record();
    return cudaSuccess;
  }
  return cudaGraphLaunch(graph.exec, stream_);
}

void Graphs::forget() {
  if (graphs_.empty()) return;
  cudaStreamSynchronize(stream_);
  for (auto& [key, graph] : graphs_) {
    if (graph.exec != nullptr) cudaGraphExecDestroy(graph.exec);
  }
  graphs_.clear();
}

}  // namespace quire::cuda
