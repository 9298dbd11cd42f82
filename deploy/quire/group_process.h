// One worker group that this machine starts: its mpirun, the life it is in, and what it is given
// for leaving, launching and restarting. The supervisor asks for when() and calls run_timers()
// then.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/config.h"
#include "deploy/quire/process.h"
#include "deploy/quire/restart_budget.h"

namespace quire {

using SteadyClock = std::chrono::steady_clock;
using Due = std::optional<SteadyClock::time_point>;
// Whether the time has come; then it is over.
bool passed(Due& due);
// The earlier of both.
Due sooner(const Due& a, const Due& b);

class GroupProcess {
 public:
  // `number`: which of the groups that this machine starts. `name`: for people.
  GroupProcess(int number, std::string name) : number_(number), name_(std::move(name)) {}

  bool runs() const { return process_.has_value(); }
  int pid() const { return process_->pid(); }      // while it runs
  int pidfd() const { return process_->pidfd(); }  // the same
  void signal(int number) const;                   // if it runs
  bool is(const std::string& instance) const { return runs() && instance == instance_; }
  const std::string& name() const { return name_; }

  // A new life with an instance of its own. Its ranks dial `coordinator`.
  absl::Status start(const EngineConfig& config, const std::string& bin,
                     const std::string& coordinator);
  // It answers the coordinator.
  void attached();
  // A new coordinator listens: ranks that had an epoch with an earlier one come back at once, or
  // are killed.
  void expect_to_come_back();
  // Its epoch has ended: ranks that do not leave by themselves are killed.
  void expect_to_leave();
  // Reaps it, after pidfd() became readable, and sweeps what it left behind.
  int end();

  Due when() const;
  void run_timers();

  RestartBudget budget;
  Due start_due;          // the owner's: it is started again
  bool given_up = false;  // the owner's: it is not

 private:
  void count_ranks();

  const int number_;
  const std::string name_;
  std::optional<Process> process_;  // mpirun
  std::string instance_;
  Due leave_due_;      // it is killed
  Due come_back_due_;  // it is killed
  bool has_attached_ = false;
  Due count_due_;                         // its ranks are counted
  SteadyClock::time_point all_there_by_;  // or mpirun hangs
  int num_ranks_ = 0;
  bool launched_ = false;  // it has had ranks
};

}  // namespace quire
