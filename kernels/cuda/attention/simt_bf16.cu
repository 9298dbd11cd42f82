// Attention in plain fp32 arithmetic: bfloat16 K and V, heads of any size.
#include "kernels/cuda/attention/simt_variant.h"

namespace quire::cuda {

AttentionVariant simt_bf16(int head_dim) {
  return simt_variant<bf16>(DType::kBf16, head_dim);
}

}  // namespace quire::cuda
