// The CUDA backend is a shared object opened at run time, so that one build serves machines with
// and without GPUs. This is the program's side of the door; kernels/cuda/plugin.cpp is the other.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace quire {

// What libquire_cuda.so exports, by C names. Both sides are made by one build: `build` must be
// equal.
struct CudaPlugin {
  const char* build;  // QUIRE_VERSION
  // NotFound: no driver or no GPU here, and why. The strings are what a person should read.
  absl::StatusOr<std::unique_ptr<Device>> (*open)(const DeviceOptions& options);
  std::string (*describe)();  // GPUs, peer access, driver, NCCL, kernels: lines for `quire doctor`
};
inline constexpr char kCudaPluginSymbol[] = "quire_cuda_plugin";

// Whether the driver's library is there: what `auto` asks before it opens the plugin, which maps
// half a gigabyte of libraries.
bool has_nvidia_driver();

// NotFound says why there is none: not built, or libraries it needs are missing.
absl::StatusOr<const CudaPlugin*> load_cuda_plugin();

}  // namespace quire
