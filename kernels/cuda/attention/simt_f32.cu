// Attention in plain fp32 arithmetic: float32 K and V, heads of any size.
#include "kernels/cuda/attention/simt_variant.h"

namespace quire::cuda {

AttentionVariant simt_f32(int head_dim) {
  return simt_variant<float>(DType::kF32, head_dim);
}

}  // namespace quire::cuda
