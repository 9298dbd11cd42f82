// Pass four (passes.h): per segment the mass of what stays, a warp each; then the draw. For rows of
// which more stays than a list holds.
#include "kernels/cuda/sample/draw.h"

namespace quire::cuda::sampling {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;

__global__ void __launch_bounds__(kThreads) resum_kernel(const __grid_constant__ PassParams p) {
  wait_for_previous_grid();
  allow_next_grid();
  const int row = static_cast<int>(blockIdx.y);
  const RowView view(p, row);
  RowState& state = view.work->state;
  if (state.stage != Stage::kResum) return;
  const SampleWish wish = p.wishes[row];
  const Filter filter(wish, state.highest);
  const Rank cut = state.cut;
  const auto mass_of_id = [&](float logit, TokenId id) { return filter.mass_from(cut, logit, id); };
  const int segments = num_segments(p.vocab);
  const int step = static_cast<int>(gridDim.x) * kWarps;
  for (int s = static_cast<int>(blockIdx.x) * kWarps + warp_id(); s < segments; s += step) {
    Mass mass = 0;
    SegmentReader(p, row, s, wish.adjust).each([&](float logit, TokenId id) {
      mass += mass_of_id(logit, id);
    });
    mass = warp_sum(mass);
    if (lane_id() == 0) view.masses[s] = mass;
  }
  if (!arrives_last(p.arrived + row, gridDim.x) || warp_id() != 0) return;
  const auto mass_of_segment = [&](int s) { return view.masses[s]; };
  const Mass target = draw_target(wish, warp_total(0, segments, mass_of_segment));
  const Crossing at = warp_crossing<1>(segments, target, mass_of_segment);
  const TokenId token = draw_in_segment(SegmentReader(p, row, at.index, wish.adjust), p.vocab,
                                        target - at.before, mass_of_id);
  if (lane_id() == 0) store_token(p, row, state, token);
}

}  // namespace

cudaError_t launch_resum(cudaStream_t stream, const PassParams& params) {
  return launch_overlapped(resum_kernel, grid_of_pass(params, kWarps), dim3(kThreads), 0, stream,
                           params);
}

}  // namespace quire::cuda::sampling
