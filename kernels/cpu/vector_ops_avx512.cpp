// The avx512 table of row ops and sampler passes.
#include "kernels/cpu/lanes_avx512.h"
#include "kernels/cpu/sample_ops.h"

namespace quire::cpu {

const VectorOps& vector_ops_avx512() {
  static constexpr VectorOps kOps = make_vector_ops<Lanes512>(&attend_avx512, &merge_splits_avx512);
  return kOps;
}

}  // namespace quire::cpu
