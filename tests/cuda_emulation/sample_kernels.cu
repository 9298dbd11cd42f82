// Right kernels of the emulation's tests.
#include "kernels/cuda/dev/dev.h"
#include "tests/cuda_emulation/sample_kernels.h"

namespace quire::samples {
namespace {

using namespace quire::cuda;

__global__ void __launch_bounds__(1024)
    rms_norm_kernel(const float* __restrict__ x, float* out, int width) {
  const float* row = x + static_cast<size_t>(blockIdx.x) * width;
  float squares = 0.0f;
  for (int i = thread_rank(); i < width; i += block_threads()) squares += row[i] * row[i];
  const float scale = rsqrtf(block_sum(squares) / static_cast<float>(width) + 1e-5f);
  for (int i = thread_rank(); i < width; i += block_threads()) {
    out[static_cast<size_t>(blockIdx.x) * width + i] = row[i] * scale;
  }
}

__global__ void warp_kernel(const int* values, WarpResults* out) {
  const int lane = lane_id();
  const int v = values[lane];
  out->by_xor[lane] = shuffle_xor(v, 5);
  out->down[lane] = shuffle_down(v, 3);
  out->up[lane] = shuffle_up(v, 3);
  out->from[lane] = shuffle(v, 31 - lane);
  out->in_groups_of_8[lane] = reduce_lanes<8>(v, Sum{});
  out->ballot[lane] = ballot(v > 0);
  if (lane < 16) {
    out->lower_half_ballot[lane] = ballot(v > 0, 0x0000ffffu);
  } else {
    out->lower_half_ballot[lane] = ballot(v > 0, 0xffff0000u);
  }
  __syncwarp();
  out->match[lane] = __match_any_sync(kAllLanes, v);
  out->any[lane] = any_lane(v == values[7]);
  out->all[lane] = all_lanes(v == values[7]);
  out->sum[lane] = __reduce_add_sync(kAllLanes, v);
  out->most[lane] = __reduce_max_sync(kAllLanes, v);
  out->float_sum[lane] = warp_sum(static_cast<float>(v) * 0.1f);
  out->float_max[lane] = warp_max(static_cast<float>(v) * 0.1f);
  out->wide[lane] = shuffle_xor(static_cast<double>(v) + 0.5, 1);
}

__global__ void reductions_kernel(const float* values, float* out) {
  const float v = values[thread_rank()];
  out[thread_rank()] = block_sum(v);
  out[block_threads() + thread_rank()] = block_max(v);
}

// One warp; rows of a and b in dynamic shared memory, 16 bytes a chunk.
template <typename T, bool kWait>
__global__ void product_kernel(const uint16_t* a, const uint16_t* b, float* c, int k) {
  QUIRE_DYN_SMEM(uint16_t, tile_a);
  uint16_t* tile_b = tile_a + 16 * k;
  const int lane = lane_id();
  for (int i = lane * 8; i < 16 * k; i += 256) async_copy<16>(tile_a + i, a + i);
  for (int i = lane * 8; i < 8 * k; i += 256) async_copy<16>(tile_b + i, b + i);
  async_commit();
  if constexpr (kWait) async_wait<0>();
  __syncthreads();
  float d[4] = {};
  for (int at = 0; at < k; at += 16) {
    uint32_t regs_a[4];
    uint32_t regs_b[2];
    ldmatrix(regs_a, tile_a + (lane % 16) * k + at + lane / 16 * 8);
    ldmatrix_trans(regs_b, tile_b + (at + lane % 16) * 8);
    mma<T>(d, regs_a, regs_b[0], regs_b[1]);
  }
  float* row = c + lane / 4 * 8 + lane % 4 * 2;
  row[0] = d[0];
  row[1] = d[1];
  row[64] = d[2];
  row[65] = d[3];
}

__global__ void product_s8_kernel(const int8_t* a, const int8_t* b, int32_t* c, int k) {
  const int group = lane_id() / 4;
  const int pair = lane_id() % 4;
  const auto word = [&](const int8_t* from, int row, int column) {
    return load4_once(from + row * k + column);
  };
  int32_t d[4] = {};
  for (int at = 0; at < k; at += 32) {
    const int column = at + 4 * pair;
    const uint32_t regs[4] = {word(a, group, column), word(a, group + 8, column),
                              word(a, group, column + 16), word(a, group + 8, column + 16)};
    mma_s8(d, regs, word(b, group, column), word(b, group, column + 16));
  }
  for (int i = 0; i < 4; ++i) c[(group + i / 2 * 8) * 8 + pair * 2 + i % 2] = d[i];
}

__global__ void copy_with_zeros_kernel(const float* from, float* out, int count) {
  QUIRE_SHARED(staged, float[3][128]);
  const int i = thread_rank() * 4;
  async_copy_or_zero<16>(&staged[0][i], from + i, i < count);
  async_copy_or_zero<8>(&staged[1][i], from + i, i < count);
  async_copy_or_zero<8>(&staged[1][i + 2], from + i + 2, i + 2 < count);
  for (int j = i; j < i + 4; ++j) async_copy_or_zero<4>(&staged[2][j], from + j, j < count);
  async_commit();
  async_wait<0>();
  for (int j = i; j < i + 4; ++j) {
    for (int size = 0; size < 3; ++size) out[size * 128 + j] = staged[size][j];
  }
}

__global__ void histogram_kernel(const int* values, int count, unsigned* histogram) {
  QUIRE_SHARED(bins, unsigned[16]);
  if (threadIdx.x < 16) bins[threadIdx.x] = 0;
  __syncthreads();
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < count;
       i += static_cast<int>(gridDim.x * blockDim.x)) {
    atomicAdd(&bins[values[i] % 16], 1u);
  }
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(&histogram[threadIdx.x], bins[threadIdx.x]);
}

__global__ void number_kernel(unsigned* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const auto number = block * static_cast<unsigned>(block_threads()) + thread_rank();
  atomicAdd(&out[number], number + 1);
}

__global__ void count_kernel(const int* values, int* out) {
  const bool positive = values[thread_rank()] > 0;
  const int count = __syncthreads_count(positive);
  const int any = __syncthreads_or(positive) != 0 ? 1000 : 0;
  const int all = __syncthreads_and(positive) != 0 ? 2000 : 0;
  out[thread_rank()] = count + any + all;
}

__global__ void locked_sum_kernel(unsigned* lock, int* sum) {
  while (atomicCAS(lock, 0u, 1u) != 0) spin_pause();
  fence_gpu();
  *static_cast<volatile int*>(sum) = *static_cast<volatile int*>(sum) + 1;
  fence_gpu();
  atomicExch(lock, 0u);
}

__global__ void fill_shared_kernel(int* out, int count) {
  QUIRE_DYN_SMEM(int, values);
  for (int i = thread_rank(); i < count; i += block_threads()) values[i] = i % 7;
  __syncthreads();
  int sum = 0;
  for (int i = 0; i < count; ++i) sum += values[i];
  out[thread_rank()] = sum;
}

__global__ void scale_kernel(float* x, int n, float factor) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] *= factor;
}

