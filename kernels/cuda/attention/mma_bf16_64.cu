// Attention with tensor cores: bf16 K and V, heads of 64.
#include "kernels/cuda/attention/mma_variant.h"
#include "kernels/cuda/attention/table.h"

namespace quire::cuda {

AttentionVariant mma_bf16_64() {
  return mma_variant<bf16, 64, 6>(DType::kBf16);
}

}  // namespace quire::cuda
