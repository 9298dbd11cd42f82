// Rotary embedding (RoFormer, arXiv 2104.09864) of q and k, and k and v into the paged arena. A
// thread handles kPairs pairs of one head of one token: four, where sizes and addresses allow
// 128-bit accesses, else one. Pairs are neighbours (interleaved) or half of the rotated dims apart.
// k is rotated on its way to the arena only: attention reads it nowhere else.
#include "kernels/cuda/row/row.h"
#include "kernels/cuda/row/row_tile.h"
#include "kernels/kv_scale.h"

namespace quire::cuda {
namespace {

constexpr int kThreads = 256;

struct RopeParams {
  RopeJob job;
  const std::int32_t* positions;
  const std::int32_t* row_of_token;
  const BlockId* block_tables;
  int max_blocks;
  int block_size;
  std::byte* arena;
  std::size_t block_bytes;
};

template <int kCount>
__device__ __forceinline__ void load_run(const float* from, float* values) {
  if constexpr (kCount == 1) {
    values[0] = from[0];
  } else {
    static_assert(kCount % 4 == 0);
    QUIRE_UNROLL
    for (int i = 0; i < kCount; i += 4) {
      const float4 quad = load_quad<true>(from, i, kCount);
      values[i] = quad.x, values[i + 1] = quad.y, values[i + 2] = quad.z, values[i + 3] = quad.w;
    }
  }
}

template <int kCount, typename T>
__device__ __forceinline__ void store_run(T* to, const float* values) {
  if constexpr (kCount == 1) {
    to[0] = from_float<T>(values[0]);
  } else if constexpr (kCount == 8 && sizeof(T) == 2) {
    store16(to, make_uint4(pack2<T>(values[0], values[1]), pack2<T>(values[2], values[3]),
                           pack2<T>(values[4], values[5]), pack2<T>(values[6], values[7])));
  } else {
    QUIRE_UNROLL
    for (int i = 0; i < kCount; i += 4) {
      store_quad<true>(to, i, kCount,
                       make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]));
    }
  }
}

// What a thread holds: 2 * kPairs values of a head, in two runs that begin `low` and `high` values
// into it. Pair i is (values[i], values[kPairs + i]), or where the runs follow one another
// (values[2 i], values[2 i + 1]).
template <int kPairs>
struct Pairs {
  float values[2 * kPairs];
  int low, high;

  template <typename T>
  __device__ __forceinline__ void store(T* head) const {
    if (high == low + kPairs && kPairs > 1) {
      store_run<2 * kPairs>(head + low, values);
    } else {
      store_run<kPairs>(head + low, values);
      store_run<kPairs>(head + high, values + kPairs);
    }
  }
  __device__ __forceinline__ void load(const float* head) {
    load_run<kPairs>(head + low, values);
    load_run<kPairs>(head + high, values + kPairs);
  }
  __device__ __forceinline__ void rotate(const float* cos_sin /* [kPairs][2] */, bool neighbours) {
    float angles[2 * kPairs];
    if constexpr (kPairs == 1) {
      angles[0] = cos_sin[0], angles[1] = cos_sin[1];
    } else {
      load_run<2 * kPairs>(cos_sin, angles);
    }
    QUIRE_UNROLL
    for (int i = 0; i < kPairs; ++i) {
      const float c = angles[2 * i], s = angles[2 * i + 1];
      if (neighbours) {
        const float a = values[2 * i], b = values[2 * i + 1];
        values[2 * i] = a * c - b * s;
        values[2 * i + 1] = b * c + a * s;
      } else {
        const float a = values[i], b = values[kPairs + i];
        values[i] = a * c - b * s;
        values[kPairs + i] = b * c + a * s;
      }
    }
  }
};

