// Causal attention over the paged arena, over the lanes of every instruction set.
//
// The rows of a job are its tokens times the query heads of one KV head, so K and V are read once
// for all of them. Tiles of kTilePositions and splits of kSplitPositions start at absolute position
// 0. Positions that a row does not see, after its own or before its window, are never weighted nor
// multiplied; tiles that no row sees are not read. A row adds the units (attention_words.h) of a
// tile that it sees whole in order, then those of which it sees one position: what it does never
// depends on the rows that share the pass.
#pragma once

#include "kernels/cpu/attention_bytes.h"
#include "kernels/cpu/attention_scratch.h"
#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/attention_tile.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

// The first tile of a split that any row sees.
inline int first_tile(const AttendJob& job, int split) {
  const int begin = split * kSplitPositions;
  if (job.window == 0) return begin;
  const int first = job.positions[0] + 1 - job.window;
  return first < begin ? begin : first / kTilePositions * kTilePositions;
}

// One tile and the rows [first, first + count) that attend to it, which see rising ranges of its
// positions. `next` is null unless memory is to be read ahead. Of 8 bits: attention_bytes.h.
template <class V, class T>
struct TilePass {
  using W = KvWords<V, T>;
  const AttendJob& job;
  const ScratchOf<V, T>& s;
  const TilePointers<T>& tile;
  const TilePointers<T>* next;
  int position;
  int first;
  int count;
  int set;  // of sums

  // Row r sees positions [hidden, visible), and the units in [whole_begin, whole_end) whole.
  int hidden(int r) const { return s.hidden(first + r, position, job.window); }
  int visible(int r) const { return s.visible(first + r, position); }
  int whole_begin(int r) const { return (hidden(r) + W::kPair - 1) / W::kPair * W::kPair; }
  int whole_end(int r) const { return visible(r) / W::kPair * W::kPair; }

  void run() const {
    tile_kernels<V, T>(count).scores(s.query(first), job.kv, tile, visible(count - 1), next,
                                     s.scores);
    if (visible(0) == kTilePositions && hidden(count - 1) == 0) {
      for (int r = 0; r < count; ++r) weigh<true>(r, 0, kTilePositions);
      add(0, count, 0, kTilePositions);
      return;
    }
    for (int r = 0; r < count; ++r) {
      if (hidden(r) < visible(r)) weigh<false>(r, hidden(r), visible(r));
    }
    add_whole();
    if constexpr (W::kPair > 1) {
      for (int r = 0; r < count; ++r) add_halves(r);
    }
  }

  template <bool Whole>
  void weigh(int r, int begin, int end) const {
    weigh_tile<V, Whole>(s.scores + r * kTilePositions, weights_of<V, T>(s.scores, r), begin, end,
                         job.soft_cap, s.padded_dim, s.row(set, first + r));
  }

  // Adds the values of positions [begin, end) to rows [low, high).
  void add(int low, int high, int begin, int end) const {
    tile_kernels<V, T>(high - low)
        .values(s.scores + low * kTilePositions, job.kv, tile, next, begin, end,
                s.row(set, first + low).values);
  }

  // Adds the values of whole units. At any position the rows that see it are neighbours: run after
  // run of positions that the same ones see.
  void add_whole() const {
    const int seen = whole_end(count - 1);
    for (int begin = whole_begin(0); begin < seen;) {
      int low = 0;
      while (whole_end(low) <= begin) ++low;
      int high = low;
      while (high < count && whole_begin(high) <= begin) ++high;
      int end = whole_end(low);
      if (high < count) {
        const int joins = whole_begin(high);
        if (joins < end || high == low) end = joins;
      }
      if (high > low) add(low, high, begin, end);
      begin = end;
    }
  }

  // The units of which row r sees the second position only, or the first.
  void add_halves(int r) const {
    const int begin = hidden(r), end = visible(r);
    if (begin >= end) return;
    const auto* weights = weights_of<V, T>(s.scores, r);
    float* values = s.row(set, first + r).values;
    if (begin % 2 == 1) value_alone<V, T>(weights, job.kv, tile, begin, values);
    if (end % 2 == 1) value_alone<V, T>(weights, job.kv, tile, end - 1, values);
  }
};

