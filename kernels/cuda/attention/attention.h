// Paged attention: chooses kernels for the batch and runs them. Layout of a KV block: row/row.h;
// the variants: table.h; how work is found on the device: work.h.
//
// Numerics: tiles of 64 and splits of 256 positions begin at absolute position 0, partial results
// are merged in order, decode and prefill share all arithmetic; so a token's bits depend on its own
// row alone: not on the batch, the chunking, the block size, nor on how rows are cut. Masked
// positions weigh exactly zero. V behind a row's context is never multiplied (it may be NaN); with
// tensor cores, V of later tokens of the same chunk is, by zero, so it must be finite there.
// K and V in fp32: fp32 arithmetic throughout. In bf16 and f16, with heads of 64, 80, 96, 128 or
// 256: q and the weights are rounded to that type, sums are fp32. Other heads: fp32 arithmetic. In
// fp8: as in bf16, which holds every stored value times its scale exactly.
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
// it, of any content, and is free again for the next call on the stream. Launches depend on
// num_tokens, num_rows, num_shared_runs and max_context alone, so a captured call may be replayed
// on any batch of that size: rows at the end may have no tokens and tokens at the end no row.
// Positions of a row rise by one and end with context - 1.
//
// Splits that rows share (Batch::shared_runs) are computed by one item for up to 64 pairs of all
// those rows, and merged as always: no bit tells whether they were.
cudaError_t attention(cudaStream_t stream, const float* qkv, const AttentionSpec& spec,
                      const Batch& batch, const KvLayer& kv, int max_context, void* workspace,
                      const Activation& out);

// Empty where a kernel exists for this shape; else a sentence that names what is not supported.
std::string attention_refusal(const AttentionSpec& spec, DType kv_dtype, int block_size);

}  // namespace quire::cuda