template <int kPairs, typename T>
__global__ void rope_store_kernel(const __grid_constant__ RopeParams p) {
  wait_for_previous_grid();
  allow_next_grid();
  const RopeJob& job = p.job;
  const int units = job.head_dim / (2 * kPairs);  // of a head
  const int heads = job.num_heads + 2 * job.num_kv_heads;
  const int index = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const int head = index / units;
  const int unit = index % units;
  if (head >= heads) return;
  const bool rotated = 2 * kPairs * unit < job.rope_dims && head < job.num_heads + job.num_kv_heads;
  if (!rotated && head < job.num_heads) return;  // q beyond the rotated dims stays as it is

  const auto token = blockIdx.x;
  float* from = job.qkv + (static_cast<std::size_t>(token) * static_cast<std::size_t>(heads) +
                           static_cast<std::size_t>(head)) *
                              static_cast<std::size_t>(job.head_dim);
  const bool apart = rotated && !job.interleaved;
  Pairs<kPairs> pairs;
  pairs.low = (apart ? 1 : 2) * kPairs * unit;
  pairs.high = pairs.low + (apart ? job.rope_dims / 2 : kPairs);
  pairs.load(from);
  const int position = p.positions[token];
  if (rotated) {
    pairs.rotate(job.cos_sin +
                     static_cast<std::size_t>(position) * static_cast<std::size_t>(job.rope_dims) +
                     2 * kPairs * unit,
                 !apart);
  }
  if (head < job.num_heads) return pairs.store(from);

  const int row = p.row_of_token[token];
  if (row < 0) return;  // of no row
  const BlockId block =
      p.block_tables[static_cast<std::size_t>(row) * static_cast<std::size_t>(p.max_blocks) +
                     static_cast<std::size_t>(position / p.block_size)];
  // Heads of K, then of V: as in qkv.
  const int line = (head - job.num_heads) * p.block_size + position % p.block_size;
  T* to = reinterpret_cast<T*>(p.arena + static_cast<std::size_t>(block) * p.block_bytes) +
          static_cast<std::size_t>(line) * static_cast<std::size_t>(job.head_dim);
  pairs.store(to);
}

// fp8: a warp for each head of a token, because the head's largest magnitude makes its scale.
constexpr int kHeadWarps = 4;
constexpr int kLanePairs = 4;  // of heads of at most 256

__global__ void __launch_bounds__(kHeadWarps* kWarpSize)
    rope_store_f8(const __grid_constant__ RopeParams p) {
  wait_for_previous_grid();
  allow_next_grid();
  const RopeJob& job = p.job;
  const int heads = job.num_heads + 2 * job.num_kv_heads;
  const int head = static_cast<int>(blockIdx.y) * kHeadWarps + warp_id();
  if (head >= heads) return;
  const auto token = blockIdx.x;
  const int position = p.positions[token];
  float* from = job.qkv + (static_cast<std::size_t>(token) * static_cast<std::size_t>(heads) +
                           static_cast<std::size_t>(head)) *
                              static_cast<std::size_t>(job.head_dim);
  const float* angles =
      job.cos_sin + static_cast<std::size_t>(position) * static_cast<std::size_t>(job.rope_dims);
  const int rotated_pairs = head < job.num_heads + job.num_kv_heads ? job.rope_dims / 2 : 0;
  const int lane_pairs = (job.head_dim / 2 - lane_id() + kWarpSize - 1) / kWarpSize;
  Pairs<1> pairs[kLanePairs];
  float largest = 0.0f;
  QUIRE_UNROLL
  for (int i = 0; i < kLanePairs; ++i) {
    if (i >= lane_pairs) break;
    const int pair = lane_id() + i * kWarpSize;
    const bool rotated = pair < rotated_pairs;
    const bool apart = rotated && !job.interleaved;
    pairs[i].low = (apart ? 1 : 2) * pair;
    pairs[i].high = pairs[i].low + (apart ? job.rope_dims / 2 : 1);
    pairs[i].load(from);
    if (rotated) pairs[i].rotate(angles + 2 * pair, !apart);
    largest = fmaxf(largest, fmaxf(fabsf(pairs[i].values[0]), fabsf(pairs[i].values[1])));
    if (head < job.num_heads && rotated) pairs[i].store(from);
  }
  const int row = p.row_of_token[token];
  if (head < job.num_heads || row < 0) return;

  const int exponent = kv_exponent(__float_as_uint(warp_max(largest)));
  const float factor = __uint_as_float(power_of_two_bits(-exponent));
  const BlockId block =
      p.block_tables[static_cast<std::size_t>(row) * static_cast<std::size_t>(p.max_blocks) +
                     static_cast<std::size_t>(position / p.block_size)];
  auto* base =
      reinterpret_cast<std::uint8_t*>(p.arena) + static_cast<std::size_t>(block) * p.block_bytes;
  const int line = (head - job.num_heads) * p.block_size + position % p.block_size;
  const int lines = 2 * job.num_kv_heads * p.block_size;
  std::uint8_t* to = base + static_cast<std::size_t>(line) * static_cast<std::size_t>(job.head_dim);
  QUIRE_UNROLL
  for (int i = 0; i < kLanePairs; ++i) {
    if (i >= lane_pairs) break;
    const Pairs<1>& pair = pairs[i];
    const uint32_t both = pack_fp8x2<e4m3>(pair.values[0] * factor, pair.values[1] * factor);
    to[pair.low] = static_cast<std::uint8_t>(both);
    to[pair.high] = static_cast<std::uint8_t>(both >> 8);
  }
  if (lane_id() == 0) {
    base[static_cast<std::size_t>(lines) * static_cast<std::size_t>(job.head_dim) +
         static_cast<std::size_t>(line)] = static_cast<std::uint8_t>(exponent + kKvExponentBias);
  }
}

