// The pairs of a work item: which token and query head, what position it sees last, where its q
// lies and where its result goes (the output, or a slot of partial results to be merged).
#pragma once

#include "kernels/cuda/attention/work.h"
#include "kernels/cuda/dev/convert.h"

namespace quire::cuda {

struct ItemRow {
  int token = 0;      // of the batch
  int head = 0;       // local
  int position = -1;  // -1: no such pair
};

// Where kDim results of a pair go.
struct RowResult {
  float* floats;  // null: to `halves`
  bf16* halves;
  bool is_partial;
  std::int64_t top;  // index of a partial result's highest score and sum of weights

  __device__ __forceinline__ void write2(int column, float low, float high) const {
    if (floats != nullptr) {
      *reinterpret_cast<float2*>(floats + column) = make_float2(low, high);
    } else {
      *reinterpret_cast<uint32_t*>(halves + column) = pack2<bf16>(low, high);
    }
  }
  __device__ __forceinline__ void write(int column, float value) const {
    if (floats != nullptr) {
      floats[column] = value;
    } else {
      halves[column] = from_float<bf16>(value);
    }
  }
};

__device__ __forceinline__ RowResult output_of(const AttentionProblem& p, int token, int head) {
  const std::int64_t at = (static_cast<std::int64_t>(token) * p.num_heads + head) *
                          static_cast<std::int64_t>(p.head_dim);
  if (p.out_is_bf16) return {nullptr, static_cast<bf16*>(p.out) + at, false, 0};
  return {static_cast<float*>(p.out) + at, nullptr, false, 0};
}

// The slot of a token's part in `split`; `first_slot` is the token's.
__device__ __forceinline__ RowResult partial_of(const AttentionProblem& p, const ItemRow& row,
                                                int first_slot, int split) {
  const std::int64_t slot = first_slot + split - first_seen(p, row.position) / kSplitPositions;
  const std::int64_t at = slot * p.num_heads + row.head;
  return {p.partial_values + at * p.head_dim, nullptr, true, 2 * at};
}

__device__ __forceinline__ const float* query_of(const AttentionProblem& p, const ItemRow& row) {
  return p.qkv + row.token * p.qkv_stride + row.head * p.head_dim;
}

class ItemRows {
 public:
  static constexpr bool kOneSplit = false;

  __device__ ItemRows(const AttentionProblem& p, const WorkItem& item)
      : p_(p), item_(item), heads_(heads_of(p, item.kv_head)) {}

  __device__ ItemRow at(int row) const {
    const int pair = item_.first_pair + row;
    const int token = pair / heads_.count;
    if (token >= item_.num_tokens) return {};
    ItemRow result;
    result.token = item_.first_token + token;
    result.head = heads_.begin + pair % heads_.count;
    result.position = p_.positions[result.token];
    return result;
  }

  // The last position that any of these pairs sees (positions rise within a row); -1: no pairs.
  __device__ int last_position(int first_row, int count) const {
    const int first = (item_.first_pair + first_row) / heads_.count;
    if (first >= item_.num_tokens) return -1;
    const int last = (item_.first_pair + first_row + count - 1) / heads_.count;
    return p_.positions[item_.first_token + min(last, item_.num_tokens - 1)];
  }

  // The first position that any pair from `first_row` on sees.
  __device__ int first_position(int first_row) const {
    const int token = min((item_.first_pair + first_row) / heads_.count, item_.num_tokens - 1);
    return first_seen(p_, p_.positions[item_.first_token + token]);
  }

  __device__ const float* query(const ItemRow& row) const { return query_of(p_, row); }

  // Whether there is such a pair that sees a position of the item's splits.
  __device__ bool sees(const ItemRow& row) const {
    return row.position >= item_.split_begin * kSplitPositions &&
           first_seen(p_, row.position) < item_.split_end * kSplitPositions;
  }

  // Of a pair that sees the item. A token that can see one split only is finished by its item, also
  // where the row is cut.
  __device__ RowResult result(const ItemRow& row) const {
    if (is_finished(row)) return output_of(p_, row.token, row.head);
    return partial_of(p_, row, slot_of(row), item_.split_begin);
  }

  // What the merge needs beside the values, by one thread for each pair.
  __device__ void note(const RowResult& result, float highest, float total) const {
    if (!result.is_partial) return;
    p_.partial_tops[result.top] = highest;
    p_.partial_tops[result.top + 1] = total;
  }
  // Where the merge finds a token's splits, told by the row's first item, whatever it sees of it.
  __device__ void note_slot(const ItemRow& row) const {
    if (row.position < 0 || row.head != 0 || p_.first_slot == nullptr) return;
    if (item_.split_begin != item_.first_split) return;
    p_.first_slot[row.token] = is_finished(row) ? -1 : slot_of(row);
  }

 private:
  __device__ bool is_finished(const ItemRow& row) const {
    return item_.first_slot < 0 || row.position < kSplitPositions;
  }
  __device__ int slot_of(const ItemRow& row) const {
    return item_.first_slot + (row.token - item_.first_token) * item_.token_slots;
  }

  const AttentionProblem& p_;
  const WorkItem item_;
  const GroupHeads heads_;
};

}  // namespace quire::cuda
