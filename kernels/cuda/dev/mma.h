// Tensor cores by warp: ldmatrix and mma.sync. All 32 lanes call together. With group = lane / 4
// and pair = lane % 4, registers hold (low half first)
//   m16n8k16 (bf16, f16)  a: rows {group, group + 8} x columns {2 pair, +1}, then the same rows at
//                         columns + 8 [a0: row, a1: row + 8, a2: row, columns + 8, a3: both + 8];
//                         b: k {2 pair, +1} and k + 8, column group;
//                         d: d0 d1 row group, columns {2 pair, +1}; d2 d3 row group + 8
//   m16n8k32 (s8)         as above with four bytes a register: columns {4 pair .. +3} and + 16
// ldmatrix: lane i gives the address of row i % 8 of matrix i / 8 (8 rows of 16 bytes, aligned);
// x1 and x2 read the addresses of the first 8 and 16 lanes only. d += a * b, products exact, sums
// in fp32 (the hardware's rounding of a sum differs from the emulation's) or in exact int32.
#pragma once

#include <type_traits>

#include "kernels/cuda/dev/platform.h"

namespace quire::cuda {

// kCount 8x8 matrices of 16-bit elements: register j of a lane holds matrix j, row lane / 4,
// columns 2 (lane % 4) and + 1; transposed: column lane / 4, rows 2 (lane % 4) and + 1.
template <bool kTransposed, int kCount>
__device__ __forceinline__ void load_matrices(uint32_t (&regs)[kCount], const void* row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
#ifdef __CUDACC__
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kCount == 1 && !kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(regs[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kCount == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(regs[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kCount == 2 && !kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(regs[0]), "=r"(regs[1])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(regs[0]), "=r"(regs[1])
                 : "r"(address)
                 : "memory");
  } else if constexpr (!kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(regs[0]), "=r"(regs[1]), "=r"(regs[2]), "=r"(regs[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(regs[0]), "=r"(regs[1]), "=r"(regs[2]), "=r"(regs[3])
                 : "r"(address)
                 : "memory");
  }
#else
  cuda_emulation::load_matrices(regs, kCount, kTransposed, row);
#endif
}

template <int kCount>
__device__ __forceinline__ void ldmatrix(uint32_t (&regs)[kCount], const void* row) {
  load_matrices<false>(regs, row);
}
template <int kCount>
__device__ __forceinline__ void ldmatrix_trans(uint32_t (&regs)[kCount], const void* row) {
  load_matrices<true>(regs, row);
}

__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  cuda_emulation::mma_bf16(d, a, b0, b1);
#endif
}

__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  cuda_emulation::mma_f16(d, a, b0, b1);
#endif
}

__device__ __forceinline__ void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                       uint32_t b1) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  cuda_emulation::mma_s8(d, a, b0, b1);
#endif
}

// The product for the element type of the operands.
template <typename T>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>) {
    mma_f16(d, a, b0, b1);
  } else {
    static_assert(std::is_same_v<T, __nv_bfloat16>);
    mma_bf16(d, a, b0, b1);
  }
}

}  // namespace quire::cuda
