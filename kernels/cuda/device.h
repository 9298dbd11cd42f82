// The CUDA device: one GPU, one stream, its ops and its collective. Opened by plugin.cpp in the
// program, and by tests over the emulation with their own NCCL.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/collective/nccl_api.h"
#include "kernels/device.h"

namespace quire::cuda {

// Asked when a group of several ranks opens its collective, not before.
using NcclSource = std::function<absl::StatusOr<NcclApi>()>;

// NotFound: no driver, or no GPU, with the reason. InvalidArgument: a dtype that is not computed
// in.
absl::StatusOr<std::unique_ptr<Device>> open_cuda(const DeviceOptions& options, NcclSource nccl);

// Lines for a person: driver, GPUs with memory and peers, NCCL.
std::string describe_gpus(const NcclSource& nccl);

}  // namespace quire::cuda
