// Attention with tensor cores: f16 K and V, heads of 64.
#include "kernels/cuda/attention/mma_variant.h"
#include "kernels/cuda/attention/table.h"

namespace quire::cuda {

AttentionVariant mma_f16_64() {
  return mma_variant<f16, 64, 6>(DType::kF16);
}

}  // namespace quire::cuda
