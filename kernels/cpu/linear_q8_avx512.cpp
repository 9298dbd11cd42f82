// Block formats times 8-bit activations by VPDPBUSD.
#include "kernels/cpu/linear_q8.h"
#include "kernels/cpu/simd_avx512.h"

namespace quire::cpu {

void linear_q8_avx512(Format format, const LinearJob& job) {
  switch (format) {
    case Format::kQ8_0:
      return compute_packed<Q8Kernel<Avx512, Format::kQ8_0>>(job);
    case Format::kQ4_0:
      return compute_packed<Q8Kernel<Avx512, Format::kQ4_0>>(job);
    case Format::kQ4_1:
      return compute_packed<Q8Kernel<Avx512, Format::kQ4_1>>(job);
    default:
      break;  // packed_shape asks for another layout
  }
}

}  // namespace quire::cpu
