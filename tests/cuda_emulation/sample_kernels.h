// Small kernels for the tests of the emulation, right ones and wrong ones, by their launchers. The
// same source compiles with nvcc.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace quire::samples {

// out[row][i] = x[row][i] / sqrt(mean of squares of the row + 1e-5); one block of `threads` a row.
cudaError_t rms_norm(const float* x, float* out, int rows, int width, int threads,
                     cudaStream_t stream);

// What lane l of one warp got, for l = 0..31.
struct WarpResults {
  int by_xor[32], down[32], up[32], from[32], in_groups_of_8[32];
  unsigned ballot[32], lower_half_ballot[32], match[32];
  int any[32], all[32], sum[32], most[32];
  float float_sum[32], float_max[32];
  double wide[32];
};
cudaError_t warp_primitives(const int* values, WarpResults* out, cudaStream_t stream);

// out[thread] = sum, and out[threads + thread] = maximum, of values over the block.
cudaError_t block_reductions(const float* values, float* out, int threads, cudaStream_t stream);

// c [16][8] = a [16][k] x b [k][8] with cp.async, ldmatrix and mma; k a multiple of 16 (s8: 32).
// a and b hold 16-bit (8-bit) elements; b is stored [k][8] for 16-bit types, [8][k] for s8.
cudaError_t product_bf16(const uint16_t* a, const uint16_t* b, float* c, int k, bool wait,
                         cudaStream_t stream);
cudaError_t product_f16(const uint16_t* a, const uint16_t* b, float* c, int k, cudaStream_t stream);
cudaError_t product_s8(const int8_t* a, const int8_t* b, int32_t* c, int k, cudaStream_t stream);

// out[i] = sum over stages of from[stage][i]: a ring of two stages of cp.async. With
// `copy_too_early` the next stage is issued before all threads have read what it overwrites.
cudaError_t staged_sum(const float* from, float* out, int stages, bool copy_too_early,
                       cudaStream_t stream);
// out[i] = from[i] for i < count, else 0, through the zero-filling copies of 16, 8 and 4 bytes.
cudaError_t copy_with_zeros(const float* from, float* out, int count, cudaStream_t stream);

// out[i] = in[blockDim - 1 - i] by way of shared memory; the barrier may be left out.
cudaError_t reverse(const int* in, int* out, int threads, bool barrier, cudaStream_t stream);

// Barriers that not all threads reach in the same way.
enum class Divergence { kReturnsEarly, kTwoPlaces, kHalfShuffles, kDeadLane, kForeignMask };
cudaError_t diverge(Divergence how, cudaStream_t stream);

// Accesses of thread 5 to element `index`: of a buffer, dynamic shared memory of 100 floats, or a
// static array of 10 floats.
enum class Place { kGlobalRead, kGlobalWrite, kDynamicShared, kStaticShared, kMisaligned };
cudaError_t touch(Place place, float* buffer, int index, cudaStream_t stream);
// A stack deeper than any: each of `depth` calls holds 1 KB.
cudaError_t recurse(int depth, int* out, cudaStream_t stream);
// Reads shared memory that nobody has written.
cudaError_t read_unwritten(float* out, cudaStream_t stream);

// histogram[value % 16] counts, by atomics, over several blocks.
cudaError_t histogram(const int* values, int count, unsigned* histogram, cudaStream_t stream);

// All blocks add their number, meet at a barrier of the whole grid, and write the sum they see.
cudaError_t grid_barrier(unsigned* counter, unsigned* sum, unsigned* out, int blocks,
                         cudaStream_t stream);
// Block 1 waits for a flag that block 0 sets; with `never` nobody sets it.
cudaError_t wait_for_block(uint32_t* flag, int* out, bool never, cudaStream_t stream);

// One-shot sum over ranks: each rank publishes its flag, waits for all flags, and adds all ranks'
// data in rank order.
struct Ranks {
  const float* data[4];
  uint32_t* flags[4];
  int count;
  int self;
};
cudaError_t sum_over_ranks(const Ranks& ranks, float* out, int n, uint32_t epoch,
                           cudaStream_t stream);

// Each thread writes 1 + its linear number over the whole grid, at that number.
cudaError_t number_threads(unsigned* out, const unsigned (&grid)[3], const unsigned (&block)[3],
                           cudaStream_t stream);
// out[thread]: threads of the block whose value is positive, plus 1000 if any is, 2000 if all are.
cudaError_t count_in_block(const int* values, int* out, int threads, cudaStream_t stream);
// *sum += 1 per thread under a lock that threads of all blocks spin for.
cudaError_t locked_sum(unsigned* lock, int* sum, int blocks, cudaStream_t stream);
// out[i] = sum over the block's dynamic shared memory of `bytes`, filled by all threads.
cudaError_t fill_shared(int* out, size_t bytes, bool ask, cudaStream_t stream);

cudaError_t scale(float* x, int n, float factor, cudaStream_t stream);
cudaError_t add(float* x, const float* y, int n, cudaStream_t stream);

// Packs and unpacks each x through bf16, f16, e4m3, e5m2: out[4][n].
cudaError_t convert(const float* x, float* out, int n, cudaStream_t stream);
// Bit functions of x: out[8][n].
cudaError_t bit_functions(const uint32_t* x, uint32_t* out, int n, cudaStream_t stream);

}  // namespace quire::samples
