// A scheduler with one fake group in virtual time: the clock advances by what steps are said to
// cost. For simulations of one situation, where the random ones look for anything that breaks.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/schedule/scheduler.h"
#include "tests/fakes/hash_worker.h"

namespace quire::test {

class VirtualFleet {
 public:
  struct Record {  // of one request
    int tenant = 0;
    int num_prompt_tokens = 0;
    absl::Time arrival, first = absl::InfiniteFuture(), end = absl::InfiniteFuture();
    std::int64_t num_tokens = 0;  // delivered
    bool ended() const { return end < absl::InfiniteFuture(); }
  };

  VirtualFleet(const SchedulerConfig& config, int num_blocks, HashCost cost);

  // A request that arrives now. The seed is its id.
  RequestId submit(int num_prompt, int max_tokens, NewRequest wish = {});
  // Plans as far ahead as it may, then takes the oldest step's result. False when there was nothing
  // to do. A broken rule of any kind is a failure of the test.
  bool step();

  absl::Time now() const { return now_; }
  Scheduler& scheduler() { return scheduler_; }
  const std::map<RequestId, Record>& records() const { return records_; }
  const Record& record(RequestId id) const { return records_.at(id); }
  int num_choices() const { return num_choices_; }  // that have not ended
  // Plans that left somebody waiting though neither slots nor the token budget were used up.
  int num_idle_plans() const { return num_idle_plans_; }
  // The first by arrival of those with a slot (0: none), and whether the last plan has a row of it.
  RequestId first_running() const;
  bool has_row(RequestId id) const { return rows_.count(id) > 0; }
  // A request was admitted although one that arrived before it was waiting.
  bool somebody_was_passed() const { return somebody_was_passed_; }
  std::int64_t num_computed() const { return num_computed_; }  // tokens, ever
  // Positions that every slot has computed, and those of the blocks that they need for it.
  KvUse least_use() const;

 private:
  void send(StepPlan plan);
  void take(const Gain& gain);

  const SchedulerConfig config_;
  Scheduler scheduler_;
  HashWorker worker_;
  std::deque<StepPlan> sent_;
  std::set<RequestId> rows_;     // of the last plan
  std::set<RequestId> waiting_;  // that have no slot
  std::map<SlotId, RequestId> slots_;
  std::map<SlotId, std::int64_t> computed_;
  std::map<RequestId, Record> records_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  RequestId next_id_ = 1;
  int num_idle_plans_ = 0;
  bool somebody_was_passed_ = false;
  int num_choices_ = 0;
  std::int64_t num_computed_ = 0;
};

}  // namespace quire::test
