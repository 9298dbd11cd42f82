// The CPU device: vector kernels for AVX-512 or AVX2 run by a team of threads. Ops append commands
// to a list; wait() runs the list as one parallel region. The thread that enqueues is the thread
// that waits.
#pragma once

#include <memory>

#include "kernels/device.h"

namespace quire::cpu {

// NotFound names the instruction sets this processor lacks; InvalidArgument a wrong option.
absl::StatusOr<std::unique_ptr<Device>> open_cpu(const DeviceOptions& options);

}  // namespace quire::cpu
