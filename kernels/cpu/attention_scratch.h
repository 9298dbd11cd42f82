// The working memory of an attention job.
#pragma once

#include "kernels/cpu/attention_query.h"
#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/attention_words.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

inline int within_tile(int n) {
  return n < 0 ? 0 : n > kTilePositions ? kTilePositions : n;
}

// The working memory of a job, cut from its scratch.
template <class Factor>
struct AttendScratch {
  float* scores;  // [kRows][kTilePositions]
  Factor* q;      // [rows][q_stride], scaled
  int q_stride;
  float* values;            // [2][rows][Dp]: of all splits so far, of the current split
  float* lanes;             // [rows][16] of the current split
  float* tops;              // [2][rows][2]: highest, total
  std::int32_t* positions;  // [rows]
  int rows;
  int padded_dim;

  Factor* query(int r) const { return q + r * q_stride; }
  RowSums row(int set, int r) const {
    float* top = tops + 2 * (set * rows + r);
    return {top, top + 1, values + (set * rows + r) * padded_dim, lanes + r * 16};
  }
  // Of the positions [position, position + kTilePositions) row r sees [hidden, visible).
  int visible(int r, int position) const { return within_tile(positions[r] + 1 - position); }
  int hidden(int r, int position, int window) const {
    return window == 0 ? 0 : within_tile(positions[r] + 1 - window - position);
  }
};
template <class V, class T>
using ScratchOf = AttendScratch<typename KvWords<V, T>::Factor>;

template <class V, class T>
ScratchOf<V, T> prepare_scratch(const AttendJob& job) {
  using Factor = typename KvWords<V, T>::Factor;
  const int rows = job.num_tokens * job.num_heads;
  const int dim = job.kv.padded_dim;
  float* q = job.scratch + 8 * kTilePositions;
  float* values = q + rows * dim;
  float* lanes = values + 2 * rows * dim;
  float* tops = lanes + 16 * rows;
  const ScratchOf<V, T> s{.scores = job.scratch,
                          .q = reinterpret_cast<Factor*>(q),
                          .q_stride = KvWords<V, T>::query_stride(job.kv),
                          .values = values,
                          .lanes = lanes,
                          .tops = tops,
                          .positions = reinterpret_cast<std::int32_t*>(tops + 4 * rows),
                          .rows = rows,
                          .padded_dim = dim};
  const float scale = job.scale * score_factor(job.soft_cap);
  for (int r = 0; r < rows; ++r) {
    s.positions[r] = job.positions[r / job.num_heads];
    const float* from = job.q + static_cast<std::size_t>(r / job.num_heads) * job.q_stride +
                        r % job.num_heads * job.kv.head_dim;
    store_query<V>(from, job.kv, scale, s.query(r));
  }
  return s;
}

}  // namespace
}  // namespace quire::cpu
