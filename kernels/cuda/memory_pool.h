// The memories a device gives out, each with its kind, and memory for the length of one step.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"

namespace quire::cuda {

enum class Place { kDevice, kHost };  // kHost: page-locked

// Whatever its owner did not free goes with it. One thread.
class Memories {
 public:
  Memories() = default;
  ~Memories();
  Memories(const Memories&) = delete;
  Memories& operator=(const Memories&) = delete;

  // Zeroed. ResourceExhausted names `what`, the bytes and what is free.
  absl::StatusOr<void*> allocate(Place place, std::size_t bytes, const std::string& what);
  void free(void* memory);  // null is allowed

 private:
  std::unordered_map<void*, Place> pieces_;
};

// Memory for one step, while the step before it may still run: grows to what the largest step
// needed, and stays.
class StepMemory {
 public:
  StepMemory(Memories& memories, Place place) : memories_(memories), place_(place) {}

  // Room for `count` values, 256-byte aligned; null when there is none (the error is kept for
  // status()).
  template <class T>
  T* take(std::size_t count) {
    return static_cast<T*>(take_bytes(count * sizeof(T)));
  }
  // The next step begins: what was taken two calls ago is free again.
  void turn();
  // The first failure since the last call.
  absl::Status status();

 private:
  struct Chunk {
    std::byte* data = nullptr;
    std::size_t bytes = 0;
    std::size_t used = 0;
  };
  void* take_bytes(std::size_t bytes);

  Memories& memories_;
  const Place place_;
  std::vector<Chunk> chunks_[2];
  std::size_t current_ = 0;
  absl::Status status_;
};

}  // namespace quire::cuda
