// Splits that several decoding rows share: items whose pairs are of all those rows, so that K and V
// are read once for them. Every such item is one whole split, computed as a row's own would be and
// left in the row's slots; the merge cannot tell them apart. Runs after the decode kernel, which
// decides which rows are cut: rows without slots were computed whole by it and are left out here.
#pragma once

#include "kernels/cuda/attention/row_result.h"

namespace quire::cuda {

// Batch::shared_runs, one a lane, 32 at a time; every warp of a block runs its own copy.
template <int kRows>
class SharedList {
 public:
  __device__ explicit SharedList(const AttentionProblem& p) : p_(p) { load_runs(); }

  // `number` must not fall from call to call. False: there are fewer items. Of the item:
  // first_token is the first of the run's rows within shared_rows, num_tokens how many there are.
  __device__ bool find(int number, WorkItem& item) {
    while (number >= items_before_ + shuffle(items_end_, kWarpSize - 1)) {
      if (first_run_ + kWarpSize >= p_.num_shared_runs) return false;
      items_before_ += shuffle(items_end_, kWarpSize - 1);
      first_run_ += kWarpSize;
      load_runs();
    }
    const int owner = __ffs(static_cast<int>(ballot(items_before_ + items_end_ > number))) - 1;
    int rest = number - items_before_ - shuffle(items_end_ - items_, owner);
    item = {};
    item.first_token = shuffle(first_, owner);
    item.num_tokens = shuffle(count_, owner);
    item.row = p_.shared_rows[item.first_token];  // whose table says where K and V lie
    const int tiles = tiles_of(item.num_tokens);
    item.first_pair = rest % tiles * kRows;
    rest /= tiles;
    item.kv_head = rest % p_.num_kv_heads;
    item.split_begin = shuffle(begin_, owner) + rest / p_.num_kv_heads;
    item.split_end = item.split_begin + 1;
    return true;
  }

 private:
  __device__ int tiles_of(int rows) const {
    return (rows * p_.max_group_heads + kRows - 1) / kRows;
  }

  __device__ void load_runs() {
    const int run = first_run_ + lane_id();
    first_ = count_ = begin_ = items_ = 0;
    if (run < p_.num_shared_runs) {
      first_ = p_.shared_runs[4 * run];
      count_ = p_.shared_runs[4 * run + 1];
      begin_ = p_.shared_runs[4 * run + 2] / kSplitPositions;
      const int splits = p_.shared_runs[4 * run + 3] / kSplitPositions - begin_;
      items_ = tiles_of(count_) * splits * p_.num_kv_heads;
    }
    items_end_ = inclusive_scan(items_);
  }

  const AttentionProblem& p_;
  int first_run_ = 0;
  int items_before_ = 0;  // of runs before first_run_
  // Of this lane's run:
  int first_ = 0;
  int count_ = 0;
  int begin_ = 0;  // split
  int items_ = 0;
  int items_end_ = 0;  // of the runs up to this one, from first_run_
};

// What ItemRows is for the pairs of one row: pair q is row q / heads of the run and head q % heads.
class SharedRows {
 public:
  static constexpr bool kOneSplit = true;

  __device__ SharedRows(const AttentionProblem& p, const WorkItem& item)
      : p_(p), item_(item), heads_(heads_of(p, item.kv_head)) {}

  __device__ ItemRow at(int row) const {
    const int pair = item_.first_pair + row;
    const int member = pair / heads_.count;
    if (member >= item_.num_tokens) return {};
    ItemRow result;
    result.token = p_.row_begin[p_.shared_rows[item_.first_token + member]];
    result.head = heads_.begin + pair % heads_.count;
    if (p_.first_slot[result.token] >= 0) result.position = p_.positions[result.token];
    return result;
  }

  // All rows are past the split.
  __device__ int last_position(int first_row, int) const {
    const bool any = (item_.first_pair + first_row) / heads_.count < item_.num_tokens;
    return any ? item_.split_end * kSplitPositions - 1 : -1;
  }
  __device__ int first_position(int) const { return item_.split_begin * kSplitPositions; }

  __device__ const float* query(const ItemRow& row) const { return query_of(p_, row); }
  __device__ bool sees(const ItemRow& row) const {
    return row.position >= 0 && first_seen(p_, row.position) < item_.split_end * kSplitPositions;
  }
  __device__ RowResult result(const ItemRow& row) const {
    return partial_of(p_, row, p_.first_slot[row.token], item_.split_begin);
  }
  __device__ void note(const RowResult& result, float highest, float total) const {
    p_.partial_tops[result.top] = highest;
    p_.partial_tops[result.top + 1] = total;
  }
  __device__ void note_slot(const ItemRow&) const {}

 private:
  const AttentionProblem& p_;
  const WorkItem item_;
  const GroupHeads heads_;
};

}  // namespace quire::cuda
