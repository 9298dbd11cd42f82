// Who does what: work items found on the device from row_begin and context, so that the host needs
// to read nothing and a captured graph fits any batch of its size. Items are numbered row by row;
// within a row the last tokens come first (they attend to most), then splits, then KV heads.
// Splits that several rows share are the work of SharedList (shared_rows.h); splits before all that
// a row sees are no work.
//
// A decode row whose partial results fit into the slots is cut into one item per split, to be
// merged afterwards; other rows take all their splits in one item. That changes no bit.
#pragma once

#include "kernels/cuda/attention/problem.h"
#include "kernels/cuda/dev/warp.h"

namespace quire::cuda {

// Pairs [first_pair, first_pair + kRows) of a row and KV head, over splits [split_begin,
// split_end).
struct WorkItem {
  int row;
  int first_token;
  int num_tokens;  // of the row
  int context;     // of the row
  int kv_head;
  int first_pair;
  int split_begin;
  int split_end;
  int first_split;  // of the row's first item
  int token_slots;  // splits that it sees something of
  int first_slot;   // of the row's first token; -1: no partial results
};

// The first position that a token at `position` sees.
__device__ __forceinline__ int first_seen(const AttentionProblem& p, int position) {
  return max(position + 1 - p.window, 0);
}

// The local query heads of local KV head g.
struct GroupHeads {
  int begin;
  int count;
};
__device__ __forceinline__ GroupHeads heads_of(const AttentionProblem& p, int g) {
  const int begin = (p.first_kv_head + g) * p.group_heads - p.first_head;
  const int end = min(begin + p.group_heads, p.num_heads);
  return {max(begin, 0), end - max(begin, 0)};
}

__device__ __forceinline__ int inclusive_scan(int value) {
  QUIRE_UNROLL
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const int before = shuffle_up(value, static_cast<unsigned>(distance));
    if (lane_id() >= distance) value += before;
  }
  return value;
}

// Every warp of a block runs its own copy, all lanes together: 32 rows at a time, one a lane.
// kDecode: the rows of which kernel. kRows: pairs of an item.
template <bool kDecode, int kRows>
class WorkList {
 public:
  __device__ explicit WorkList(const AttentionProblem& p) : p_(p) { load_rows(); }

  // `number` must not fall from call to call. False: there are fewer items.
  __device__ bool find(int number, WorkItem& item) {
    while (number >= items_before_ + shuffle(items_end_, kWarpSize - 1)) {
      if (first_row_ + kWarpSize >= p_.num_rows) return false;
      items_before_ += shuffle(items_end_, kWarpSize - 1);
      slots_before_ += shuffle(slots_end_, kWarpSize - 1);
      first_row_ += kWarpSize;
      load_rows();
    }
    const int owner = __ffs(static_cast<int>(ballot(items_before_ + items_end_ > number))) - 1;
    const int items_end_before = shuffle(items_end_, max(owner - 1, 0));
    int rest = number - items_before_ - (owner > 0 ? items_end_before : 0);
    item.row = first_row_ + owner;
    // Looked up again, rather than kept in registers meanwhile.
    item.first_token = p_.row_begin[item.row];
    item.num_tokens = p_.row_begin[item.row + 1] - item.first_token;
    item.context = p_.context[item.row];
    item.first_slot = shuffle(first_slot_, owner);
    const bool cut = item.first_slot >= 0;
    const Splits splits = splits_of(item.row, item.num_tokens, item.context, cut);
    item.first_split = splits.own;
    item.token_slots = splits.end - splits.seen;
    item.kv_head = rest % p_.num_kv_heads;
    rest /= p_.num_kv_heads;
    item.split_begin = splits.own;
    item.split_end = splits.end;
    if (cut) {
      item.split_begin += rest % (splits.end - splits.own);
      item.split_end = item.split_begin + 1;
      rest /= splits.end - splits.own;
    }
    const int tiles = tiles_of(item.num_tokens);
    item.first_pair = (tiles - 1 - rest) * kRows;
    return true;
  }

 private:
  __device__ int tiles_of(int tokens) const {
    return (tokens * p_.max_group_heads + kRows - 1) / kRows;
  }

  // Of a row: what it sees something of begins at split `seen`; what is its own work, at `own`.
  struct Splits {
    int seen, own, end;
  };
  __device__ Splits splits_of(int row, int tokens, int context, bool cut) const {
    Splits splits;
    splits.seen = splits.own = first_seen(p_, context - tokens) / kSplitPositions;
    splits.end = (context + kSplitPositions - 1) / kSplitPositions;
    if (cut && p_.shared_of_row != nullptr && tokens == 1) {
      splits.own = max(splits.seen, p_.shared_of_row[row] / kSplitPositions);
    }
    return splits;
  }

  __device__ void load_rows() {
    const int row = first_row_ + lane_id();
    const bool exists = row < p_.num_rows;
    const int tokens = exists ? p_.row_begin[row + 1] - p_.row_begin[row] : 0;
    const int context = exists ? p_.context[row] : 0;
    const bool mine = tokens > 0 && (tokens <= p_.decode_tokens) == kDecode;
    const Splits all = splits_of(row, tokens, context, false);
    const int count = all.end - all.seen;
    const int slots = kDecode && mine && count > 1 ? tokens * count : 0;
    slots_end_ = inclusive_scan(slots);
    const bool cut = slots > 0 && slots_before_ + slots_end_ <= p_.slots;
    first_slot_ = cut ? slots_before_ + slots_end_ - slots : -1;
    const Splits splits = splits_of(row, tokens, context, cut);
    const int pieces = cut ? splits.end - splits.own : 1;
    items_end_ = inclusive_scan(mine ? tiles_of(tokens) * pieces * p_.num_kv_heads : 0);
  }

  const AttentionProblem& p_;
  int first_row_ = 0;
  int items_before_ = 0;  // of rows before first_row_
  int slots_before_ = 0;
  // Of this lane's row:
  int items_end_ = 0;  // of the rows up to this one, from first_row_
  int slots_end_ = 0;
  int first_slot_ = -1;
};

}  // namespace quire::cuda
