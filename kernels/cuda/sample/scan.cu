// Pass one (passes.h): the best id and the sums of every segment, a warp each; then all that needs
// no filter: greedy picks, draws from all ids, logprobs.
#include "kernels/cuda/sample/draw.h"

namespace quire::cuda::sampling {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpSize;

// The best id of a segment, on all lanes: all loads are under way at once.
__device__ __forceinline__ Rank best_of_segment(const SegmentReader& reader) {
  float4 quads[SegmentReader::kQuads];
  QUIRE_UNROLL
  for (int j = 0; j < SegmentReader::kQuads; ++j) quads[j] = reader.load(j);
  float best = minus_infinity();
  TokenId best_id = reader.id(0);
  QUIRE_UNROLL
  for (int j = 0; j < SegmentReader::kQuads; ++j) {
    const float logits[4] = {quads[j].x, quads[j].y, quads[j].z, quads[j].w};
    QUIRE_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (logits[i] > best) {
        best = logits[i];
        best_id = reader.id(j) + i;
      }
    }
  }
  return warp_max(rank_of(key_of(best), best_id));
}

// The best id of a segment that ranks below `bound`; 0 where there is none.
__device__ Rank best_below(const SegmentReader& reader, Rank bound) {
  Rank best = 0;
  reader.each([&](float logit, TokenId id) {
    const Rank rank = rank_of(key_of(logit), id);
    if (rank < bound && rank > best) best = rank;
  });
  return warp_max(best);
}

// Stores the segment's sum of weights at temperature 1, relative to its `highest`.
__device__ __forceinline__ void scan_for_logprobs(const SegmentReader& reader, float highest,
                                                  float& out) {
  float sum = 0.0f;
  if (highest > minus_infinity()) {
    reader.each([&](float logit, TokenId) { sum += expf(logit - highest); });
  }
  sum = warp_sum(sum);
  if (lane_id() == 0) out = sum;
}

__device__ void scan_segment(const PassParams& p, const RowView& view, const SampleWish& wish,
                             int row, int segment) {
  const SegmentReader reader(p, row, segment, wish.adjust);
  const Rank best = best_of_segment(reader);
  const float highest = logit_of_rank(best);
  if (lane_id() == 0) view.best[segment] = best;
  if (!is_greedy(wish) && !has_filters(wish, p.vocab)) {
    const Weigher weigher = {highest, 1.0 / static_cast<double>(wish.temperature)};
    double sum = 0.0;
    if (highest > minus_infinity()) {
      reader.each([&](float logit, TokenId) { sum += weigher.weight(logit); });
    }
    sum = warp_sum(sum);
    if (lane_id() == 0) view.sums[segment] = sum;
  }
  if (wish.num_logprobs < 0) return;
  if (wish.adjust < 0) {
    scan_for_logprobs(reader, highest, view.exp_sum[segment]);
  } else {
    const SegmentReader raw(p, row, segment, -1);
    const Rank raw_best = best_of_segment(raw);
    if (lane_id() == 0) view.raw_best[segment] = raw_best;
    scan_for_logprobs(raw, logit_of_rank(raw_best), view.exp_sum[segment]);
  }
}

// log(sum of exp(logit)) over the row, of whose segments `best` are the best ids, by the whole
// block.
__device__ double log_sum_exp(const RowView& view, const Rank* best, int segments, float highest) {
  double sum = 0.0;
  for (int s = thread_rank(); s < segments; s += kThreads) {
    const double distance =
        static_cast<double>(logit_of_rank(best[s])) - static_cast<double>(highest);
    if (view.exp_sum[s] > 0.0f) sum += static_cast<double>(view.exp_sum[s]) * exp(distance);
  }
  return static_cast<double>(highest) + log(block_sum(sum));
}

// A draw from all ids, by one warp; `masses` has room for the segments.
__device__ TokenId draw_from_all(const PassParams& p, const RowView& view, const SampleWish& wish,
                                 int row, float highest, Mass* masses) {
  const int segments = num_segments(p.vocab);
  const Weigher weigher = {highest, 1.0 / static_cast<double>(wish.temperature)};
  for (int s = lane_id(); s < segments; s += kWarpSize) {
    masses[s] = Weigher::units(view.sums[s] * weigher.weight(logit_of_rank(view.best[s])));
  }
  __syncwarp();
  const auto mass_of = [&](int s) { return masses[s]; };
  const Mass target = draw_target(wish, warp_total(0, segments, mass_of));
  const Crossing at = warp_crossing<1>(segments, target, mass_of);
  // Within the segment, weights are relative to its own best: nothing vanishes there.
  const SegmentReader reader(p, row, at.index, wish.adjust);
  const Weigher own = {logit_of_rank(view.best[at.index]), weigher.inverse_temperature};
  Mass total = 0;
  reader.each([&](float logit, TokenId) { total += own.mass(logit); });
  total = warp_sum(total);
  const double share =
      static_cast<double>(target - at.before - 1) / static_cast<double>(masses[at.index]);
  const Mass own_target = static_cast<Mass>(share * static_cast<double>(total)) + 1;
  return draw_in_segment(reader, p.vocab, own_target < total ? own_target : total,
                         [&](float logit, TokenId) { return own.mass(logit); });
}

