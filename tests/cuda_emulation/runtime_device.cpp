// Devices, errors, versions, function attributes, and the checks of a launch.
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/device_table.h"
#include "tests/cuda_emulation/guard.h"
#include "tests/cuda_emulation/lane.h"
#include "tests/cuda_emulation/launch.h"
#include "tests/cuda_emulation/occupancy.h"
#include "tests/cuda_emulation/stream.h"

namespace quire::cuda_emulation {
namespace {

uint64_t first_seed() {
  const char* text = std::getenv("QUIRE_EMULATION_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

std::atomic<uint64_t> seed_value{first_seed()};
std::atomic<int> resident_value{0};
std::atomic<int> spin_limit{30};
std::atomic<int> devices{4};
std::atomic<size_t> memory_of_each{size_t{256} << 20};
std::atomic<int> capability{80};
thread_local int device_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;

std::mutex attributes_mutex;
std::map<std::pair<const void*, int>, size_t>& shared_allowed() {  // by function and device
  static auto* all = new std::map<std::pair<const void*, int>, size_t>;
  return *all;
}

size_t shared_limit(const void* function) {
  const std::lock_guard lock(attributes_mutex);
  const auto found = shared_allowed().find({function, device_of_thread});
  return found == shared_allowed().end() ? kSharedPerBlock : found->second;
}

}  // namespace

void set_seed(uint64_t seed) {
  seed_value = seed;
}
uint64_t seed() {
  return seed_value;
}
void set_resident_blocks(int blocks) {
  resident_value = blocks;
}
int resident_blocks() {
  return resident_value;
}
void set_spin_limit_seconds(int seconds) {
  spin_limit = seconds;
}
int spin_limit_seconds() {
  return spin_limit;
}
void set_device_count(int count) {
  devices = count;
}
void set_device_memory(size_t bytes) {
  memory_of_each = bytes;
}
void set_compute_capability(int major, int minor) {
  capability = 10 * major + minor;
}
int device_count() {
  return devices;
}
size_t device_memory() {
  return memory_of_each;
}
int current_device() {
  return device_of_thread;
}

cudaError_t failed(cudaError_t error) {
  last_error = error;
  return error;
}

cudaError_t check_launch(const cudaLaunchConfig_t& config, const void* kernel) {
  const dim3& g = config.gridDim;
  const dim3& b = config.blockDim;
  if (b.x == 0 || b.y == 0 || b.z == 0 || b.z > 64 || uint64_t{b.x} * b.y * b.z > 1024 ||
      g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) {
    return failed(cudaErrorInvalidConfiguration);
  }
  if (config.dynamicSmemBytes > shared_limit(kernel)) return failed(cudaErrorInvalidValue);
  return cudaSuccess;
}

void check_pointer_argument(const void* pointer, int number) {
  if (pointer == nullptr || find_allocation(pointer, 0).has_value()) return;
  die("launch: argument %d is %p, which points to no memory of a device", number, pointer);
}

}  // namespace quire::cuda_emulation

namespace emulation = quire::cuda_emulation;
using emulation::failed;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = emulation::device_count();
  return *count > 0 ? cudaSuccess : failed(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulation::device_count()) return failed(cudaErrorInvalidDevice);
  emulation::device_of_thread = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = emulation::current_device();
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  if (const cudaError_t refused = emulation::refuse_in_capture()) return refused;
  emulation::drain_device(emulation::current_device());
  emulation::check_all_slack();
  return cudaSuccess;
}

cudaError_t cudaDeviceReset() {
  return cudaDeviceSynchronize();
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device < 0 || device >= emulation::device_count()) return failed(cudaErrorInvalidDevice);
  *p = {};
  std::snprintf(p->name, sizeof(p->name), "Quire emulated device %d", device);
  p->uuid.bytes[0] = static_cast<char>(device + 1);
  p->major = emulation::capability / 10;
  p->minor = emulation::capability % 10;
  p->totalGlobalMem = emulation::device_memory();
  p->sharedMemPerBlock = emulation::kSharedPerBlock;
  p->sharedMemPerBlockOptin = emulation::kSharedPerBlockOptIn;
  p->sharedMemPerMultiprocessor = emulation::kSharedPerMultiprocessor;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 0x7fffffff;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->multiProcessorCount = emulation::kMultiprocessors;
  p->maxThreadsPerMultiProcessor = 1024;
  p->maxBlocksPerMultiProcessor = 2;
  p->l2CacheSize = 4 << 20;
  p->memoryBusWidth = 4096;
  p->unifiedAddressing = 1;
  p->canMapHostMemory = 1;
  p->concurrentKernels = 1;
  p->asyncEngineCount = 1;
  p->pciBusID = device + 1;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (const cudaError_t refused = cudaGetDeviceProperties(&p, device)) return refused;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = p.maxThreadsPerBlock;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(p.sharedMemPerBlock);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(p.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(p.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrWarpSize:
      *value = p.warpSize;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = p.multiProcessorCount;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = p.maxThreadsPerMultiProcessor;
      break;
    case cudaDevAttrL2CacheSize:
      *value = p.l2CacheSize;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = p.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = p.minor;
      break;
    case cudaDevAttrClockRate:
      *value = 1000000;
      break;
    case cudaDevAttrMemoryClockRate:
      *value = 1000000;
      break;
    case cudaDevAttrGlobalMemoryBusWidth:
      *value = p.memoryBusWidth;
      break;
    case cudaDevAttrCooperativeLaunch:
      *value = 0;
      break;
    default:
      return failed(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int bytes, int device) {
  std::snprintf(text, static_cast<size_t>(bytes), "0000:%02x:00.0", device + 1);
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  *can = device != peer && device < emulation::device_count() && peer < emulation::device_count();
  return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned int) {
  if (peer == emulation::current_device() || peer >= emulation::device_count()) {
    return failed(cudaErrorInvalidDevice);
  }
  static std::mutex mutex;
  static auto* enabled = new std::map<std::pair<int, int>, bool>;
  const std::lock_guard lock(mutex);
  bool& on = (*enabled)[{emulation::current_device(), peer}];
  if (on) return failed(cudaErrorPeerAccessAlreadyEnabled);
  on = true;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = emulation::last_error;
  emulation::last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() {
  return emulation::last_error;
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      static_cast<size_t>(value) > emulation::kSharedPerBlockOptIn) {
    return failed(cudaErrorInvalidValue);
  }
  const std::lock_guard lock(emulation::attributes_mutex);
  emulation::shared_allowed()[{function, emulation::current_device()}] =
      std::max(static_cast<size_t>(value), emulation::kSharedPerBlock);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*,
                                                                   int threads, size_t shared,
                                                                   unsigned int) {
  *blocks = emulation::blocks_per_multiprocessor(threads, shared);
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function,
                                                          int threads, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared,
                                                                0);
}
