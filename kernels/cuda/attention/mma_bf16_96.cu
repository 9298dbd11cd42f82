// Attention with tensor cores: bf16 K and V, heads of 96.
#include "kernels/cuda/attention/mma_variant.h"
#include "kernels/cuda/attention/table.h"

namespace quire::cuda {

AttentionVariant mma_bf16_96() {
  return mma_variant<bf16, 96, 8>(DType::kBf16);
}

}  // namespace quire::cuda