// The k best: k times the best segment's best, which then gives its next one. By one warp; `best`
// is a copy of the segments' best ids.
__device__ void store_best(const PassParams& p, int row, const SampleWish& wish, double log_sum,
                           Rank* best) {
  const int segments = num_segments(p.vocab);
  int wanted = wish.num_logprobs < kMaxBest ? wish.num_logprobs : kMaxBest;
  wanted = wanted < p.vocab ? wanted : p.vocab;
  SampledRow& out = p.out[row];
  for (int i = 0; i < wanted; ++i) {
    Rank top = 0;
    for (int s = lane_id(); s < segments; s += kWarpSize) top = best[s] > top ? best[s] : top;
    top = warp_max(top);
    const TokenId id = id_of(top);
    if (lane_id() == 0) {
      out.best[i] = id;
      out.best_logprob[i] = static_cast<float>(logit_of_rank(top) - log_sum);
    }
    if (i + 1 == wanted) break;
    const Rank next = best_below(SegmentReader(p, row, id / kSegment, -1), top);
    if (lane_id() == 0) best[id / kSegment] = next;
    __syncwarp();
  }
  if (lane_id() == 0) out.num_best = wanted > 0 ? wanted : 0;
}

__device__ void clear_histogram(RowWork& work) {
  static_assert(sizeof(work.bin_count) % 16 == 0 && sizeof(work.bin_mass) % 16 == 0);
  auto* words = reinterpret_cast<std::byte*>(work.bin_count);
  constexpr int kWords = (sizeof(work.bin_count) + sizeof(work.bin_mass)) / 16;
  for (int i = thread_rank(); i < kWords; i += kThreads) {
    store16(words + 16 * i, make_uint4(0, 0, 0, 0));
  }
}

// The best of the row; every thread copies its segments' best. By the whole block.
__device__ Rank copy_best(const Rank* from, int segments, Rank* to) {
  Rank top = 0;
  for (int s = thread_rank(); s < segments; s += kThreads) {
    to[s] = from[s];
    top = to[s] > top ? to[s] : top;
  }
  return block_max(top);
}

// What follows once all segments of a row are known; by one block.
__device__ void conclude(const PassParams& p, const RowView& view, const SampleWish& wish,
                         int row) {
  QUIRE_SHARED(best, Rank[kMaxSegments]);
  QUIRE_SHARED(masses, Mass[kMaxSegments]);
  const int segments = num_segments(p.vocab);
  const bool is_filtered = !is_greedy(wish) && has_filters(wish, p.vocab);
  RowState& state = view.work->state;
  const Rank top = copy_best(view.best, segments, best);
  const float highest = logit_of_rank(top);
  double log_sum = 0.0;
  if (wish.num_logprobs >= 0) {
    Rank raw_top = top;
    if (wish.adjust >= 0) raw_top = copy_best(view.raw_best, segments, best);
    log_sum = log_sum_exp(view, best, segments, logit_of_rank(raw_top));
  }
  if (thread_rank() == 0) {
    state.highest = highest;
    state.best = id_of(top);
    state.log_sum = log_sum;
    state.stage = Stage::kHistogram;
    p.out[row].num_best = 0;
  }
  if (is_filtered) clear_histogram(*view.work);
  __syncthreads();
  const bool finite = fabsf(highest) < __uint_as_float(0x7f800000u);
  if (warp_id() == 0) {
    const bool greedy = is_greedy(wish) || !finite;
    if (greedy || !is_filtered) {
      const TokenId token =
          greedy ? id_of(top) : draw_from_all(p, view, wish, row, highest, masses);
      if (lane_id() == 0) store_token(p, row, state, token);
    }
  } else if (warp_id() == 1 && wish.num_logprobs > 0) {
    store_best(p, row, wish, log_sum, best);
  }
}

__global__ void __launch_bounds__(kThreads) scan_kernel(const __grid_constant__ PassParams p) {
  allow_next_grid();
  const int row = static_cast<int>(blockIdx.y);
  const SampleWish wish = p.wishes[row];
  const RowView view(p, row);
  const int segment = static_cast<int>(blockIdx.x) * kWarps + warp_id();
  if (segment < num_segments(p.vocab)) scan_segment(p, view, wish, row, segment);
  if (!arrives_last(p.arrived + row, gridDim.x)) return;
  conclude(p, view, wish, row);
}

}  // namespace

cudaError_t launch_scan(cudaStream_t stream, const PassParams& params) {
  const int parts = (num_segments(params.vocab) + kWarps - 1) / kWarps;
  const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(params.num_rows));
  return launch(scan_kernel, grid, dim3(kThreads), 0, stream, params);
}

}  // namespace quire::cuda::sampling
