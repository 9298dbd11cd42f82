// Attention with tensor cores: fp8 K and V, heads of 80.
#include "kernels/cuda/attention/mma_variant.h"
#include "kernels/cuda/attention/table.h"

namespace quire::cuda {

AttentionVariant mma_f8_80() {
  return mma_variant<bf16, 80, 8, e4m3>(DType::kF8E4M3);
}

}  // namespace quire::cuda