// The first tile of what this thread attends to after the job.
template <class V, class T>
TilePointers<T> first_tile_after(const AttendJob& job) {
  const int position = first_tile(job, job.split_begin);
  return locate_tile<V, T>(job.kv, job.block_table, job.next_head_offset, position,
                           within_tile(job.positions[job.num_tokens - 1] + 1 - position));
}

template <class V, class T>
void attend_split(const AttendJob& job, const ScratchOf<V, T>& s, int split, int set) {
  constexpr int kRows = KvWords<V, T>::kRows;
  for (int r = 0; r < s.rows; ++r) clear_row<V>(s.row(set, r), s.padded_dim);
  const int begin = first_tile(job, split);
  const int end = (split + 1) * kSplitPositions;
  int seen = begin < end ? s.visible(s.rows - 1, begin) : 0;
  if (seen == 0) return;
  const auto locate = [&](int position, int num_positions) {
    return locate_tile<V, T>(job.kv, job.block_table, job.kv.head_offset, position, num_positions);
  };
  TilePointers<T> tile = locate(begin, seen);
  for (int p = begin; seen > 0 && p < end; p += kTilePositions) {
    const int position = p + kTilePositions;
    const int seen_next = s.visible(s.rows - 1, position);
    const bool last = seen_next == 0 || position == job.split_end * kSplitPositions;
    const TilePointers<T> next = last ? first_tile_after<V, T>(job) : locate(position, seen_next);
    for (int first = 0; first < s.rows; first += kRows) {
      const int count = s.rows - first < kRows ? s.rows - first : kRows;
      if (s.visible(first + count - 1, p) == 0) continue;
      if (s.hidden(first, p, job.window) == kTilePositions) continue;
      TilePass<V, T>{job, s, tile, first == 0 ? &next : nullptr, p, first, count, set}.run();
    }
    tile = next;
    seen = seen_next;
  }
  for (int r = 0; r < s.rows; ++r) {
    const RowSums row = s.row(set, r);
    *row.total = V::sum(V::load(row.lanes));
  }
}

template <class V, class T>
void attend_as(const AttendJob& job) {
  const ScratchOf<V, T> s = prepare_scratch<V, T>(job);
  attend_split<V, T>(job, s, job.split_begin, 0);
  for (int split = job.split_begin + 1; split < job.split_end; ++split) {
    attend_split<V, T>(job, s, split, 1);
    for (int r = 0; r < s.rows; ++r) {
      merge_rows<V>(s.row(0, r), s.row(1, r), s.padded_dim);
    }
  }
  for (int r = 0; r < s.rows; ++r) {
    const RowSums row = s.row(0, r);
    if (job.partial == nullptr) {
      write_result<V>(row, job.kv.head_dim,
                      job.out + static_cast<std::size_t>(r / job.num_heads) * job.out_stride +
                          r % job.num_heads * job.kv.head_dim);
    } else {
      float* partial = job.partial + static_cast<std::size_t>(r) * partial_stride(s.padded_dim);
      for (int d = 0; d < s.padded_dim; d += 16) V::store(partial + d, V::load(row.values + d));
      partial[s.padded_dim] = *row.highest;
      partial[s.padded_dim + 1] = *row.total;
    }
  }
}

template <class V>
void attend(const AttendJob& job) {
  switch (job.kv.dtype) {
    case DType::kF32:
      return attend_as<V, float>(job);
    case DType::kF16:
      return attend_as<V, Half>(job);
    case DType::kBf16:
      return attend_as<V, Bf16>(job);
    case DType::kI8:
      return attend_as<V, std::int8_t>(job);
    case DType::kF8E4M3:  // refused when the device is opened
      return;
  }
}

}  // namespace
}  // namespace quire::cpu
