// How much of a step prompts may take, so that the streams that run keep their pace. Time, not
// tokens: a step with prompts may last kLongestGap times what its decodes alone would take, by the
// cost model, and longer in proportion to the number of prompts that want to be computed. Of that,
// one prompt gets at most half while others wait behind it. So one long prompt slows streams by a
// bounded factor and is itself slowed by about as much; short prompts pass a long one; and a
// machine that prompts alone would fill is not left idle.
//
// No decodes, or a cost model that has seen too little: the token budget alone bounds prompts.
#pragma once

#include "coordinator/schedule/cost_model.h"

namespace quire {

class PrefillShare {
 public:
  // `decodes`: what the step has already. `num_prompts`: that want to be computed now.
  // `threshold`: tokens of one prompt per step; 0: no limit; -1: as said above.
  PrefillShare(const StepCostModel& model, const StepWork& decodes, int num_prompts, int threshold);

  // The most tokens of the next prompt, from position `begin` on; 0: nothing is left.
  int most_tokens(int begin) const;
  void take(int begin, int num_tokens);

 private:
  const StepCostModel& model_;
  StepWork work_;  // of the step so far
  const int threshold_;
  bool timed_ = false;   // the rest counts
  double share_us_ = 0;  // of one prompt, at least
  double left_us_ = 0;
  bool taken_ = false;
};

}  // namespace quire
