// Partial sums put together by their tree, plus bias and residual, then the RMS norm: one block per
// row. The host turns the post-order program into "push the next partial, then merge m times"; a
// kernel thread runs that on a stack of registers, loading four partials at a time. One or two
// partials (one rank, two ranks) need no stack and stay in registers up to the norm.
#include "kernels/cuda/row/row.h"
#include "kernels/cuda/row/row_tile.h"

namespace quire::cuda {
namespace {

constexpr int kStack = 8;  // a balanced tree of kMaxPartials needs 7

struct CombineParams {
  const float* partials[CombineJob::kMaxPartials];  // in the order in which they are pushed
  std::int8_t merges[CombineJob::kMaxPartials];     // after each push
  int pushes;
  int columns;
  float eps;
  const float* bias;
  float* residual;
  const float* norm_weight;
};

// False where the program is not one tree, or one too deep for the stack.
bool translate(const CombineJob& job, CombineParams& params) {
  int depth = 0;
  for (int i = 0; i < job.program_size; ++i) {
    const int entry = job.program[i];
    if (entry >= CombineJob::kMaxPartials) return false;
    if (entry >= 0) {
      if (depth == kStack || params.pushes == CombineJob::kMaxPartials) return false;
      params.partials[params.pushes++] = job.partials[entry];
      ++depth;
    } else {
      if (depth < 2) return false;
      ++params.merges[params.pushes - 1];
      --depth;
    }
  }
  return depth == (job.program_size > 0 ? 1 : 0);
}

// The sum of the partials' quads at `at` of the row that begins `row` floats into each.
template <bool kAligned>
__device__ __forceinline__ float4 run_program(const CombineParams& p, std::size_t row, int at) {
  float4 stack[kStack];  // the top is stack[0]
  QUIRE_UNROLL
  for (int i = 0; i < kStack; ++i) stack[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  QUIRE_NO_UNROLL
  for (int base = 0; base < p.pushes; base += 4) {
    float4 next[4];
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (base + j < p.pushes) {
        next[j] = load_quad<kAligned>(p.partials[base + j] + row, at, p.columns);
      }
    }
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (base + j >= p.pushes) break;
      QUIRE_UNROLL
      for (int i = kStack - 1; i > 0; --i) stack[i] = stack[i - 1];
      stack[0] = next[j];
      QUIRE_NO_UNROLL
      for (int m = 0; m < p.merges[base + j]; ++m) {
        stack[0] = stack[1] + stack[0];
        QUIRE_UNROLL
        for (int i = 1; i + 1 < kStack; ++i) stack[i] = stack[i + 1];
      }
    }
  }
  return stack[0];
}

template <bool kAligned>
__device__ __forceinline__ float4 add_partials(const CombineParams& p, std::size_t row, int at) {
  if (p.pushes == 0) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const float4 first = load_quad<kAligned>(p.partials[0] + row, at, p.columns);
  return p.pushes == 1 ? first : first + load_quad<kAligned>(p.partials[1] + row, at, p.columns);
}

// Adds bias and residual, and writes the new residual.
template <bool kAligned>
__device__ __forceinline__ float4 update_residual(const CombineParams& p, std::size_t row, int at,
                                                  float4 sum) {
  if (p.bias != nullptr) sum = sum + load_quad<kAligned>(p.bias, at, p.columns);
  sum = load_quad<kAligned>(p.residual + row, at, p.columns) + sum;
  store_quad<kAligned>(p.residual + row, at, p.columns, sum);
  return sum;
}

// kFew: at most two partials.
template <int kQuads, bool kAligned, bool kFew, typename Out>
__global__ void combine_kernel(const __grid_constant__ CombineParams p, Out* out) {
  using Tile = RowTile<kQuads, kAligned>;
  Tile weight = {}, tile = {};
  if (p.norm_weight != nullptr) weight.load(p.norm_weight, p.columns);
  wait_for_previous_grid();
  allow_next_grid();
  const std::size_t row = blockIdx.x * static_cast<std::size_t>(p.columns);
  if constexpr (kFew) {
    QUIRE_UNROLL
    for (int i = 0; i < kQuads; ++i) tile.quad[i] = add_partials<kAligned>(p, row, Tile::column(i));
    QUIRE_UNROLL
    for (int i = 0; i < kQuads; ++i) {
      tile.quad[i] = update_residual<kAligned>(p, row, Tile::column(i), tile.quad[i]);
    }
  } else {
    QUIRE_NO_UNROLL
    for (int i = 0; i < kQuads; ++i) {
      const int at = Tile::column(i);
      update_residual<kAligned>(p, row, at, run_program<kAligned>(p, row, at));
    }
    tile.load(p.residual + row, p.columns);  // what this very thread wrote
  }
  if (p.norm_weight != nullptr) store_normed(tile, weight, p.columns, p.eps, out + row);
}

}  // namespace

cudaError_t combine(cudaStream_t stream, const CombineJob& job) {
  CombineParams params = {};
  if (job.columns <= 0 || job.columns > kMaxRowColumns || !translate(job, params)) {
    return cudaErrorInvalidValue;
  }
  if (job.rows == 0) return cudaSuccess;
  params.columns = job.columns;
  params.eps = job.eps;
  params.bias = job.bias;
  params.residual = job.residual;
  params.norm_weight = job.norm_weight;
  void* const out_data = job.norm_weight != nullptr ? job.out.data : nullptr;
  bool aligned = rows_are_aligned(job.columns, job.bias, job.residual, job.norm_weight, out_data);
  for (int i = 0; i < params.pushes; ++i) aligned = aligned && is_aligned(params.partials[i], 16);
  const RowShape shape = row_shape(job.columns);
  const dim3 grid(static_cast<unsigned>(job.rows)), block(static_cast<unsigned>(shape.threads));
  const auto layout = job.norm_weight != nullptr ? job.out.layout : ActivationLayout::kF32;
  return with_output(layout, [&](auto* element) {
    using Out = std::remove_pointer_t<decltype(element)>;
    return with_row_shape(shape, aligned, [&](auto quads, auto is_aligned_row) {
      constexpr int kQuads = decltype(quads)::value;
      constexpr bool kAligned = decltype(is_aligned_row)::value;
      auto kernel = combine_kernel<kQuads, kAligned, false, Out>;
      if constexpr (kAligned) {
        if (params.pushes <= 2) kernel = combine_kernel<kQuads, true, true, Out>;
      }
      return launch_overlapped(kernel, grid, block, 0, stream, params, static_cast<Out*>(out_data));
    });
  });
}

}  // namespace quire::cuda
