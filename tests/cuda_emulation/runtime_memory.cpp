// cudaMalloc and its relatives, copies, fills, IPC handles.
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "tests/cuda_emulation/device_table.h"
#include "tests/cuda_emulation/guard.h"
#include "tests/cuda_emulation/launch.h"
#include "tests/cuda_emulation/stream.h"

namespace emulation = quire::cuda_emulation;
using emulation::failed;
using emulation::MemoryKind;

namespace {

cudaError_t give(void** pointer, size_t bytes, MemoryKind kind) {
  if (pointer == nullptr) return failed(cudaErrorInvalidValue);
  *pointer = nullptr;
  if (const cudaError_t refused = emulation::refuse_in_capture()) return refused;
  if (bytes == 0) return cudaSuccess;
  const int device = emulation::current_device();
  if (kind == MemoryKind::kDevice &&
      emulation::device_bytes_used(device) + bytes > emulation::device_memory()) {
    return failed(cudaErrorMemoryAllocation);
  }
  *pointer = emulation::allocate(bytes, device, kind);
  return *pointer == nullptr ? failed(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t take_back(void* pointer, MemoryKind kind) {
  if (pointer == nullptr) return cudaSuccess;
  if (const cudaError_t refused = emulation::refuse_in_capture()) return refused;
  emulation::drain_device(emulation::current_device());
  return emulation::release(pointer, kind) == emulation::FreeResult::kDone
             ? cudaSuccess
             : failed(cudaErrorInvalidValue);
}

bool on_device(const void* pointer, size_t bytes) {
  const auto found = emulation::find_allocation(pointer, bytes);
  return found.has_value() && found->kind != MemoryKind::kPinned;
}

// Host memory is what no allocation of ours begins to hold, or pinned memory that holds it all.
bool on_host(const void* pointer, size_t bytes) {
  const auto found = emulation::find_allocation(pointer, 1);
  return !found.has_value() || (found->kind == MemoryKind::kPinned &&
                                emulation::find_allocation(pointer, bytes).has_value());
}

bool copy_is_valid(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToDevice:
      return on_device(to, bytes) && on_host(from, bytes);
    case cudaMemcpyDeviceToHost:
      return on_host(to, bytes) && on_device(from, bytes);
    case cudaMemcpyDeviceToDevice:
      return on_device(to, bytes) && on_device(from, bytes);
    case cudaMemcpyHostToHost:
      return on_host(to, bytes) && on_host(from, bytes);
    case cudaMemcpyDefault:
      return (on_device(to, bytes) || on_host(to, bytes)) &&
             (on_device(from, bytes) || on_host(from, bytes));
  }
  return false;
}

// What cudaIpcMemHandle_t holds here.
struct SharedHandle {
  pid_t process;
  int descriptor;
  size_t mapped;
  size_t offset;
  size_t bytes;
  void* pointer;
};
static_assert(sizeof(SharedHandle) <= sizeof(cudaIpcMemHandle_t));

std::mutex opened_mutex;
std::map<void*, std::pair<void*, size_t>>& opened() {  // pointer -> mapping
  static auto* all = new std::map<void*, std::pair<void*, size_t>>;
  return *all;
}

}  // namespace

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return give(pointer, bytes, MemoryKind::kDevice);
}
cudaError_t cudaFree(void* pointer) {
  return take_back(pointer, MemoryKind::kDevice);
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return give(pointer, bytes, MemoryKind::kPinned);
}
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned int) {
  return give(pointer, bytes, MemoryKind::kPinned);
}
cudaError_t cudaFreeHost(void* pointer) {
  return take_back(pointer, MemoryKind::kPinned);
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned int) {
  if (!emulation::find_allocation(host).has_value()) return failed(cudaErrorInvalidValue);
  *device = host;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = emulation::device_memory();
  *free = *total - std::min(*total, emulation::device_bytes_used(emulation::current_device()));
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!copy_is_valid(to, from, bytes, kind)) return failed(cudaErrorInvalidValue);
  // Pageable sources are read before the call returns, as the driver does for small ones.
  const bool pageable = !emulation::find_allocation(from).has_value();
  if (pageable && emulation::resolve(stream)->capture == nullptr) {
    const auto* bytes_of = static_cast<const char*>(from);
    return emulation::enqueue(stream, [to, data = std::vector<char>(bytes_of, bytes_of + bytes)] {
      std::memcpy(to, data.data(), data.size());
    });
  }
  return emulation::enqueue(stream, [to, from, bytes] { std::memmove(to, from, bytes); });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t refused = emulation::refuse_in_capture()) return refused;
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch) return failed(cudaErrorInvalidPitchValue);
  for (size_t row = 0; row < height; ++row) {
    const cudaError_t result =
        cudaMemcpyAsync(static_cast<char*>(to) + row * to_pitch,
                        static_cast<const char*>(from) + row * from_pitch, width, kind, stream);
    if (result != cudaSuccess) return result;
  }
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!emulation::find_allocation(pointer, bytes).has_value()) {
    return failed(cudaErrorInvalidValue);
  }
  return emulation::enqueue(stream,
                            [pointer, value, bytes] { std::memset(pointer, value, bytes); });
}

cudaError_t cudaMemset(void* pointer, int value, size_t bytes) {
  if (const cudaError_t refused = emulation::refuse_in_capture()) return refused;
  return cudaMemsetAsync(pointer, value, bytes, nullptr);
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* pointer) {
  const auto found = emulation::find_allocation(pointer);
  if (!found.has_value() || found->at != pointer || found->kind != MemoryKind::kDevice) {
    return failed(cudaErrorInvalidValue);
  }
  SharedHandle shared = {getpid(), -1, 0, 0, found->bytes, pointer};
  shared.descriptor = emulation::share_allocation(pointer, &shared.mapped, &shared.offset);
  if (shared.descriptor < 0) return failed(cudaErrorMapBufferObjectFailed);
  std::memset(handle, 0, sizeof(*handle));
  std::memcpy(handle, &shared, sizeof(shared));
  return cudaSuccess;
}

cudaError_t cudaIpcOpenMemHandle(void** pointer, cudaIpcMemHandle_t handle, unsigned int) {
  SharedHandle shared;
  std::memcpy(&shared, &handle, sizeof(shared));
  if (shared.process == getpid()) {
    *pointer = shared.pointer;
    return cudaSuccess;
  }
  const std::string path =
      "/proc/" + std::to_string(shared.process) + "/fd/" + std::to_string(shared.descriptor);
  const int descriptor = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return failed(cudaErrorMapBufferObjectFailed);
  void* memory = mmap(nullptr, shared.mapped, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  close(descriptor);
  if (memory == MAP_FAILED) return failed(cudaErrorMapBufferObjectFailed);
  *pointer = static_cast<char*>(memory) + shared.offset;
  emulation::adopt(*pointer, shared.bytes, memory, shared.mapped);
  const std::lock_guard lock(opened_mutex);
  opened()[*pointer] = {memory, shared.mapped};
  return cudaSuccess;
}

cudaError_t cudaIpcCloseMemHandle(void* pointer) {
  const std::lock_guard lock(opened_mutex);
  const auto found = opened().find(pointer);
  if (found == opened().end()) {  // opened in the process that owns it
    return emulation::find_allocation(pointer).has_value() ? cudaSuccess
                                                           : failed(cudaErrorInvalidValue);
  }
  emulation::disown(pointer);
  munmap(found->second.first, found->second.second);
  opened().erase(found);
  return cudaSuccess;
}
