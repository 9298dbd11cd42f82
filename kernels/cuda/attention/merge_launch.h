// The second half of decode attention, after the kernel that computed the splits on this stream.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/attention/problem.h"

namespace quire::cuda {

cudaError_t launch_merge(cudaStream_t stream, const AttentionProblem& problem);

}  // namespace quire::cuda
