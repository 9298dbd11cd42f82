// Rotary embedding (RoFormer, arXiv 2104.09864) and causal softmax attention, one query head of
// one token at a time. KV block: [2][Gl][S][D] floats, K first.
#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/formats/f8_e4m3.h"
#include "kernels/formats/half.h"
#include "kernels/kv_scale.h"
#include "kernels/reference/ops.h"

namespace quire::reference {
namespace {

float largest_of(const float* x, int n) {
  float largest = 0.0f;
  for (int i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  return largest;
}

void store_fp8(const float* from, int n, float* to) {
  const int exponent = kv_exponent(std::bit_cast<std::uint32_t>(largest_of(from, n)));
  for (int i = 0; i < n; ++i) {
    const float scaled = std::ldexp(from[i], -exponent);
    std::byte code{};
    formats::F8E4M3::encode(&scaled, &code);
    formats::F8E4M3::decode(&code, &to[i]);
    to[i] = std::ldexp(to[i], exponent);
  }
}

void store_int8(const float* from, int n, float* to) {
  const Int8Scale by = kv_int8_scale(largest_of(from, n));
  for (int i = 0; i < n; ++i) to[i] = std::nearbyint(from[i] * by.inverse) * by.scale;
}

// The Walsh-Hadamard transform of x in runs of `width`. Twice gives width * x.
void mix(float* x, int n, int width) {
  for (int distance = 1; distance < width; distance *= 2) {
    for (int i = 0; i < n; ++i) {
      if ((i & distance) != 0) continue;
      const float a = x[i], b = x[i + distance];
      x[i] = a + b;
      x[i + distance] = a - b;
    }
  }
}

// to = the n values of a head as the arena's dtype holds them.
void store_rounded(DType dtype, const float* from, int n, float* to) {
  if (dtype == DType::kF32) {
    std::copy_n(from, n, to);
  } else if (dtype == DType::kF16) {
    std::transform(from, from + n, to, [](float x) { return to_float(to_half(x)); });
  } else if (dtype == DType::kBf16) {
    std::transform(from, from + n, to, [](float x) { return to_float(to_bf16(x)); });
  } else if (dtype == DType::kI8) {
    store_int8(from, n, to);
  } else {
    store_fp8(from, n, to);
  }
}

// The same of a key: 8 bits are of its transform.
void store_key(DType dtype, const float* from, int n, float* to) {
  if (dtype != DType::kI8) return store_rounded(dtype, from, n, to);
  const int width = kv_mix_width(n);
  std::copy_n(from, n, to);
  mix(to, n, width);
  store_int8(to, n, to);
  mix(to, n, width);
  for (int i = 0; i < n; ++i) to[i] /= static_cast<float>(width);
}

// Rotates the pair (x[a], x[b]) by the angle whose (cos, sin) is given.
void rotate_head(float* x, int dims, bool interleaved, const float* cos_sin /* [dims / 2][2] */) {
  for (int i = 0; i < dims / 2; ++i) {
    const int a = interleaved ? 2 * i : i;
    const int b = interleaved ? 2 * i + 1 : i + dims / 2;
    const float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
    const float xa = x[a], xb = x[b];
    x[a] = xa * c - xb * s;
    x[b] = xb * c + xa * s;
  }
}

BlockId block_of(const Batch& batch, int token, int position) {
  return batch.block_tables[static_cast<std::size_t>(batch.row_of_token[token]) *
                                static_cast<std::size_t>(batch.max_blocks) +
                            static_cast<std::size_t>(position / batch.block_size)];
}

float* kv_at(const KvLayer& kv, int half, BlockId block, int head, int offset) {
  auto* base = reinterpret_cast<float*>(kv.data + static_cast<std::size_t>(block) * kv.block_bytes);
  const std::size_t index = static_cast<std::size_t>(half * kv.num_kv_heads + head) *
                                static_cast<std::size_t>(kv.block_size) +
                            static_cast<std::size_t>(offset);
  return base + index * static_cast<std::size_t>(kv.head_dim);
}

float capped(float score, float cap) {
  return cap > 0.0f ? cap * std::tanh(score / cap) : score;
}

// softmax(scale * q . K) V over the positions that the token sees.
void attend(const float* q, const AttentionSpec& spec, const Batch& batch, const KvLayer& kv,
            int token, int kv_head, float* out) {
  const int last = batch.positions[token];
  const int first = spec.window > 0 ? std::max(0, last - spec.window + 1) : 0;
  std::vector<float> weights(static_cast<std::size_t>(last - first) + 1);
  float highest = -INFINITY;
  for (int p = first; p <= last; ++p) {
    const float* k = kv_key(kv, block_of(batch, token, p), kv_head, p % batch.block_size);
    float score = 0.0f;
    for (int d = 0; d < spec.head_dim; ++d) score += q[d] * k[d];
    float& weight = weights[static_cast<std::size_t>(p - first)];
    weight = capped(score * spec.scale, spec.soft_cap);
    highest = std::max(highest, weight);
  }
  float total = 0.0f;
  for (float& w : weights) total += w = std::exp(w - highest);
  std::fill_n(out, spec.head_dim, 0.0f);
  for (int p = first; p <= last; ++p) {
    const float* v = kv_value(kv, block_of(batch, token, p), kv_head, p % batch.block_size);
    const float weight = weights[static_cast<std::size_t>(p - first)];
    for (int d = 0; d < spec.head_dim; ++d) out[d] += weight * v[d];
  }
  for (int d = 0; d < spec.head_dim; ++d) out[d] /= total;
}

}  // namespace

float* kv_key(const KvLayer& kv, BlockId block, int head, int offset) {
  return kv_at(kv, 0, block, head, offset);
}
float* kv_value(const KvLayer& kv, BlockId block, int head, int offset) {
  return kv_at(kv, 1, block, head, offset);
}

std::size_t ReferenceOps::kv_block_bytes(DType, int num_kv_heads, int head_dim,
                                         int block_size) const {
  return std::size_t{2} * static_cast<std::size_t>(num_kv_heads) *
         static_cast<std::size_t>(head_dim) * static_cast<std::size_t>(block_size) * sizeof(float);
}

void ReferenceOps::rope_store(float* qkv, const AttentionSpec& spec, const RopeSpec& rope,
                              const float* cos_sin, const Batch& batch, const KvLayer& kv) {
  enqueue([qkv, spec, dims = rope.dims, interleaved = rope.interleaved, cos_sin, batch, kv] {
    const int d = spec.head_dim;
    const int stride = (spec.num_heads + 2 * spec.num_kv_heads) * d;
    for (int t = 0; t < batch.num_tokens; ++t) {
      const int position = batch.positions[t];
      const float* angles =
          cos_sin + static_cast<std::size_t>(position) * static_cast<std::size_t>(dims);
      float* row = qkv + static_cast<std::size_t>(t) * static_cast<std::size_t>(stride);
      for (int h = 0; h < spec.num_heads + spec.num_kv_heads; ++h) {
        rotate_head(row + h * d, dims, interleaved, angles);
      }
      const BlockId block = block_of(batch, t, position);
      for (int g = 0; g < spec.num_kv_heads; ++g) {
        const float* k = row + (spec.num_heads + g) * d;
        const float* v = k + spec.num_kv_heads * d;
        const int offset = position % batch.block_size;
        store_key(kv.dtype, k, d, kv_key(kv, block, g, offset));
        store_rounded(kv.dtype, v, d, kv_value(kv, block, g, offset));
      }
    }
  });
}

void ReferenceOps::attention(const float* qkv, const AttentionSpec& spec, const Batch& batch,
                             const KvLayer& kv, const Activation& out) {
  enqueue([qkv, spec, batch, kv, out] {
    const int d = spec.head_dim;
    const int stride = (spec.num_heads + 2 * spec.num_kv_heads) * d;
    for (int t = 0; t < batch.num_tokens; ++t) {
      const float* row = qkv + static_cast<std::size_t>(t) * static_cast<std::size_t>(stride);
      for (int h = 0; h < spec.num_heads; ++h) {
        attend(row + h * d, spec, batch, kv, t, spec.kv_head_of(h), activation_row(out, t) + h * d);
      }
    }
  });
}

}  // namespace quire::reference
