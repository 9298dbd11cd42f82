// Pass three (passes.h): lists the ids of the bins that are cut, selects the exact cut among them,
// and draws where the list holds all that may stay.
#include "kernels/cuda/sample/draw.h"

namespace quire::cuda::sampling {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kIdBits = 24;
static_assert(kMaxSampleVocab <= 1 << kIdBits);

// Both sources call fn(key, id) for the ids of the cut bins that pass min_p, each id on one thread
// of the block.
struct ListSource {
  const ListedId* list;
  int size;

  template <typename Fn>
  __device__ void each(Fn fn) const {
    for (int i = thread_rank(); i < size; i += kThreads) fn(list[i].key, list[i].id);
  }
};

struct RowSource {
  const PassParams& params;
  const Filter& filter;
  int row, adjust, lo, hi;
  int first, step;  // segments of this warp

  template <typename Fn>
  __device__ void each(Fn fn) const {
    for (int s = first; s < num_segments(params.vocab); s += step) {
      SegmentReader(params, row, s, adjust).each([&](float logit, TokenId id) {
        const int bin = filter.bin(logit);
        if (bin >= lo && bin <= hi && filter.passes_min_p(logit)) fn(key_of(logit), id);
      });
    }
  }
};

// The lowest rank that stays.
template <typename Source>
__device__ Rank select_cut(const Source& source, const Filter& filter, const SampleWish& wish,
                           const RowState& state) {
  Rank cut = 0;
  Mass total = state.mass_total;
  if (state.cut_count != 0) {
    const Mass wanted = static_cast<Mass>(wish.top_k) - state.count_above;
    const Rank key = select_from_largest<32>(wanted, [&](auto fn) {
      source.each([&](std::uint32_t k, TokenId) { fn(k, [] { return Mass{1}; }); });
    });
    cut = key << 32;
    if (!filter.top_p_cuts) return cut;
    Mass inside = 0;
    source.each([&](std::uint32_t k, TokenId) {
      if (k >= key) inside += filter.weigher.mass(logit_of(k));
    });
    total = state.mass_above + block_sum(inside);
  }
  if (!filter.top_p_cuts) return cut;
  return select_from_largest<64>(top_p_target(wish, total) - state.mass_above, [&](auto fn) {
    source.each([&](std::uint32_t k, TokenId id) {
      fn(rank_of(k, id), [&] { return filter.weigher.mass(logit_of(k)); });
    });
  });
}

// A draw from the ids of the source that rank no lower than `cut`, by the whole block.
template <typename Source>
__device__ TokenId draw_from(const Source& source, const Filter& filter, const SampleWish& wish,
                             Rank cut) {
  constexpr std::uint32_t kIdMask = (1u << kIdBits) - 1;
  Mass total = 0;
  source.each([&](std::uint32_t k, TokenId id) {
    if (rank_of(k, id) >= cut) total += filter.weigher.mass(logit_of(k));
  });
  total = block_sum(total);
  const Rank drawn = select_from_largest<kIdBits>(draw_target(wish, total), [&](auto fn) {
    source.each([&](std::uint32_t k, TokenId id) {
      if (rank_of(k, id) < cut) return;
      fn(~static_cast<std::uint32_t>(id) & kIdMask,
         [&] { return filter.weigher.mass(logit_of(k)); });
    });
  });
  return static_cast<TokenId>(~static_cast<std::uint32_t>(drawn) & kIdMask);
}

// By the whole block.
template <typename Source>
__device__ void conclude(const PassParams& p, const Source& source, const Filter& filter,
                         const SampleWish& wish, int row, const RowState& state,
                         RowState& shared_state) {
  const Rank cut = select_cut(source, filter, wish, state);
  TokenId token = 0;
  if (state.complete != 0) token = draw_from(source, filter, wish, cut);
  if (thread_rank() != 0) return;
  if (state.complete != 0) {
    store_token(p, row, shared_state, token);
  } else {
    shared_state.cut = cut;
    shared_state.stage = Stage::kResum;
  }
}

__global__ void __launch_bounds__(kThreads) cut_kernel(const __grid_constant__ PassParams p) {
  wait_for_previous_grid();
  allow_next_grid();
  const int row = static_cast<int>(blockIdx.y);
  const RowView view(p, row);
  RowState& shared_state = view.work->state;
  const RowState state = shared_state;
  const bool lists = state.stage == Stage::kList;
  if (!lists && state.stage != Stage::kWholeRow) return;
  if (!lists && blockIdx.x != 0) return;
  const SampleWish wish = p.wishes[row];
  const Filter filter(wish, state.highest);
  const int parts = lists ? static_cast<int>(gridDim.x) : 1;
  const RowSource from_row = {p,
                              filter,
                              row,
                              wish.adjust,
                              state.lo,
                              state.hi,
                              static_cast<int>(blockIdx.x) * kWarps + warp_id(),
                              parts * kWarps};
  if (!lists) return conclude(p, from_row, filter, wish, row, state, shared_state);
  from_row.each([&](std::uint32_t key, TokenId id) {
    const std::uint32_t at = atomicAdd(&shared_state.listed, 1u);
    if (at < kMaxListed) view.work->list[at] = {key, id};
  });
  if (!arrives_last(p.arrived + row, gridDim.x)) return;
  const ListSource from_list = {view.work->list, static_cast<int>(shared_state.listed)};
  conclude(p, from_list, filter, wish, row, state, shared_state);
}

}  // namespace

cudaError_t launch_cut(cudaStream_t stream, const PassParams& params) {
  return launch_overlapped(cut_kernel, grid_of_pass(params, kWarps), dim3(kThreads), 0, stream,
                           params);
}

}  // namespace quire::cuda::sampling
