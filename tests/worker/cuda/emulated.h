// The CUDA device over the emulation, with the tests' own NCCL.
#pragma once

#include <memory>

#include "kernels/cuda/device.h"
#include "tests/cuda_emulation/control.h"
#include "tests/fakes/fake_nccl.h"

namespace quire::test {

// Streams run when they are waited for: an exchange that ran inside its call would hold up a rank,
// which is a thread.
inline absl::StatusOr<std::unique_ptr<Device>> open_emulated(const DeviceOptions& options) {
  cuda_emulation::set_stream_mode(cuda_emulation::StreamMode::kDeferred);
  return cuda::open_cuda(options, [] { return fake_nccl(); });
}

}  // namespace quire::test
