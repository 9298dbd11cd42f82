// What the loop has for one worker group: its scheduler with its block table, the plans in flight
// and when they are overdue. The engine's thread owns it. There is one for every seat of the fleet,
// also while nobody sits there.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/step_deadline.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {

class Lane {
 public:
  Lane(const SchedulerConfig& config, std::shared_ptr<TenantShares> shares, StepDeadline deadline)
      : deadline_(deadline), scheduler_(config, std::move(shares)) {}

  Scheduler& scheduler() { return scheduler_; }
  const Scheduler& scheduler() const { return scheduler_; }
  bool ready() const { return scheduler_.epoch() != 0; }
  EpochId epoch() const { return scheduler_.epoch(); }
  const std::string& instance() const { return instance_; }
  std::uint64_t numerics() const { return numerics_; }  // see GroupReady
  // True once in an epoch: a request of it had gone on by other numerics before.
  bool first_change() { return !std::exchange(has_changed_, true); }
  bool has_nothing() const { return scheduler_.num_running() + scheduler_.num_waiting() == 0; }

  // Returns the requests that can never fit this group; they are forgotten.
  std::vector<RequestId> begin_group(const GroupReady& ready, absl::Time now);
  void lose_group();

  // A plan of the scheduler's is on its way; returns how long its answer may take.
  absl::Duration sent(absl::Time now);
  // The oldest plan's result was applied; returns how long it took.
  absl::Duration answered(absl::Time now);
  // When somebody must look at overdue(), or at stood().
  absl::Time wake_time() const { return std::min(answer_due_, stood_due_); }
  absl::Time answer_due() const { return answer_due_; }  // of the oldest plan in flight
  // The oldest plan's answer is overdue, and this thread was there when its time came. After a
  // pause of the whole process the answer may lie in a socket: it gets some more time.
  bool overdue(absl::Time now);
  absl::Duration allowed() const { return sent_.front().allowed; }  // to that plan's answer

  // True once in an epoch: it has done somebody good, by a step or by standing ready for a minute
  // with nothing to do.
  bool advanced();
  bool stood(absl::Time now);
  std::uint64_t steps() const { return steps_; }  // answered

 private:
  struct Sent {  // a plan
    absl::Time time;
    StepForecast forecast;
    absl::Duration allowed;
  };

  StepDeadline deadline_;
  Scheduler scheduler_;
  std::string instance_;
  std::uint64_t numerics_ = 0;
  bool has_changed_ = true;
  std::deque<Sent> sent_;  // the plans in flight, oldest first
  absl::Time last_answer_ = absl::InfinitePast();
  absl::Time answer_due_ = absl::InfiniteFuture();
  absl::Time stood_due_ = absl::InfiniteFuture();  // when standing ready counts as progress
  bool has_advanced_ = true;
  std::uint64_t steps_ = 0;
};

}  // namespace quire