__global__ void add_kernel(float* x, const float* y, int n) {
  wait_for_previous_grid();
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] += y[i];
  allow_next_grid();
}

__global__ void convert_kernel(const float* x, float* out, int n) {
  const int i = static_cast<int>(threadIdx.x) * 2;
  if (i + 1 >= n) return;
  const float2 values[4] = {
      unpack2<bf16>(pack2<bf16>(x[i], x[i + 1])), unpack2<f16>(pack2<f16>(x[i], x[i + 1])),
      unpack_fp8x2<e4m3>(pack_fp8x2<e4m3>(x[i], x[i + 1])),
      make_float2(to_float(from_float<e5m2>(x[i])), to_float(from_float<e5m2>(x[i + 1])))};
  for (int kind = 0; kind < 4; ++kind) {
    out[kind * n + i] = values[kind].x;
    out[kind * n + i + 1] = values[kind].y;
  }
}

__global__ void bits_kernel(const uint32_t* x, uint32_t* out, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= n) return;
  const uint32_t v = x[i];
  out[0 * n + i] = static_cast<uint32_t>(__popc(v));
  out[1 * n + i] = static_cast<uint32_t>(__clz(static_cast<int>(v)));
  out[2 * n + i] = static_cast<uint32_t>(__ffs(static_cast<int>(v)));
  out[3 * n + i] = __brev(v);
  out[4 * n + i] = __byte_perm(v, ~v, 0x1604);
  out[5 * n + i] =
      static_cast<uint32_t>(__dp4a(static_cast<int>(v), static_cast<int>(v ^ 0x80ff017fu), -3));
  out[6 * n + i] = static_cast<uint32_t>(int8_of(v, 2) + nibble_of(v, 5));
  out[7 * n + i] = __float_as_uint(__uint2float_rn(v >> 8));
}

}  // namespace

