// Paged attention: chooses a kernel for the batch and runs it. Layout of a KV block: row/row.h.
//
// Numerics: tiles and splits begin at absolute position 0 and have fixed sizes, partial results are
// merged in order, masked positions weigh exactly zero and their V is never multiplied; so a
// token's result depends on nothing else in its batch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>

#include "kernels/batch.h"
#include "kernels/tensor.h"

namespace quire::cuda {

// What the largest step may need beside its inputs, in bytes: partial results of splits.
// max_context: the longest row, in tokens.
std::size_t attention_workspace_bytes(const AttentionSpec& spec, int max_tokens, int max_context);

// Causal attention of every token over its row's blocks. qkv: [T][(Hl + 2 Gl) * D], q already
// rotated (the first Hl * D columns); out: [T][Hl * D], kF32 or kBf16. `max_context` bounds every
// row of the batch (known to the host without reading device memory); `workspace` has the bytes for
// it.
cudaError_t attention(cudaStream_t stream, const float* qkv, const AttentionSpec& spec,
                      const Batch& batch, const KvLayer& kv, int max_context, void* workspace,
                      const Activation& out);

// Empty where a kernel exists for this shape; else a sentence that names what is not supported.
std::string attention_refusal(const AttentionSpec& spec, DType kv_dtype, int block_size);

}  // namespace quire::cuda
