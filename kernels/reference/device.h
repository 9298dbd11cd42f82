// The reference device: plain fp32 loops on the calling thread, the definition of right. Weights
// are decoded to fp32 when packed, activations are kF32, K and V are fp32 after rounding to the
// arena's dtype. Slow on purpose: every op reads like its formula.
#pragma once

#include <memory>

#include "kernels/device.h"

namespace quire::reference {

std::unique_ptr<Device> open_reference(const DeviceOptions& options);

}  // namespace quire::reference
