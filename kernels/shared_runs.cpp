#include "kernels/shared_runs.h"

#include <algorithm>

namespace quire {

const BlockId* SharedRuns::split_of(int row, int split) const {
  return batch_->block_tables + static_cast<std::ptrdiff_t>(row) * batch_->max_blocks +
         static_cast<std::ptrdiff_t>(split) * split_blocks_;
}

BlockId SharedRuns::key(int row, int split) const {
  if ((batch_->context[row] - 1) / kSharedPositions <= split) return -1;
  return split_of(row, split)[split_blocks_ - 1];
}

bool SharedRuns::same(int row, int other, int split) const {
  const BlockId* blocks = split_of(row, split);
  return std::equal(blocks, blocks + split_blocks_, split_of(other, split));
}

void SharedRuns::find(const Batch& batch) {
  batch_ = &batch;
  split_blocks_ = kSharedPositions / batch.block_size;
  runs_.clear();
  rows_.clear();
  of_row_.assign(static_cast<std::size_t>(batch.num_rows), 0);
  for (int row = 0; row < batch.num_rows; ++row) {
    const bool decodes = batch.row_begin[row + 1] - batch.row_begin[row] == 1;
    if (decodes && key(row, 0) >= 0) rows_.push_back(row);
  }
  part(0, static_cast<int>(rows_.size()), 0);
}

void SharedRuns::part(int begin, int end, int split) {
  const auto first = rows_.begin();
  std::sort(first + begin, first + end, [&](int a, int b) {
    return std::pair(key(a, split), a) < std::pair(key(b, split), b);
  });
  while (begin < end) {
    const BlockId block = key(first[begin], split);
    int after = begin + 1;
    while (after < end && key(first[after], split) == block) ++after;
    if (block >= 0 && after - begin > 1) extend(begin, after, split);
    begin = after;
  }
}

void SharedRuns::extend(int begin, int end, int split) {
  const auto first = rows_.begin() + begin;
  const auto last = rows_.begin() + end;
  int after = split;
  while (std::all_of(first, last,
                     [&](int row) { return key(row, after) >= 0 && same(row, *first, after); })) {
    ++after;
  }
  if (after == split) return;  // the same last block after different ones: no prefix cache does so
  runs_.insert(runs_.end(),
               {begin, end - begin, split * kSharedPositions, after * kSharedPositions});
  std::for_each(first, last, [&](int row) {
    of_row_[static_cast<std::size_t>(row)] = after * kSharedPositions;
  });
  part(begin, end, after);
}

}  // namespace quire
