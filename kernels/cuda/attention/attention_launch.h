// The launcher with its limits named, so that tests can reach every way through it with small
// batches. Everyone else calls attention() in attention.h.
#pragma once

#include "kernels/cuda/attention/attention.h"

namespace quire::cuda {

struct AttentionLimits {
  // Partial results take at most so much workspace; rows that find no room in it are computed
  // without being cut.
  std::size_t partial_bytes = std::size_t{64} << 20;
  // Shared memory of a block; 0: what the device has.
  int shared_bytes = 0;
};

std::size_t attention_workspace_bytes(const AttentionSpec& spec, int max_tokens, int max_context,
                                      const AttentionLimits& limits);
cudaError_t attention(cudaStream_t stream, const float* qkv, const AttentionSpec& spec,
                      const Batch& batch, const KvLayer& kv, int max_context, void* workspace,
                      const Activation& out, const AttentionLimits& limits);

}  // namespace quire::cuda
