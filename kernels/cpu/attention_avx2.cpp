// Attention for avx2.
#include "kernels/cpu/attention.h"
#include "kernels/cpu/lanes_avx2.h"

namespace quire::cpu {

void attend_avx2(const AttendJob& job) {
  attend<Lanes256>(job);
}

void merge_splits_avx2(float* partials, std::size_t split_stride, int num_splits, int head_dim,
                       int padded_dim, float* out) {
  merge_splits<Lanes256>(partials, split_stride, num_splits, head_dim, padded_dim, out);
}

}  // namespace quire::cpu
