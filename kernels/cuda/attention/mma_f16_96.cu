// Attention with tensor cores: f16 K and V, heads of 96.
#include "kernels/cuda/attention/mma_variant.h"
#include "kernels/cuda/attention/table.h"

namespace quire::cuda {

AttentionVariant mma_f16_96() {
  return mma_variant<f16, 96, 8>(DType::kF16);
}

}  // namespace quire::cuda
