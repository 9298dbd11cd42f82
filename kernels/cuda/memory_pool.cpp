#include "kernels/cuda/memory_pool.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace quire::cuda {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kChunk = std::size_t{1} << 20;

void release(Place place, void* memory) {
  if (place == Place::kDevice) {
    cudaFree(memory);
  } else {
    cudaFreeHost(memory);
  }
}

}  // namespace

Memories::~Memories() {
  for (const auto& [memory, place] : pieces_) release(place, memory);
}

absl::StatusOr<void*> Memories::allocate(Place place, std::size_t bytes, const std::string& what) {
  const std::size_t room = std::max<std::size_t>(bytes, 1);
  void* memory = nullptr;
  cudaError_t error =
      place == Place::kDevice ? cudaMalloc(&memory, room) : cudaMallocHost(&memory, room);
  if (error != cudaSuccess) {
    cudaGetLastError();  // this error is told here and is not the next launch's
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot allocate ", bytes, " bytes of ", place == Place::kDevice ? "GPU" : "page-locked",
        " memory for ", what, " (", free, " of ", total,
        " bytes of the GPU are free); ask for less, or free some."));
  }
  pieces_.emplace(memory, place);
  if (place == Place::kHost) {
    std::memset(memory, 0, room);
    return memory;
  }
  // The legacy stream does that, which no other stream of ours waits for.
  error = cudaMemset(memory, 0, room);
  if (error == cudaSuccess) error = cudaStreamSynchronize(nullptr);
  if (error == cudaSuccess) return memory;
  free(memory);
  return absl::InternalError(absl::StrCat("cannot clear ", bytes, " bytes for ", what));
}

void Memories::free(void* memory) {
  if (memory == nullptr) return;
  const auto piece = pieces_.find(memory);
  QUIRE_CHECK(piece != pieces_.end());
  release(piece->second, memory);
  pieces_.erase(piece);
}

void* StepMemory::take_bytes(std::size_t bytes) {
  const std::size_t room = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  for (Chunk& chunk : chunks_[current_]) {
    if (chunk.bytes - chunk.used < room) continue;
    chunk.used += room;
    return chunk.data + chunk.used - room;
  }
  // As much again as there is: needs that grow a little from step to step add few chunks.
  std::size_t held = 0;
  for (const Chunk& chunk : chunks_[current_]) held += chunk.bytes;
  const std::size_t size = std::max({room, kChunk, held});
  auto memory = memories_.allocate(place_, size, "a step's own data");
  if (!memory.ok()) {
    status_ = memory.status();
    return nullptr;
  }
  chunks_[current_].push_back({static_cast<std::byte*>(*memory), size, room});
  return *memory;
}

void StepMemory::turn() {
  current_ = 1 - current_;
  for (Chunk& chunk : chunks_[current_]) chunk.used = 0;
}

absl::Status StepMemory::status() {
  return std::exchange(status_, absl::OkStatus());
}

}  // namespace quire::cuda
