// The avx2 table of row ops and sampler passes.
#include "kernels/cpu/lanes_avx2.h"
#include "kernels/cpu/sample_ops.h"

namespace quire::cpu {

const VectorOps& vector_ops_avx2() {
  static constexpr VectorOps kOps = make_vector_ops<Lanes256>(&attend_avx2, &merge_splits_avx2);
  return kOps;
}

}  // namespace quire::cpu
