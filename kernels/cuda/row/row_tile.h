// One row of fp32 over the threads of one block, four columns ("a quad") at a time: quad q belongs
// to thread q % threads, for any alignment. How many threads and quads depends on the number of
// columns alone, so every sum over a row has one order, whatever the batch, the alignment of the
// row or the kernel it runs in.
#pragma once

#include <type_traits>

#include "kernels/cuda/dev/dev.h"
#include "kernels/tensor.h"

namespace quire::cuda {

struct RowShape {
  int threads = 32;
  int quads = 1;  // of a thread: 1, 2, 4 or 8
};
inline constexpr int kMaxRowColumns = 4 * 8 * 1024;

// About 256 threads where that suffices, whole warps.
inline RowShape row_shape(int columns) {
  const int quads = (columns + 3) / 4;
  RowShape shape;
  while (shape.quads < 8 && quads > 256 * shape.quads) shape.quads *= 2;
  const int threads = (quads + shape.quads - 1) / shape.quads;
  shape.threads = (threads + kWarpSize - 1) / kWarpSize * kWarpSize;
  return shape;
}

// For kernels without sums over a row: a thread makes one quad, the grid is rows x parts of a row.
struct QuadGrid {
  dim3 grid, block;
};
inline QuadGrid quad_grid(int rows, int columns) {
  constexpr int kMostThreads = 256;
  const int quads = (columns + 3) / 4;
  const int warps = (quads + kWarpSize - 1) / kWarpSize;
  const int threads = quads < kMostThreads ? warps * kWarpSize : kMostThreads;
  return {dim3(static_cast<unsigned>(rows), static_cast<unsigned>((quads + threads - 1) / threads)),
          dim3(static_cast<unsigned>(threads))};
}

inline bool is_aligned(const void* pointer, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}
// Whether all rows of [T][columns] that begin at these addresses may be read and written in quads.
template <typename... Pointers>
bool rows_are_aligned(int columns, Pointers... rows) {
  return columns % 4 == 0 && (is_aligned(rows, 16) && ...);
}

// Calls fn(quads of a thread, all aligned) with integral constants.
template <typename Fn>
cudaError_t with_row_shape(RowShape shape, bool aligned, Fn fn) {
  const auto with_quads = [&](auto quads) {
    return aligned ? fn(quads, std::true_type{}) : fn(quads, std::false_type{});
  };
  switch (shape.quads) {
    case 1:
      return with_quads(std::integral_constant<int, 1>{});
    case 2:
      return with_quads(std::integral_constant<int, 2>{});
    case 4:
      return with_quads(std::integral_constant<int, 4>{});
    default:
      return with_quads(std::integral_constant<int, 8>{});
  }
}
// Calls fn with a null pointer of the element type that `layout` stores.
template <typename Fn>
cudaError_t with_output(ActivationLayout layout, Fn fn) {
  if (layout == ActivationLayout::kF32) return fn(static_cast<float*>(nullptr));
  if (layout == ActivationLayout::kBf16) return fn(static_cast<bf16*>(nullptr));
  return cudaErrorInvalidValue;
}

__device__ __forceinline__ float4 operator+(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// Columns [at, at + 4) of a row; zeros from `columns` on.
template <bool kAligned>
__device__ __forceinline__ float4 load_quad(const float* row, int at, int columns) {
  if constexpr (kAligned) {
    if (at >= columns) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const uint4 bits = load16(row + at);
    return make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
                       __uint_as_float(bits.w));
  } else {
    return make_float4(at < columns ? row[at] : 0.0f, at + 1 < columns ? row[at + 1] : 0.0f,
                       at + 2 < columns ? row[at + 2] : 0.0f,
                       at + 3 < columns ? row[at + 3] : 0.0f);
  }
}

template <bool kAligned, typename Out>
__device__ __forceinline__ void store_quad(Out* row, int at, int columns, float4 y) {
  if (at >= columns) return;
  if constexpr (!kAligned) {
    const float values[4] = {y.x, y.y, y.z, y.w};
    QUIRE_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (at + i < columns) row[at + i] = from_float<Out>(values[i]);
    }
  } else if constexpr (std::is_same_v<Out, float>) {
    store16(row + at, make_uint4(__float_as_uint(y.x), __float_as_uint(y.y), __float_as_uint(y.z),
                                 __float_as_uint(y.w)));
  } else {
    *reinterpret_cast<uint2*>(row + at) = make_uint2(pack2<Out>(y.x, y.y), pack2<Out>(y.z, y.w));
  }
}

// A row in the registers of its block.
template <int kQuads, bool kAligned>
struct RowTile {
  float4 quad[kQuads];

  __device__ static __forceinline__ int column(int i) {
    return 4 * static_cast<int>(threadIdx.x + static_cast<unsigned>(i) * blockDim.x);
  }
  __device__ __forceinline__ void load(const float* row, int columns) {
    QUIRE_UNROLL
    for (int i = 0; i < kQuads; ++i) quad[i] = load_quad<kAligned>(row, column(i), columns);
  }
};

// out = x / rms(x) * weight over the row of this block. RMSNorm: arXiv 1910.07467.
template <int kQuads, bool kAligned, typename Out>
__device__ __forceinline__ void store_normed(const RowTile<kQuads, kAligned>& x,
                                             const RowTile<kQuads, kAligned>& weight, int columns,
                                             float eps, Out* out) {
  float4 squares = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  QUIRE_UNROLL
  for (int i = 0; i < kQuads; ++i) {
    const float4 q = x.quad[i];
    squares = squares + make_float4(q.x * q.x, q.y * q.y, q.z * q.z, q.w * q.w);
  }
  const float sum = block_sum((squares.x + squares.y) + (squares.z + squares.w));
  const float inverse = 1.0f / sqrtf(sum / static_cast<float>(columns) + eps);
  QUIRE_UNROLL
  for (int i = 0; i < kQuads; ++i) {
    const float4 q = x.quad[i];
    const float4 w = weight.quad[i];
    store_quad<kAligned>(out, RowTile<kQuads, kAligned>::column(i), columns,
                         make_float4(q.x * inverse * w.x, q.y * inverse * w.y, q.z * inverse * w.z,
                                     q.w * inverse * w.w));
  }
}

}  // namespace quire::cuda
