// The order of ids within a row, their weights, and how passes read a row of logits.
#pragma once

#include "kernels/cuda/dev/dev.h"
#include "kernels/cuda/sample/passes.h"

namespace quire::cuda::sampling {

__device__ __forceinline__ float minus_infinity() {
  return __uint_as_float(0xff800000u);
}

// Larger logits have larger keys; -0 and +0 have the same.
__device__ __forceinline__ std::uint32_t key_of(float logit) {
  const std::uint32_t bits = __float_as_uint(logit + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float logit_of(std::uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}
// Larger logits first, then lower ids. Unique within a row.
__device__ __forceinline__ Rank rank_of(std::uint32_t key, TokenId id) {
  return static_cast<Rank>(key) << 32 | static_cast<std::uint32_t>(~id);
}
__device__ __forceinline__ TokenId id_of(Rank rank) {
  return static_cast<TokenId>(~static_cast<std::uint32_t>(rank));
}
__device__ __forceinline__ float logit_of_rank(Rank rank) {
  return logit_of(static_cast<std::uint32_t>(rank >> 32));
}

// Where `id` of the row lies. Pieces may be empty.
__device__ __forceinline__ int piece_of(const PassParams& p, TokenId id) {
  int piece = 0;
  while (p.begin[piece + 1] <= id) ++piece;
  return piece;
}
__device__ __forceinline__ const float* address_in(const PassParams& p, int piece, int row,
                                                   TokenId id) {
  return p.pieces[piece] + static_cast<std::size_t>(row) * p.strides[piece] + (id - p.begin[piece]);
}
__device__ __forceinline__ float clean(float logit) {
  return logit == logit ? logit : minus_infinity();
}
__device__ __forceinline__ float logit_at(const PassParams& p, int row, TokenId id) {
  return clean(*address_in(p, piece_of(p, id), row, id));
}

// One segment as a warp reads it: quad j of lane l holds the ids first + 4 (l + 32 j) .. + 3.
// Ids beyond the vocabulary read as -infinity. `adjust` (SampleWish::adjust) names the adjusted
// copy to read instead of the logits; -1: none.
class SegmentReader {
 public:
  static constexpr int kQuads = kSegment / (4 * kWarpSize);

  __device__ SegmentReader(const PassParams& p, int row, int segment, int adjust)
      : params_(p), row_(row), first_(segment * kSegment) {
    if (adjust >= 0) {
      copy_ = p.adjusted + static_cast<std::size_t>(adjust) * adjusted_stride(p.vocab);
      base_ = copy_ + first_;
      end_ = p.vocab;
      return;
    }
    const int piece = piece_of(p, first_);
    base_ = address_in(p, piece, row, first_);
    end_ = reinterpret_cast<std::uintptr_t>(base_) % 16 == 0 ? p.begin[piece + 1] : first_;
  }

  __device__ __forceinline__ TokenId id(int quad) const {
    return first_ + 4 * (lane_id() + kWarpSize * quad);
  }
  __device__ __forceinline__ float4 load(int quad) const {
    const TokenId at = id(quad);
    if (at + 4 <= end_) {  // all of it in the first piece
      const uint4 bits = load16(base_ + (at - first_));
      return make_float4(clean(__uint_as_float(bits.x)), clean(__uint_as_float(bits.y)),
                         clean(__uint_as_float(bits.z)), clean(__uint_as_float(bits.w)));
    }
    return make_float4(one(at), one(at + 1), one(at + 2), one(at + 3));
  }
  // Calls fn(logit, id) for this lane's ids of the vocabulary in ascending order.
  template <typename Fn>
  __device__ __forceinline__ void each(Fn fn) const {
    QUIRE_NO_UNROLL
    for (int j = 0; j < kQuads; ++j) {
      const float4 q = load(j);
      const TokenId at = id(j);
      const int left = params_.vocab - at;
      if (left > 0) fn(q.x, at);
      if (left > 1) fn(q.y, at + 1);
      if (left > 2) fn(q.z, at + 2);
      if (left > 3) fn(q.w, at + 3);
    }
  }

 private:
  __device__ __forceinline__ float one(TokenId at) const {
    if (at >= params_.vocab) return minus_infinity();
    return copy_ != nullptr ? clean(copy_[at]) : logit_at(params_, row_, at);
  }

  const PassParams& params_;
  int row_;
  TokenId first_;
  const float* copy_ = nullptr;
  const float* base_;
  TokenId end_;
};

// The row's weights relative to `highest`, which weighs 1.
struct Weigher {
  float highest;
  double inverse_temperature;

  __device__ __forceinline__ double weight(float logit) const {
    const double exponent =
        (static_cast<double>(logit) - static_cast<double>(highest)) * inverse_temperature;
    return exponent < -31.25 ? 0.0 : exp(exponent);  // below half a unit
  }
  __device__ static __forceinline__ Mass units(double weight) {
    return static_cast<Mass>(weight * 0x1p44 + 0.5);
  }
  __device__ __forceinline__ Mass mass(float logit) const { return units(weight(logit)); }
};

// Which ids may stay, and where they lie in the histogram.
struct Filter {
  Weigher weigher;
  float bins_per_logit;
  double min_p;
  bool top_p_cuts;

  __device__ Filter(const SampleWish& wish, float highest)
      : weigher{highest, 1.0 / static_cast<double>(wish.temperature)},
        bins_per_logit(static_cast<float>(kBinsPerUnit) / wish.temperature),
        min_p(wish.min_p < 1.0f ? wish.min_p : 1.0f),
        top_p_cuts(wish.top_p < 1.0f) {}

  __device__ __forceinline__ int bin(float logit) const {
    const float distance = (weigher.highest - logit) * bins_per_logit;
    return distance < static_cast<float>(kBins - 1) ? static_cast<int>(distance) : kBins - 1;
  }
  __device__ __forceinline__ bool passes_min_p(float logit) const {
    return min_p <= 0.0 || weigher.weight(logit) >= min_p;
  }
  // The mass of an id, if it ranks no lower than `cut` and passes min_p.
  __device__ __forceinline__ Mass mass_from(Rank cut, float logit, TokenId id) const {
    if (rank_of(key_of(logit), id) < cut) return 0;
    const double weight = weigher.weight(logit);
    return weight >= min_p ? Weigher::units(weight) : 0;
  }
};

// The workspace of a row, taken apart.
struct RowView {
  RowWork* work;
  Rank* best;      // [segments]
  Rank* raw_best;  // [segments], of the logits themselves, where adjusted and logprobs are wanted
  double* sums;    // [segments], of weights relative to the segment's best
  Mass* masses;    // [segments], the same memory
  float* exp_sum;  // [segments], at temperature 1

  __device__ RowView(const PassParams& p, int row)
      : work(reinterpret_cast<RowWork*>(p.work + static_cast<std::size_t>(row) * p.row_work_bytes)),
        best(reinterpret_cast<Rank*>(work + 1)),
        raw_best(best + num_segments(p.vocab)),
        sums(reinterpret_cast<double*>(raw_best + num_segments(p.vocab))),
        masses(reinterpret_cast<Mass*>(sums)),
        exp_sum(reinterpret_cast<float*>(sums + num_segments(p.vocab))) {}
};

// True, for all threads, in the block that arrives last of `blocks` at this row; it sees what the
// others wrote. All threads of the block call.
__device__ inline bool arrives_last(std::uint32_t* arrived, unsigned blocks) {
  QUIRE_SHARED(last, bool);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(arrived, blocks - 1) == blocks - 1;
  __syncthreads();
  const bool result = last;
  if (result) __threadfence();
  return result;
}

}  // namespace quire::cuda::sampling
