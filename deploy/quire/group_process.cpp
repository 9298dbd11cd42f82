#include "deploy/quire/group_process.h"

#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "common/status.h"
#include "deploy/quire/launch.h"
#include "deploy/quire/sweep.h"

namespace quire {
namespace {

using std::chrono::milliseconds;

// For the ranks of an epoch that has ended to leave by themselves: one that is stopped never does.
constexpr milliseconds kLeaveWithin{500};
// Ranks dial again several times a second, and leave when their lease of 5 s runs out; those that
// hang do neither, and a coordinator that never heard of them misses nobody.
constexpr milliseconds kComeBackWithin{10000};
// mpirun ends soon after a rank of it has, but now and then hangs where one dies while it starts.
constexpr milliseconds kCountRanksEvery{500};
constexpr milliseconds kLaunchWithin{15000};
constexpr milliseconds kFollowWithin{2000};

}  // namespace

bool passed(Due& due) {
  if (!due || SteadyClock::now() < *due) return false;
  due.reset();
  return true;
}

Due sooner(const Due& a, const Due& b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

void GroupProcess::signal(int number) const {
  if (process_) process_->signal(number);
}

absl::Status GroupProcess::start(const EngineConfig& config, const std::string& bin,
                                 const std::string& coordinator) {
  instance_ = random_instance();
  const Launch launch = group_launch(config, bin, coordinator, instance_, number_);
  QUIRE_ASSIGN_OR_RETURN(process_, Process::start(launch.argv, launch.env, /*read_output=*/false));
  num_ranks_ = config.tensor_parallel_size;
  if (!config.hostfile.empty()) return absl::OkStatus();  // only here are ranks mpirun's children
  count_due_ = SteadyClock::now() + kCountRanksEvery;
  all_there_by_ = SteadyClock::now() + kLaunchWithin;
  launched_ = false;
  return absl::OkStatus();
}

void GroupProcess::attached() {
  has_attached_ = true;
  come_back_due_.reset();
}

void GroupProcess::expect_to_come_back() {
  if (has_attached_ && runs()) come_back_due_ = SteadyClock::now() + kComeBackWithin;
}

void GroupProcess::expect_to_leave() {
  leave_due_ = SteadyClock::now() + kLeaveWithin;
}

int GroupProcess::end() {
  const int code = process_->exit_code();
  process_.reset();
  leave_due_.reset();
  come_back_due_.reset();
  count_due_.reset();
  has_attached_ = false;
  sweep(std::exchange(instance_, ""));
  return code;
}

Due GroupProcess::when() const {
  return sooner(sooner(start_due, leave_due_), sooner(come_back_due_, count_due_));
}

void GroupProcess::run_timers() {
  if (passed(leave_due_)) signal(SIGKILL);  // its ranks die with it
  if (passed(come_back_due_) && runs()) {
    std::fprintf(stderr, "quire: %s does not come back to the new coordinator; killing it\n",
                 name_.c_str());
    signal(SIGKILL);
  }
  if (passed(count_due_) && runs()) count_ranks();
}

void GroupProcess::count_ranks() {
  count_due_ = SteadyClock::now() + kCountRanksEvery;
  const Process::Children ranks = process_->children();
  const bool all = ranks.living >= num_ranks_;
  const bool first_seen = !launched_ && ranks.living + ranks.ended > 0;
  launched_ = launched_ || first_seen;
  if (all || first_seen) {
    all_there_by_ = SteadyClock::now() + kFollowWithin;
  } else if (SteadyClock::now() > all_there_by_) {
    std::fprintf(stderr, "quire: mpirun of %s hangs, though not all of its ranks run; killing it\n",
                 name_.c_str());
    signal(SIGKILL);
    count_due_.reset();
  }
}

}  // namespace quire
