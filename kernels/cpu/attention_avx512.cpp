// Attention for avx512.
#include "kernels/cpu/attention.h"
#include "kernels/cpu/lanes_avx512.h"

namespace quire::cpu {

void attend_avx512(const AttendJob& job) {
  attend<Lanes512>(job);
}

void merge_splits_avx512(float* partials, std::size_t split_stride, int num_splits, int head_dim,
                         int padded_dim, float* out) {
  merge_splits<Lanes512>(partials, split_stride, num_splits, head_dim, padded_dim, out);
}

}  // namespace quire::cpu
