// Rotary embedding of one token's q and k (RoFormer, arXiv 2104.09864), and the store of its k and
// v in the arena's layout and dtype.
#pragma once

#include "kernels/cpu/kv_bytes.h"
#include "kernels/cpu/mix_head.h"
#include "kernels/cpu/row_ops.h"
#include "kernels/cpu/vector_ops.h"
#include "kernels/formats/half.h"
#include "kernels/kv_scale.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

// Pairs (2i, 2i + 1).
template <class V>
void rotate_interleaved(float* x, int dims, const float* cos_sin) {
  for (int i = 0; i < dims; i += 16) {
    const int n = clamp16(dims - i);
    V::store(x + i, V::rotate_pairs(V::load(x + i, n), V::load(cos_sin + i, n)), n);
  }
}

// Pairs (i, i + dims / 2). Eight at a time: put next to each other they are interleaved pairs.
template <class V>
void rotate_halves(float* x, int dims, const float* cos_sin) {
  const int half = dims / 2;
  for (int i = 0; i < half; i += 8) {
    const int n = half - i < 8 ? half - i : 8;
    float pairs[16];
    for (int j = 0; j < n; ++j) {
      pairs[2 * j] = x[i + j];
      pairs[2 * j + 1] = x[half + i + j];
    }
    V::store(pairs, V::rotate_pairs(V::load(pairs, 2 * n), V::load(cos_sin + 2 * i, 2 * n)));
    for (int j = 0; j < n; ++j) {
      x[i + j] = pairs[2 * j];
      x[half + i + j] = pairs[2 * j + 1];
    }
  }
}

// One KV head of a job: its k and v, and where its part of the job's block begins.
struct HeadPlace {
  const float *k, *v;
  std::byte* base;
};
inline HeadPlace locate_head(const RopeJob& job, int head) {
  const KvHead& kv = job.kv;
  const float* k = job.row + (job.num_heads + head) * kv.head_dim;
  return {k, k + job.num_kv_heads * kv.head_dim,
          kv.arena + static_cast<std::size_t>(job.block) * kv.block_bytes + kv.head_offset +
              static_cast<std::size_t>(head) * job.kv_head_bytes};
}

template <class V, class T>
void store_kv(const RopeJob& job, int head) {
  const KvHead& kv = job.kv;
  const int d = kv.head_dim;
  const auto [k, v, base] = locate_head(job, head);
  T* k_lane = reinterpret_cast<T*>(base) + job.offset;
  T* v_row = reinterpret_cast<T*>(base) + kv.key_dim * kv.block_size + job.offset * kv.padded_dim;
  for (int i = 0; i < d; i += 16) {
    const int n = clamp16(d - i);
    T rounded[16];
    V::store(rounded, V::load(k + i, n));
    for (int j = 0; j < n; ++j) k_lane[(i + j) * kv.block_size] = rounded[j];
    V::store(v_row + i, V::load(v + i, n));
  }
}

// The same as pairs. Of the words of V the other half belongs to a neighbour of this token.
template <class V>
void store_pairs(const RopeJob& job, int head) {
  const KvHead& kv = job.kv;
  const int d = kv.head_dim;
  const auto [k, v, base] = locate_head(job, head);
  Bf16* k_lane = reinterpret_cast<Bf16*>(base) + 2 * job.offset;
  Bf16* v_lane = reinterpret_cast<Bf16*>(base) + kv.key_dim * kv.block_size +
                 job.offset / 2 * 2 * kv.padded_dim + job.offset % 2;
  for (int i = 0; i < d; i += 16) {
    const int n = clamp16(d - i);
    Bf16 rounded[16];  // behind the head's end: zero
    V::store(rounded, V::load(k + i, n));
    for (int j = 0; j < n; j += 2) {
      __builtin_memcpy(k_lane + (i + j) * kv.block_size, rounded + j, 2 * sizeof(Bf16));
    }
    V::store(rounded, V::load(v + i, n));
    for (int j = 0; j < 16; ++j) v_lane[2 * (i + j)] = rounded[j];
  }
}