cudaError_t rms_norm(const float* x, float* out, int rows, int width, int threads,
                     cudaStream_t stream) {
  return launch(rms_norm_kernel, rows, threads, 0, stream, x, out, width);
}
cudaError_t warp_primitives(const int* values, WarpResults* out, cudaStream_t stream) {
  return launch(warp_kernel, 1, 32, 0, stream, values, out);
}
cudaError_t block_reductions(const float* values, float* out, int threads, cudaStream_t stream) {
  return launch(reductions_kernel, 1, dim3(32, threads / 32), 0, stream, values, out);
}
cudaError_t product_bf16(const uint16_t* a, const uint16_t* b, float* c, int k, bool wait,
                         cudaStream_t stream) {
  const auto kernel = wait ? product_kernel<bf16, true> : product_kernel<bf16, false>;
  return launch(kernel, 1, 32, 24 * k * sizeof(uint16_t), stream, a, b, c, k);
}
cudaError_t product_f16(const uint16_t* a, const uint16_t* b, float* c, int k,
                        cudaStream_t stream) {
  return launch(product_kernel<f16, true>, 1, 32, 24 * k * sizeof(uint16_t), stream, a, b, c, k);
}
cudaError_t product_s8(const int8_t* a, const int8_t* b, int32_t* c, int k, cudaStream_t stream) {
  return launch(product_s8_kernel, 1, 32, 0, stream, a, b, c, k);
}
cudaError_t copy_with_zeros(const float* from, float* out, int count, cudaStream_t stream) {
  return launch(copy_with_zeros_kernel, 1, 32, 0, stream, from, out, count);
}
cudaError_t histogram(const int* values, int count, unsigned* histogram, cudaStream_t stream) {
  return launch(histogram_kernel, 3, 64, 0, stream, values, count, histogram);
}
cudaError_t number_threads(unsigned* out, const unsigned (&grid)[3], const unsigned (&block)[3],
                           cudaStream_t stream) {
  return launch(number_kernel, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]),
                0, stream, out);
}
cudaError_t count_in_block(const int* values, int* out, int threads, cudaStream_t stream) {
  return launch(count_kernel, 1, threads, 0, stream, values, out);
}
cudaError_t locked_sum(unsigned* lock, int* sum, int blocks, cudaStream_t stream) {
  return launch(locked_sum_kernel, blocks, 33, 0, stream, lock, sum);
}
cudaError_t fill_shared(int* out, size_t bytes, bool ask, cudaStream_t stream) {
  if (ask) {
    const cudaError_t refused = allow_shared_bytes(fill_shared_kernel, bytes);
    if (refused != cudaSuccess) return refused;
  }
  return launch(fill_shared_kernel, 1, 32, bytes, stream, out,
                static_cast<int>(bytes / sizeof(int)));
}
cudaError_t scale(float* x, int n, float factor, cudaStream_t stream) {
  return launch(scale_kernel, (n + 63) / 64, 64, 0, stream, x, n, factor);
}
cudaError_t add(float* x, const float* y, int n, cudaStream_t stream) {
  return launch_overlapped(add_kernel, (n + 63) / 64, 64, 0, stream, x, y, n);
}
cudaError_t convert(const float* x, float* out, int n, cudaStream_t stream) {
  return launch(convert_kernel, 1, (n + 1) / 2, 0, stream, x, out, n);
}
cudaError_t bit_functions(const uint32_t* x, uint32_t* out, int n, cudaStream_t stream) {
  return launch(bits_kernel, 1, n, 0, stream, x, out, n);
}

}  // namespace quire::samples
