// Attention in plain fp32 arithmetic: fp8 K and V, heads of any size.
#include "kernels/cuda/attention/simt_variant.h"

namespace quire::cuda {

AttentionVariant simt_f8(int head_dim) {
  return simt_variant<e4m3>(DType::kF8E4M3, head_dim);
}

}  // namespace quire::cuda
