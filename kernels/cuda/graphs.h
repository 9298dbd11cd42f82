// What a stream is given again and again, kept as CUDA graphs by key. The first time a key comes
// its work is enqueued as it is: kernels are loaded, workspaces and connections made, algorithms
// chosen. The second time it is captured; from then on one launch enqueues all of it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <unordered_map>

#include "kernels/cuda/queue.h"

namespace quire::cuda {

class Graphs {
 public:
  explicit Graphs(Queue& queue) : queue_(queue) {}
  ~Graphs() { forget(); }
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  // Enqueues what `record` enqueues. A key whose work the driver does not capture is enqueued as it
  // is every time.
  void replay(std::uint64_t key, const std::function<void()>& record);
  // Waits for the stream.
  void forget();
  int size() const { return static_cast<int>(graphs_.size()); }

 private:
  struct Graph {
    bool refused = false;
    cudaGraphExec_t exec = nullptr;  // null: seen once
  };
  cudaError_t instantiate(const std::function<void()>& record, cudaGraphExec_t& exec);

  Queue& queue_;
  std::unordered_map<std::uint64_t, Graph> graphs_;
};

}  // namespace quire::cuda
