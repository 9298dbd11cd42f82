// The means and their order; see best_of.h.
#include "coordinator/api/best_of.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace quire {

void BestOf::add(int choice, const ChoiceText::Piece& piece) {
  Sum& sum = sums_[static_cast<std::size_t>(choice)];
  for (const TokenLogprobText& entry : piece.logprobs) {
    sum.logprob += static_cast<double>(entry.chosen.logprob);
    ++sum.tokens;
  }
}

double BestOf::mean(int choice) const {
  const Sum& sum = sums_[static_cast<std::size_t>(choice)];
  if (sum.tokens == 0) return -std::numeric_limits<double>::infinity();
  return sum.logprob / sum.tokens;
}

std::vector<int> BestOf::best(int count) const {
  std::vector<int> order(sums_.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [this](int a, int b) { return mean(a) > mean(b); });
  order.resize(std::min(order.size(), static_cast<std::size_t>(count)));
  return order;
}

}  // namespace quire
