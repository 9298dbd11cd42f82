// Block formats times 8-bit activations by VPDPBUSD: those of 4 bits by pairs, from as many tokens
// on as make up for taking the weights apart.
#include "kernels/cpu/linear_pairs.h"
#include "kernels/cpu/linear_q8.h"
#include "kernels/cpu/simd_avx512.h"

namespace quire::cpu {
namespace {

constexpr int kLeastForPairs = 7;  // tokens

template <Format kFormat>
void compute_nibbles(const LinearJob& job) {
  if (job.tokens >= kLeastForPairs) return compute_packed<PairKernel<Avx512, kFormat>>(job);
  compute_packed<Q8Kernel<Avx512, kFormat>>(job);
}

}  // namespace

void linear_q8_avx512(Format format, const LinearJob& job) {
  switch (format) {
    case Format::kQ8_0:
      return compute_packed<Q8Kernel<Avx512, Format::kQ8_0>>(job);
    case Format::kQ4_0:
      return compute_nibbles<Format::kQ4_0>(job);
    case Format::kQ4_1:
      return compute_nibbles<Format::kQ4_1>(job);
    default:
      break;  // packed_shape asks for another layout
  }
}

}  // namespace quire::cpu