// Passes the n values of a head, as whole numbers in [-127, 127], to put(i, numbers): 32 from i on,
// behind the end zero. Returns their scale.
template <class V, class Put>
[[gnu::always_inline]] inline float quantize_head(const float* x, int n, Put put) {
  typename V::F most = V::zero();
  for (int i = 0; i < n; i += 16) most = V::max(most, V::abs(V::load(x + i, clamp16(n - i))));
  const Int8Scale by = kv_int8_scale(V::largest(most));
  const typename V::F inverse = V::set(by.inverse);
  for (int i = 0; i < n; i += 32) {
    const Block32<V> block = load_block<V>(x, i, n);
    std::int8_t numbers[32];
    V::store_int8(numbers, V::mul(block.a, inverse), V::mul(block.b, inverse));
    put(i, numbers);
  }
  return by.scale;
}

// The same as fours of 8 bits, with scales: kv_bytes.h. Three quarters of the words of V belong to
// neighbours of this token.
template <class V>
void store_bytes(const RopeJob& job, int head) {
  const KvHead& kv = job.kv;
  const int d = kv.head_dim;
  const auto [k, v, base] = locate_head(job, head);
  const KvBytes at = kv_bytes(kv);
  std::byte* k_lane = base + 4 * job.offset;
  std::byte* v_lane = base + at.values + job.offset / 4 * 4 * kv.padded_dim + job.offset % 4;
  const float k_scale = quantize_head<V>(k, d, [&](int i, const std::int8_t* numbers) {
    for (int j = 0; j < 32 && i + j < kv.key_dim; j += 4) {
      std::uint32_t four;
      __builtin_memcpy(&four, numbers + j, 4);
      four ^= 0x80808080u;  // + 128
      __builtin_memcpy(k_lane + (i + j) * kv.block_size, &four, 4);
    }
  });
  const float v_scale = quantize_head<V>(v, d, [&](int i, const std::int8_t* numbers) {
    for (int j = 0; j < 32 && i + j < kv.padded_dim; ++j) {
      v_lane[4 * (i + j)] = static_cast<std::byte>(numbers[j]);
    }
  });
  __builtin_memcpy(base + at.key_scales + 4 * job.offset, &k_scale, 4);
  __builtin_memcpy(base + at.value_scales + 4 * job.offset, &v_scale, 4);
}

// Of 8 bits K is stored mixed, and q multiplied so.
template <class V>
void mix_heads(const RopeJob& job) {
  const int d = job.kv.head_dim;
  const float inverse = 1.0f / static_cast<float>(kv_mix_width(d));
  for (int h = 0; h < job.num_heads; ++h) mix_head<V>(job.row + h * d, d, inverse);
  for (int h = 0; h < job.num_kv_heads; ++h)
    mix_head<V>(job.row + (job.num_heads + h) * d, d, 1.0f);
}

template <class V>
void rope_store(const RopeJob& job) {
  for (int h = 0; h < job.num_heads + job.num_kv_heads; ++h) {
    float* x = job.row + h * job.kv.head_dim;
    if (job.interleaved) {
      rotate_interleaved<V>(x, job.dims, job.cos_sin);
    } else {
      rotate_halves<V>(x, job.dims, job.cos_sin);
    }
  }
  if (job.kv.dtype == DType::kI8) mix_heads<V>(job);
  for (int head = 0; head < job.num_kv_heads; ++head) {
    switch (job.kv.dtype) {
      case DType::kF32:
        store_kv<V, float>(job, head);
        break;
      case DType::kF16:
        store_kv<V, Half>(job, head);
        break;
      case DType::kBf16:
        store_pairs<V>(job, head);
        break;
      case DType::kI8:
        store_bytes<V>(job, head);
        break;
      case DType::kF8E4M3:  // refused when the device is opened
        break;
    }
  }
}

}  // namespace
}  // namespace quire::cpu
