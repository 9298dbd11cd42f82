// What plans must keep to over time, beside what the fake worker checks in each: rows whose outcome
// only a result tells are not planned ahead. Also knows which request a slot belongs to, how far
// searches are, and counts what the plans of a life hold.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "common/step.h"

namespace quire::test {

struct PlanCounts {
  std::int64_t steps = 0, rows = 0, admits = 0, forks = 0, copies = 0;
  std::int64_t saves = 0, loads = 0, draft_rows = 0, draft_tokens = 0;
  std::uint64_t digest = 0;  // of all of it, in order
};

class PlanWatch {
 public:
  // The lower half of a seed names the request.
  static RequestId request_of(const SamplingParams& params) { return params.seed & 0xffffffff; }

  absl::Status send(const StepPlan& plan);
  void apply();                                  // the result of the oldest plan
  void forget();                                 // the group is lost
  int steps_of_search(RequestId request) const;  // applied, of its present life

  const PlanCounts& counts() const { return counts_; }

 private:
  struct Slot {
    RequestId request = 0;
    int num_prompt_tokens = 0;
    bool beam = false;
    StepId waits_for = 0;  // the step whose result must come before the slot is named again
  };
  struct Step {
    StepId step = 0;
    std::map<RequestId, int> searches;  // how far each is when the result is there
  };

  absl::Status watch(const PlanRow& row, Step* step);
  void count(const StepPlan& plan);

  std::map<SlotId, Slot> slots_;
  std::map<RequestId, int> searches_;
  std::deque<Step> sent_;
  PlanCounts counts_;
};

}  // namespace quire::test
