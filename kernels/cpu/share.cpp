#include "kernels/cpu/share.h"

#include <algorithm>

#include "common/check.h"

namespace quire::cpu {
namespace {

constexpr int kRowsPerThread = 12;

}  // namespace

Range share_of(int n, int thread, int num_threads) {
  const auto cut = [&](int i) {
    return static_cast<int>(static_cast<std::int64_t>(n) * i / num_threads);
  };
  return {cut(thread), cut(thread + 1)};
}

bool divides_rows(int rows, int num_threads) {
  return rows >= kRowsPerThread * num_threads;
}

RowShares::RowShares(int rows, int num_threads, int rows_per_group)
    : rows_(rows), groups_(static_cast<std::size_t>(num_threads)) {
  for (int thread = 0; thread < num_threads; ++thread) {
    const Range share = share_of(rows, thread, num_threads);
    const int groups = std::max(1, (share.size() + rows_per_group - 1) / rows_per_group);
    Cuts& cuts = groups_[static_cast<std::size_t>(thread)];
    cuts.push_back(share.begin);
    for (int g = 0; g < groups; ++g) {
      cuts.push_back(share.begin + share_of(share.size(), g, groups).end);
    }
  }
}

void RowShares::keep_together(absl::Span<const std::int32_t> begin) {
  QUIRE_CHECK_EQ(begin.back(), rows_);
  // To the nearest row that is the first of its kind.
  const auto moved = [&](int cut) {
    const auto above = std::lower_bound(begin.begin(), begin.end(), cut);
    if (above == begin.begin() || *above - cut < cut - *(above - 1))
      return static_cast<int>(*above);
    return static_cast<int>(*(above - 1));
  };
  for (Cuts& cuts : groups_) {
    for (int& cut : cuts) cut = moved(cut);
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    if (cuts.size() == 1) cuts.push_back(cuts[0]);  // a thread with nothing to do
  }
}

Range RowShares::of(int thread) const {
  return {groups(thread).front(), groups(thread).back()};
}

Range RowShares::group(int thread, int i) const {
  const auto g = static_cast<std::size_t>(i);
  return {groups(thread)[g], groups(thread)[g + 1]};
}

Range RowShares::group_at(int thread, int first_row) const {
  int i = 0;
  while (i + 1 < num_groups(thread) && group(thread, i).begin < first_row) ++i;
  return group(thread, i);
}

}  // namespace quire::cpu
