// How threads divide an op. One that treats each row of the batch by itself gives a thread an equal
// run of rows. Where neighbouring ops do so with the same runs, a thread goes on with its own
// without waiting for the others (Command::by_rows): then some read memory while others compute.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/shard.h"

namespace quire::cpu {

// Thread `thread`'s share of n things.
Range share_of(int n, int thread, int num_threads);

// Whether matrix products and attention divide their rows, too. Each thread then reads all weights
// and computes with each of them long enough that reading does not slow it down (measured on two
// threads); with fewer rows they divide the weights, and K and V.
bool divides_rows(int rows, int num_threads);

// Each thread's run of a list of rows, and its groups: with the first it goes through an attention
// and the ops after it, then with the next. So while it multiplies with one group, K and V of the
// next are fetched (read_ahead.h).
class RowShares {
 public:
  // Cut between any rows, into groups of so many or fewer.
  RowShares(int rows, int num_threads, int rows_per_group);

  // Rows [begin[i], begin[i + 1]) belong together: cuts the same list between those alone. While
  // nobody uses the shares.
  void keep_together(absl::Span<const std::int32_t> begin);

  int rows() const { return rows_; }
  Range of(int thread) const;
  int num_groups(int thread) const { return static_cast<int>(groups(thread).size()) - 1; }
  Range group(int thread, int i) const;
  // The thread's group that begins with this row.
  Range group_at(int thread, int first_row) const;

 private:
  using Cuts = std::vector<int>;  // ascending, with both ends
  const Cuts& groups(int thread) const { return groups_[static_cast<std::size_t>(thread)]; }

  int rows_ = 0;
  std::vector<Cuts> groups_;  // [thread]
};

}  // namespace quire::cpu
