// Work over a range of rows, cut into contiguous parts for a few threads that live for the call.
#pragma once

#include <algorithm>
#include <thread>
#include <vector>

#include "common/shard.h"

namespace quire {

// Calls work(Range) on disjoint parts of `rows`, each a multiple of `step` rows but the last.
template <typename Work>
void parallel_rows(Range rows, int step, int num_threads, const Work& work) {
  const int steps = (rows.size() + step - 1) / step;
  const int parts = std::clamp(num_threads, 1, std::max(1, steps));
  const auto part = [&](int i) {
    const auto edge = [&](int p) {
      const auto at = static_cast<std::int64_t>(steps) * p / parts * step;
      return rows.begin + static_cast<int>(std::min<std::int64_t>(at, rows.size()));
    };
    return Range{edge(i), edge(i + 1)};
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < parts; ++i) threads.emplace_back([&, i] { work(part(i)); });
  work(part(0));
  for (std::thread& thread : threads) thread.join();
}

}  // namespace quire
