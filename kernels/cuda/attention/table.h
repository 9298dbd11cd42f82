// All variants of attention, and which one a shape gets.
#pragma once

#include "kernels/cuda/attention/variant.h"

namespace quire::cuda {

inline constexpr int kMaxHeadDim = 256;

// Each in the file of its name; tensor cores, for one head size.
AttentionVariant mma_bf16_64();
AttentionVariant mma_bf16_80();
AttentionVariant mma_bf16_96();
AttentionVariant mma_bf16_128();
AttentionVariant mma_bf16_256();
AttentionVariant mma_bf16_256_small();
AttentionVariant mma_f16_64();
AttentionVariant mma_f16_80();
AttentionVariant mma_f16_96();
AttentionVariant mma_f16_128();
AttentionVariant mma_f16_256();
AttentionVariant mma_f16_256_small();
AttentionVariant mma_f8_64();
AttentionVariant mma_f8_80();
AttentionVariant mma_f8_96();
AttentionVariant mma_f8_128();
AttentionVariant mma_f8_256();
AttentionVariant mma_f8_256_small();
// Plain fp32 arithmetic, any head size.
AttentionVariant simt_f32(int head_dim);
AttentionVariant simt_f16(int head_dim);
AttentionVariant simt_bf16(int head_dim);
AttentionVariant simt_f8(int head_dim);

// The first variant for this type and head size whose kernels fit into so much shared memory. Its
// `decode.kernel` is null where none does.
AttentionVariant choose_attention(DType dtype, int head_dim, int shared_bytes_per_block);

}  // namespace quire::cuda
