#include "kernels/cuda/graphs.h"

namespace quire::cuda {
namespace {

// A graph of a large model takes a megabyte or two; shapes beyond these are enqueued as they are.
constexpr std::size_t kMostGraphs = 256;

}  // namespace

cudaError_t Graphs::instantiate(const std::function<void()>& record, cudaGraphExec_t& exec) {
  cudaGraph_t graph = nullptr;
  cudaError_t error = queue_.capture(record, graph);
  if (error == cudaSuccess) error = cudaGraphInstantiate(&exec, graph, 0);
  if (graph != nullptr) cudaGraphDestroy(graph);
  return error;
}

void Graphs::replay(std::uint64_t key, const std::function<void()>& record) {
  if (graphs_.size() >= kMostGraphs && graphs_.find(key) == graphs_.end()) return record();
  const auto [found, first_time] = graphs_.try_emplace(key);
  Graph& graph = found->second;
  if (first_time || graph.refused) return record();
  if (graph.exec == nullptr && instantiate(record, graph.exec) != cudaSuccess) {
    cudaGetLastError();  // the work is enqueued all the same
    graph.exec = nullptr;
    graph.refused = true;
    return record();
  }
  queue_.check(cudaGraphLaunch(graph.exec, queue_.stream()), "a graph");
}

void Graphs::forget() {
  if (graphs_.empty()) return;
  cudaStreamSynchronize(queue_.stream());
  for (auto& [key, graph] : graphs_) {
    if (graph.exec != nullptr) cudaGraphExecDestroy(graph.exec);
  }
  graphs_.clear();
}

}  // namespace quire::cuda
