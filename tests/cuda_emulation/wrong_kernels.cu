// Wrong kernels that the emulation must catch, next to their right twins, and kernels that wait for
// each other.
#include "kernels/cuda/dev/dev.h"
#include "tests/cuda_emulation/sample_kernels.h"

namespace quire::samples {
namespace {

using namespace quire::cuda;

template <bool kBarrier>
__global__ void reverse_kernel(const int* in, int* out) {
  QUIRE_DYN_SMEM(int, values);
  const int i = thread_rank();
  values[i] = in[i];
  if constexpr (kBarrier) __syncthreads();
  out[i] = values[block_threads() - 1 - i];
}

template <bool kTooEarly>
__global__ void staged_sum_kernel(const float* from, float* out, int stages) {
  QUIRE_SHARED(ring, float[2][128]);
  const int i = thread_rank();
  const int other = 127 - i;
  float sum = 0.0f;
  async_copy<4>(&ring[0][i], from + i);
  async_commit();
  for (int stage = 0; stage < stages; ++stage) {
    const bool more = stage + 1 < stages;
    if (kTooEarly && more) {
      async_copy<4>(&ring[(stage + 1) % 2][i], from + (stage + 1) * 128 + i);
      async_commit();
      async_wait<1>();
      __syncthreads();
    } else {
      async_wait<0>();
      __syncthreads();
      if (more) async_copy<4>(&ring[(stage + 1) % 2][i], from + (stage + 1) * 128 + i);
      async_commit();
    }
    sum += ring[stage % 2][other];
  }
  out[other] = sum;
}

__global__ void diverge_kernel(Divergence how) {
  const int i = thread_rank();
  if (how == Divergence::kReturnsEarly) {
    if (i >= 48) return;
    __syncthreads();
  } else if (how == Divergence::kTwoPlaces) {
    if (i < 32) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  } else if (how == Divergence::kHalfShuffles) {
    if (i % 2 == 0) shuffle_xor(i, 2);
    __syncthreads();
  } else if (how == Divergence::kDeadLane) {
    if (i == 3) return;
    for (int turn = 0; turn < 4; ++turn) shuffle_xor(i, 1);
  } else {
    shuffle_xor(i, 1, 0x00ffffffu);
  }
}

__global__ void touch_kernel(Place place, float* buffer, int index) {
  QUIRE_DYN_SMEM(float, dynamic);
  QUIRE_SHARED(ten, float[10]);
  if (thread_rank() != 5) return;
  if (place == Place::kGlobalRead) buffer[0] = buffer[index];
  if (place == Place::kGlobalWrite) buffer[index] = 1.0f;
  if (place == Place::kDynamicShared) dynamic[index] = 1.0f;
  if (place == Place::kStaticShared) {
    ten[index] = 1.0f;
    buffer[0] = ten[0];
  }
  if (place == Place::kMisaligned) buffer[0] = __uint_as_float(load16(buffer + index).x);
}

__device__ __noinline__ int deeper(int depth) {
  volatile int frame[256];
  frame[depth % 256] = depth;
  return depth == 0 ? 0 : deeper(depth - 1) + frame[depth % 256];
}
__global__ void recurse_kernel(int depth, int* out) {
  *out = deeper(depth);
}

__global__ void read_unwritten_kernel(float* out) {
  QUIRE_SHARED(values, float[32]);
  out[thread_rank()] = values[thread_rank()];
}

__global__ void grid_barrier_kernel(unsigned* counter, unsigned* sum, unsigned* out) {
  if (thread_rank() == 0) {
    atomicAdd(sum, blockIdx.x + 1);
    add_acq_rel_gpu(counter, 1);
    while (load_acquire_gpu(counter) < gridDim.x) spin_pause();
  }
  __syncthreads();
  if (thread_rank() == 32) out[blockIdx.x] = *sum;
}

__global__ void wait_for_block_kernel(uint32_t* flag, int* out, bool never) {
  if (thread_rank() != 0) return;
  if (blockIdx.x == 0) {
    *out = 41;
    if (!never) store_release_gpu(flag, 7);
  } else {
    while (load_acquire_gpu(flag) != 7) spin_pause();
    *out += 1;
  }
}

__global__ void sum_over_ranks_kernel(Ranks ranks, float* out, int n, uint32_t epoch) {
  const int rank = thread_rank();
  if (rank < ranks.count) {
    // Own flag for this block, then everybody's.
    if (rank == ranks.self) store_release_sys(&ranks.flags[ranks.self][blockIdx.x], epoch);
    while (load_acquire_sys(&ranks.flags[rank][blockIdx.x]) < epoch) spin_pause();
  }
  __syncthreads();
  for (int i = static_cast<int>(blockIdx.x) * block_threads() + thread_rank(); i < n / 4;
       i += static_cast<int>(gridDim.x) * block_threads()) {
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int r = 0; r < ranks.count; ++r) {
      const uint4 bits = load16_peer(ranks.data[r] + 4 * i);
      sum.x += __uint_as_float(bits.x);
      sum.y += __uint_as_float(bits.y);
      sum.z += __uint_as_float(bits.z);
      sum.w += __uint_as_float(bits.w);
    }
    store16(out + 4 * i, make_uint4(__float_as_uint(sum.x), __float_as_uint(sum.y),
                                    __float_as_uint(sum.z), __float_as_uint(sum.w)));
  }
}

}  // namespace

cudaError_t reverse(const int* in, int* out, int threads, bool barrier, cudaStream_t stream) {
  return launch(barrier ? reverse_kernel<true> : reverse_kernel<false>, 1, threads,
                threads * sizeof(int), stream, in, out);
}
cudaError_t staged_sum(const float* from, float* out, int stages, bool copy_too_early,
                       cudaStream_t stream) {
  return launch(copy_too_early ? staged_sum_kernel<true> : staged_sum_kernel<false>, 1, 128, 0,
                stream, from, out, stages);
}
cudaError_t diverge(Divergence how, cudaStream_t stream) {
  return launch(diverge_kernel, 2, 64, 0, stream, how);
}
cudaError_t touch(Place place, float* buffer, int index, cudaStream_t stream) {
  return launch(touch_kernel, 1, 32, 100 * sizeof(float), stream, place, buffer, index);
}
cudaError_t recurse(int depth, int* out, cudaStream_t stream) {
  return launch(recurse_kernel, 1, 1, 0, stream, depth, out);
}
cudaError_t read_unwritten(float* out, cudaStream_t stream) {
  return launch(read_unwritten_kernel, 1, 32, 0, stream, out);
}
cudaError_t grid_barrier(unsigned* counter, unsigned* sum, unsigned* out, int blocks,
                         cudaStream_t stream) {
  return launch(grid_barrier_kernel, blocks, 64, 0, stream, counter, sum, out);
}
cudaError_t wait_for_block(uint32_t* flag, int* out, bool never, cudaStream_t stream) {
  return launch(wait_for_block_kernel, 2, 32, 0, stream, flag, out, never);
}
cudaError_t sum_over_ranks(const Ranks& ranks, float* out, int n, uint32_t epoch,
                           cudaStream_t stream) {
  return launch(sum_over_ranks_kernel, 2, 64, 0, stream, ranks, out, n, epoch);
}

}  // namespace quire::samples
