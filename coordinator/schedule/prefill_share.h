// How much of a step prompts may take, so that the streams that run keep their pace. Time, not
// tokens: a step with prompts may last kLongestGap times what its decodes alone would take, by the
// cost model, and longer in proportion to the number of prompts that want to be computed. Of that,
// one prompt gets at most half while others wait behind it. So one long prompt slows streams by a
// bounded factor and is itself slowed by about as much; short prompts pass a long one; and a
// machine that prompts alone would fill is not left idle.
//
// No decodes, or a cost model that has seen too little: the token budget alone bounds prompts. Of
// that, too, a prompt that would fill several steps gets no more than half while others wait.
#pragma once

#include "coordinator/schedule/cost_model.h"

namespace quire {

class PrefillShare {
 public:
  struct Limits {
    int num_prompts = 0;    // that want to be computed now
    int budget_tokens = 0;  // of a whole step
    int threshold = -1;     // tokens of one prompt per step; 0: no limit; -1: as said above
  };
  // `decodes`: what the step has already.
  PrefillShare(const StepCostModel& model, const StepWork& decodes, const Limits& limits);

  // The most tokens of the next prompt, which has `missing` left from position `begin` on; 0:
  // nothing is left for it.
  int most_tokens(int begin, int missing) const;
  void take(int begin, int num_tokens);

 private:
  const StepCostModel& model_;
  StepWork work_;  // of the step so far
  const Limits limits_;
  bool timed_ = false;   // the rest counts
  double share_us_ = 0;  // of one prompt, at least
  double left_us_ = 0;
  bool taken_ = false;
};

}  // namespace quire
