// best_of: of all the choices that a request made, those with the highest mean logprob per token.
#pragma once

#include <vector>

#include "coordinator/api/choice_text.h"

namespace quire {

class BestOf {
 public:
  explicit BestOf(int num_choices) : sums_(static_cast<std::size_t>(num_choices)) {}

  void add(int choice, const ChoiceText::Piece& piece);  // needs its logprobs
  // Best first; of equal ones the first. One without a token comes last.
  std::vector<int> best(int count) const;

 private:
  struct Sum {
    double logprob = 0;
    int tokens = 0;
  };
  double mean(int choice) const;

  std::vector<Sum> sums_;  // [choice]
};

}  // namespace quire
