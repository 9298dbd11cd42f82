// Attention in plain fp32 arithmetic: float16 K and V, heads of any size.
#include "kernels/cuda/attention/simt_variant.h"

namespace quire::cuda {

AttentionVariant simt_f16(int head_dim) {
  return simt_variant<f16>(DType::kF16, head_dim);
}

}  // namespace quire::cuda
