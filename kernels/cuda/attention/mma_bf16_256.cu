// Attention with tensor cores: bf16 K and V, heads of 256, in two sizes of prefill tiles: the
// second one is for devices of less than 164 KiB of shared memory a block.
#include "kernels/cuda/attention/mma_variant.h"
#include "kernels/cuda/attention/table.h"

namespace quire::cuda {

AttentionVariant mma_bf16_256() {
  return mma_variant<bf16, 256, 4>(DType::kBf16);
}
AttentionVariant mma_bf16_256_small() {
  return mma_variant<bf16, 256, 1>(DType::kBf16);
}

}  // namespace quire::cuda
