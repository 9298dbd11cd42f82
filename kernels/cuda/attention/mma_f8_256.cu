// Attention with tensor cores: fp8 K and V, heads of 256, in two sizes of prefill tiles: the
// second one is for devices of less than 164 KiB of shared memory a block.
#include "kernels/cuda/attention/mma_variant.h"
#include "kernels/cuda/attention/table.h"

namespace quire::cuda {

AttentionVariant mma_f8_256() {
  return mma_variant<bf16, 256, 4, e4m3>(DType::kF8E4M3);
}
AttentionVariant mma_f8_256_small() {
  return mma_variant<bf16, 256, 1, e4m3>(DType::kF8E4M3);
}

}  // namespace quire::cuda
