// CUDA's error codes as sentences.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace quire::cuda {

// ResourceExhausted for what only another GPU, or a restarted process, can mend. `what`: what was
// being done, e.g. "the rms_norm kernel".
absl::Status to_status(cudaError_t error, absl::string_view what);

}  // namespace quire::cuda
