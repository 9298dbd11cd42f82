// Numbers in and out of fp32: bf16, f16, fp8 (e4m3, e5m2), int8, packed 4-bit. All work on both
// sides; roundings are to nearest even, fp8 saturates. Packed words hold the low element first.
#pragma once

#include <type_traits>

#include "kernels/cuda/dev/platform.h"

namespace quire::cuda {

using bf16 = __nv_bfloat16;
using f16 = __half;
using e4m3 = __nv_fp8_e4m3;
using e5m2 = __nv_fp8_e5m2;

__host__ __device__ __forceinline__ float to_float(float x) {
  return x;
}
__host__ __device__ __forceinline__ float to_float(bf16 x) {
  return __bfloat162float(x);
}
__host__ __device__ __forceinline__ float to_float(f16 x) {
  return __half2float(x);
}
__host__ __device__ __forceinline__ float to_float(e4m3 x) {
  return static_cast<float>(x);
}
__host__ __device__ __forceinline__ float to_float(e5m2 x) {
  return static_cast<float>(x);
}

template <typename T>
__host__ __device__ __forceinline__ T from_float(float x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return __float2bfloat16_rn(x);
  } else if constexpr (std::is_same_v<T, f16>) {
    return __float2half_rn(x);
  } else {
    return T(x);
  }
}

// bf16 is the upper half of an fp32.
__device__ __forceinline__ float bf16_low(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float bf16_high(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

// Two 16-bit elements of type T in a word.
template <typename T>
__device__ __forceinline__ float2 unpack2(uint32_t pair) {
  if constexpr (std::is_same_v<T, bf16>) {
    return make_float2(bf16_low(pair), bf16_high(pair));
  } else {
    static_assert(std::is_same_v<T, f16>);
    __half2_raw raw;
    raw.x = static_cast<unsigned short>(pair & 0xffffu);
    raw.y = static_cast<unsigned short>(pair >> 16);
    return __half22float2(__half2(raw));
  }
}
template <typename T>
__device__ __forceinline__ uint32_t pack2(float low, float high) {
  if constexpr (std::is_same_v<T, bf16>) {
    const __nv_bfloat162_raw raw = __floats2bfloat162_rn(low, high);
    return raw.x | static_cast<uint32_t>(raw.y) << 16;
  } else {
    static_assert(std::is_same_v<T, f16>);
    const __half2_raw raw = __floats2half2_rn(low, high);
    return raw.x | static_cast<uint32_t>(raw.y) << 16;
  }
}

// Two fp8 in the low 16 bits.
template <typename T>
__device__ __forceinline__ float2 unpack_fp8x2(uint32_t pair) {
  constexpr auto kKind = std::is_same_v<T, e4m3> ? __NV_E4M3 : __NV_E5M2;
  static_assert(std::is_same_v<T, e4m3> || std::is_same_v<T, e5m2>);
  const __half2_raw raw =
      __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pair & 0xffffu), kKind);
  return __half22float2(__half2(raw));
}
template <typename T>
__device__ __forceinline__ uint32_t pack_fp8x2(float low, float high) {
  constexpr auto kKind = std::is_same_v<T, e4m3> ? __NV_E4M3 : __NV_E5M2;
  static_assert(std::is_same_v<T, e4m3> || std::is_same_v<T, e5m2>);
  return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, kKind);
}

// Element `index` of four int8, and of eight unsigned 4-bit numbers, in a word.
__device__ __forceinline__ int int8_of(uint32_t word, int index) {
  return static_cast<int8_t>(word >> (8 * index));
}
__device__ __forceinline__ int nibble_of(uint32_t word, int index) {
  return static_cast<int>((word >> (4 * index)) & 0xfu);
}
__device__ __forceinline__ uint32_t pack_int8(int a, int b, int c, int d) {
  return (static_cast<uint32_t>(a) & 0xffu) | (static_cast<uint32_t>(b) & 0xffu) << 8 |
         (static_cast<uint32_t>(c) & 0xffu) << 16 | static_cast<uint32_t>(d) << 24;
}

}  // namespace quire::cuda
