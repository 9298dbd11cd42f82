// How long a step may stay unanswered before its group counts as hung: twenty times what such steps
// take, by the scheduler's cost model, but at least two seconds. Where little is known (the first
// steps of a server, a group or a kind of step; steps that move blocks) it is far longer; where
// steps were slower of late than predicted, longer by as much. Pure.
#pragma once

#include "absl/time/time.h"

namespace quire {

struct StepForecast {
  double us = 0;      // 0: nothing is known
  bool sure = false;  // steps like it have been measured
};

class StepDeadline {
 public:
  // `longest`: of a step of which nothing is known, and of any. `fixed`: of every step, if above 0.
  StepDeadline(absl::Duration longest, absl::Duration fixed) : longest_(longest), fixed_(fixed) {}

  absl::Duration of(const StepForecast& forecast) const;
  void observe(const StepForecast& forecast, absl::Duration took);
  void begin_group() { num_steps_ = 0; }

 private:
  absl::Duration longest_, fixed_;
  int num_steps_ = 0;    // of the group
  double slowness_ = 1;  // the most that a step took, by its forecast; fading
};

}  // namespace quire
