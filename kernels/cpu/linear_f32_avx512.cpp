// Every format times fp32 activations, 16 lanes at a time.
#include "kernels/cpu/linear_f32.h"
#include "kernels/cpu/simd_avx512.h"

namespace quire::cpu {

void linear_f32_avx512(Format format, const LinearJob& job) {
  switch (format) {
    case Format::kF32:
      return compute<F32Kernel<Avx512, Format::kF32>>(job);
    case Format::kF16:
      return compute<F32Kernel<Avx512, Format::kF16>>(job);
    case Format::kBf16:
      return compute<F32Kernel<Avx512, Format::kBf16>>(job);
    case Format::kQ8_0:
      return compute<F32Kernel<Avx512, Format::kQ8_0>>(job);
    case Format::kQ4_0:
      return compute<F32Kernel<Avx512, Format::kQ4_0>>(job);
    case Format::kQ4_1:
      return compute<F32Kernel<Avx512, Format::kQ4_1>>(job);
    default:
      break;  // packed_shape refuses it
  }
}

}  // namespace quire::cpu
