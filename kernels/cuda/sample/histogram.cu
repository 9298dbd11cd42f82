// Pass two (passes.h): counts and masses of the ids that pass min_p, by distance from the best;
// then which bins top_k and top_p cut. The last bin has no mass and is not counted: a cut in there,
// or below, changes no pick.
#include "kernels/cuda/sample/draw.h"

namespace quire::cuda::sampling {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;

struct Histogram {
  std::uint32_t count[kBins];
  SharedSums<kBins> mass;
};

__device__ void count_segment(const SegmentReader& reader, const Filter& filter, Histogram& bins) {
  const bool weigh = filter.min_p > 0.0 || filter.top_p_cuts;
  reader.each([&](float logit, TokenId) {
    const int bin = filter.bin(logit);
    if (bin == kBins - 1) return;
    if (weigh) {
      const double weight = filter.weigher.weight(logit);
      if (weight < filter.min_p) return;
      bins.mass.add(bin, Weigher::units(weight));
    }
    atomicAdd(&bins.count[bin], 1u);
  });
}

// Adds a block's histogram to the row's.
__device__ void publish(const Histogram& bins, RowWork& work) {
  for (int i = thread_rank(); i < kBins; i += kThreads) {
    if (bins.count[i] == 0) continue;
    atomicAdd(&work.bin_count[i], bins.count[i]);
    if (bins.mass.get(i) != 0) atomicAdd(&work.bin_mass[i], bins.mass.get(i));
  }
}

// Takes the row's histogram.
__device__ void collect(const RowWork& work, Histogram& bins) {
  for (int i = thread_rank(); i < kBins; i += kThreads) {
    bins.count[i] = work.bin_count[i];
    bins.mass.low[i] = static_cast<std::uint32_t>(work.bin_mass[i]);
    bins.mass.high[i] = static_cast<std::uint32_t>(work.bin_mass[i] >> 32);
  }
}

// Which bins are cut, by one warp.
__device__ void conclude(const Histogram& bins, const SampleWish& wish, int vocab,
                         RowState& state) {
  const auto count = [&](int i) { return static_cast<Mass>(bins.count[i]); };
  const auto mass = [&](int i) { return bins.mass.get(i); };
  int lo = 0, hi = kBins - 2;
  bool top_k_cuts = false;
  if (wish.top_k > 0 && wish.top_k < vocab) {
    const int bin = warp_crossing<8>(kBins, static_cast<Mass>(wish.top_k), count).index;
    top_k_cuts = bin < kBins;
    if (top_k_cuts) lo = hi = bin;
  }
  const bool top_p_cuts = wish.top_p < 1.0f;
  Mass total = 0;
  if (top_p_cuts) {
    // Of a bin that top_k cuts, some part counts: the share is at least that of the bins above.
    total = warp_total(0, top_k_cuts ? hi : kBins, mass);
    const int bin = warp_crossing<8>(kBins, top_p_target(wish, total), mass).index;
    lo = bin < hi ? bin : hi;
    if (!top_k_cuts) hi = lo;
  }
  const bool complete = warp_total(0, hi + 1, count) <= kMaxListed;
  if (complete) lo = 0;
  const Mass count_above = warp_total(0, lo, count);
  const Mass mass_above = warp_total(0, lo, mass);
  const Mass inside = warp_total(lo, hi + 1, count);
  if (lane_id() != 0) return;
  state.lo = lo;
  state.hi = hi;
  state.complete = complete ? 1 : 0;
  state.cut_count = top_k_cuts ? 1 : 0;
  state.listed = 0;
  state.count_above = static_cast<std::uint32_t>(count_above);
  state.mass_above = mass_above;
  state.mass_total = total;
  state.cut = 0;
  if (!complete && !top_k_cuts && !top_p_cuts) {
    state.stage = Stage::kResum;
  } else {
    state.stage = inside <= kMaxListed ? Stage::kList : Stage::kWholeRow;
  }
}

__global__ void __launch_bounds__(kThreads) histogram_kernel(const __grid_constant__ PassParams p) {
  QUIRE_SHARED(bins, Histogram);
  wait_for_previous_grid();
  allow_next_grid();
  const int row = static_cast<int>(blockIdx.y);
  const RowView view(p, row);
  RowState& state = view.work->state;
  if (state.stage != Stage::kHistogram) return;
  const SampleWish wish = p.wishes[row];
  const Filter filter(wish, state.highest);
  for (int i = thread_rank(); i < kBins; i += kThreads) bins.count[i] = 0;
  bins.mass.clear();
  __syncthreads();
  const int step = static_cast<int>(gridDim.x) * kWarps;
  for (int s = static_cast<int>(blockIdx.x) * kWarps + warp_id(); s < num_segments(p.vocab);
       s += step) {
    count_segment(SegmentReader(p, row, s, wish.adjust), filter, bins);
  }
  __syncthreads();
  publish(bins, *view.work);
  if (!arrives_last(p.arrived + row, gridDim.x)) return;
  collect(*view.work, bins);
  __syncthreads();
  if (warp_id() == 0) conclude(bins, wish, p.vocab, state);
}

}  // namespace

cudaError_t launch_histogram(cudaStream_t stream, const PassParams& params) {
  return launch_overlapped(histogram_kernel, grid_of_pass(params, kWarps), dim3(kThreads), 0,
                           stream, params);
}

}  // namespace quire::cuda::sampling
