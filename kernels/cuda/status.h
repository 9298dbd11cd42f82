// CUDA's error codes as sentences.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace quire::cuda {

// ResourceExhausted for what only another GPU, or a restarted process, can mend. `what`: what was
// being done, e.g. "the rms_norm kernel".
absl::Status to_status(cudaError_t error, absl::string_view what);

// Whether what is enqueued on `stream` now is captured, or a capture that failed is still open.
bool is_capturing(cudaStream_t stream);

}  // namespace quire::cuda
