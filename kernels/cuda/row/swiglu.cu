// SwiGLU (arXiv 2002.05202): out = silu(gate) * up. Elementwise: a thread makes four columns, the
// grid is rows x parts of a row.
#include "kernels/cuda/row/row.h"
#include "kernels/cuda/row/row_tile.h"

namespace quire::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float silu_times(float gate, float up) {
  return gate / (1.0f + expf(-gate)) * up;
}

template <bool kAligned, typename Out>
__global__ void swiglu_kernel(const float* gate_up, int ffn, Out* out) {
  wait_for_previous_grid();
  allow_next_grid();
  const int at = 4 * static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const std::size_t row = blockIdx.x * static_cast<std::size_t>(ffn);
  const float4 g = load_quad<kAligned>(gate_up + 2 * row, at, ffn);
  const float4 u = load_quad<kAligned>(gate_up + 2 * row + ffn, at, ffn);
  store_quad<kAligned>(out + row, at, ffn,
                       make_float4(silu_times(g.x, u.x), silu_times(g.y, u.y), silu_times(g.z, u.z),
                                   silu_times(g.w, u.w)));
}

}  // namespace

cudaError_t swiglu(cudaStream_t stream, const float* gate_up, int num_tokens, int ffn,
                   const Activation& out) {
  if (ffn <= 0) return cudaErrorInvalidValue;
  if (num_tokens == 0) return cudaSuccess;
  const int quads = (ffn + 3) / 4;
  const int threads = quads < kThreads ? (quads + kWarpSize - 1) / kWarpSize * kWarpSize : kThreads;
  const dim3 grid(static_cast<unsigned>(num_tokens),
                  static_cast<unsigned>((quads + threads - 1) / threads));
  return with_output(out.layout, [&](auto* element) {
    using Out = std::remove_pointer_t<decltype(element)>;
    const auto kernel = rows_are_aligned(ffn, gate_up, out.data) ? swiglu_kernel<true, Out>
                                                                 : swiglu_kernel<false, Out>;
    return launch_overlapped(kernel, grid, dim3(static_cast<unsigned>(threads)), 0, stream, gate_up,
                             ffn, static_cast<Out*>(out.data));
  });
}

}  // namespace quire::cuda
