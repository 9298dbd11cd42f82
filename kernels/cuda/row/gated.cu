// Gated linear units (arXiv 2002.05202): out = gate(x) * up. Elementwise: a thread makes four
// columns, the grid is rows x parts of a row.
#include "kernels/cuda/row/row.h"
#include "kernels/cuda/row/row_tile.h"

namespace quire::cuda {
namespace {

constexpr float kGelu = 1.5957691216057308f;  // 2 sqrt(2 / pi)

template <Gate kGate>
__device__ __forceinline__ float times(float x, float up) {
  const float a = kGate == Gate::kSilu ? x : kGelu * x * (1.0f + 0.044715f * x * x);
  return x / (1.0f + expf(-a)) * up;
}

template <bool kAligned, Gate kGate, typename Out>
__global__ void gated_kernel(const float* gate_up, int ffn, Out* out) {
  wait_for_previous_grid();
  allow_next_grid();
  const int at = 4 * static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const std::size_t row = blockIdx.x * static_cast<std::size_t>(ffn);
  const float4 g = load_quad<kAligned>(gate_up + 2 * row, at, ffn);
  const float4 u = load_quad<kAligned>(gate_up + 2 * row + ffn, at, ffn);
  store_quad<kAligned>(out + row, at, ffn,
                       make_float4(times<kGate>(g.x, u.x), times<kGate>(g.y, u.y),
                                   times<kGate>(g.z, u.z), times<kGate>(g.w, u.w)));
}

template <Gate kGate>
cudaError_t launch_gated(cudaStream_t stream, const float* gate_up, int num_tokens, int ffn,
                         const Activation& out) {
  const QuadGrid shape = quad_grid(num_tokens, ffn);
  return with_output(out.layout, [&](auto* element) {
    using Out = std::remove_pointer_t<decltype(element)>;
    const auto kernel = rows_are_aligned(ffn, gate_up, out.data) ? gated_kernel<true, kGate, Out>
                                                                 : gated_kernel<false, kGate, Out>;
    return launch_overlapped(kernel, shape.grid, shape.block, 0, stream, gate_up, ffn,
                             static_cast<Out*>(out.data));
  });
}

}  // namespace

cudaError_t gated(cudaStream_t stream, Gate gate, const float* gate_up, int num_tokens, int ffn,
                  const Activation& out) {
  if (ffn <= 0) return cudaErrorInvalidValue;
  if (num_tokens == 0) return cudaSuccess;
  return gate == Gate::kSilu ? launch_gated<Gate::kSilu>(stream, gate_up, num_tokens, ffn, out)
                             : launch_gated<Gate::kGeluTanh>(stream, gate_up, num_tokens, ffn, out);
}

}  // namespace quire::cuda