cudaError_t launch_rope_f8(cudaStream_t stream, const RopeParams& params, int num_tokens) {
  if (params.job.head_dim > 2 * kLanePairs * kWarpSize) return cudaErrorInvalidValue;
  const int heads = params.job.num_heads + 2 * params.job.num_kv_heads;
  const dim3 grid(static_cast<unsigned>(num_tokens),
                  static_cast<unsigned>((heads + kHeadWarps - 1) / kHeadWarps));
  return launch_overlapped(rope_store_f8, grid, dim3(kHeadWarps * kWarpSize), 0, stream, params);
}

template <int kPairs, typename T>
cudaError_t launch_rope(cudaStream_t stream, const RopeParams& params, int num_tokens) {
  const RopeJob& job = params.job;
  const int units = (job.num_heads + 2 * job.num_kv_heads) * (job.head_dim / (2 * kPairs));
  const int threads = units < kThreads ? (units + kWarpSize - 1) / kWarpSize * kWarpSize : kThreads;
  const dim3 grid(static_cast<unsigned>(num_tokens),
                  static_cast<unsigned>((units + threads - 1) / threads));
  return launch_overlapped(rope_store_kernel<kPairs, T>, grid, dim3(static_cast<unsigned>(threads)),
                           0, stream, params);
}

}  // namespace

cudaError_t rope_store(cudaStream_t stream, const RopeJob& job, const Batch& batch,
                       const KvLayer& kv) {
  if (job.head_dim % 2 != 0 || job.rope_dims % 2 != 0 || job.rope_dims > job.head_dim) {
    return cudaErrorInvalidValue;
  }
  if (batch.num_tokens == 0) return cudaSuccess;
  const RopeParams params = {job,
                             batch.positions,
                             batch.row_of_token,
                             batch.block_tables,
                             batch.max_blocks,
                             batch.block_size,
                             kv.data,
                             kv.block_bytes};
  const bool wide = job.head_dim % 8 == 0 && job.rope_dims % 8 == 0 && kv.block_bytes % 16 == 0 &&
                    is_aligned(job.qkv, 16) && is_aligned(job.cos_sin, 16) &&
                    is_aligned(kv.data, 16);
  const auto launch_as = [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    return wide ? launch_rope<4, T>(stream, params, batch.num_tokens)
                : launch_rope<1, T>(stream, params, batch.num_tokens);
  };
  switch (kv.dtype) {
    case DType::kF32:
      return launch_as(static_cast<float*>(nullptr));
    case DType::kF16:
      return launch_as(static_cast<f16*>(nullptr));
    case DType::kBf16:
      return launch_as(static_cast<bf16*>(nullptr));
    case DType::kF8E4M3:
      return launch_rope_f8(stream, params, batch.num_tokens);
    case DType::kI8:  // refused when the device is opened
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace quire::cuda
