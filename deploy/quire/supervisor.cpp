// One loop over poll(): the coordinator's output and end, the group's end, signals, and timers.
// The coordinator speaks in lines on its standard output:
//   quire-coordinator listening http=URL grpc=HOST:PORT    -> workers may be started
//   quire-coordinator ready http=URL grpc=HOST:PORT        -> a group answers
//   quire-coordinator progress epoch=N                     -> lives before this one are forgiven
//   quire-coordinator lost epoch=N instance=ID cause=WORD  -> that group leaves, or is killed
// Either child that dies is started again, the coordinator on the ports that it had first; a group
// outlives its coordinator and attaches to the next one. A spent budget, or an exit code that
// another life cannot mend, ends the server with a non-zero code, after the coordinator has refused
// what waits.
#include "deploy/quire/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "deploy/quire/launch.h"
#include "deploy/quire/own_journal.h"
#include "deploy/quire/process.h"
#include "deploy/quire/restart_budget.h"
#include "deploy/quire/sweep.h"

namespace quire {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// For the ranks of an epoch that has ended to leave by themselves: one that is stopped never does.
constexpr milliseconds kLeaveWithin{500};
constexpr milliseconds kHurryWithin{3000};
// mpirun ends soon after a rank of it has, but now and then hangs where one dies while it starts.
constexpr milliseconds kCountRanksEvery{500};
constexpr milliseconds kLaunchWithin{15000};
constexpr milliseconds kFollowWithin{2000};
constexpr int kAtOnce = 3;  // signals

void say(const std::string& text) {
  std::fprintf(stderr, "quire: %s\n", text.c_str());
}

// The value of `key=` in a line of words.
std::string field(const std::string& line, const std::string& key) {
  for (absl::string_view word : absl::StrSplit(line, ' ')) {
    if (absl::ConsumePrefix(&word, key + "=")) return std::string(word);
  }
  return "";
}

int port_of(const std::string& address) {
  int port = 0;
  const std::size_t colon = address.rfind(':');
  return colon != std::string::npos && absl::SimpleAtoi(address.substr(colon + 1), &port) ? port
                                                                                          : 0;
}

std::string in_pause(milliseconds pause) {
  return pause.count() == 0 ? "starting it again"
                            : absl::StrCat("starting it again in ", pause.count(), " ms");
}

class Supervisor {
 public:
  Supervisor(const EngineConfig& config, std::string bin) : config_(config), bin_(std::move(bin)) {}

  int run() {
    sigset_t handled;
    sigemptyset(&handled);
    for (int s : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&handled, s);
    signals_ = signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
    sweep("");
    start_coordinator();
    while (coordinator_ || group_ || coordinator_due_) wait_once();
    close(signals_);
    return exit_code_;
  }

 private:
  using Due = std::optional<Clock::time_point>;

  void wait_once() {
    pollfd fds[4];
    int count = 0;
    const auto watch = [&](int fd) {
      fds[count] = {fd, POLLIN, 0};
      return count++;
    };
    const int on_signal = watch(signals_);
    const int on_coordinator = coordinator_ ? watch(coordinator_->pidfd()) : -1;
    const int on_output =
        coordinator_ && coordinator_->output() >= 0 ? watch(coordinator_->output()) : -1;
    const int on_group = group_ ? watch(group_->pidfd()) : -1;
    poll(fds, static_cast<nfds_t>(count), timeout_ms());
    if (fds[on_signal].revents != 0) take_signal();
    if (on_output >= 0 && fds[on_output].revents != 0) read_coordinator();
    if (on_group >= 0 && fds[on_group].revents != 0) group_ended();
    if (on_coordinator >= 0 && fds[on_coordinator].revents != 0) coordinator_ended();
    run_timers();
  }

  int timeout_ms() const {
    auto next = Clock::time_point::max();
    for (const Due& due : {coordinator_due_, group_due_, leave_due_, count_due_, stop_due_}) {
      if (due) next = std::min(next, *due);
    }
    if (next == Clock::time_point::max()) return -1;
    const auto left = std::chrono::duration_cast<milliseconds>(next - Clock::now()).count();
    return static_cast<int>(std::clamp<long>(left + 1, 0, 60000));
  }

  // Whether the time has come; then it is over.
  static bool passed(Due& due) {
    if (!due || Clock::now() < *due) return false;
    due.reset();
    return true;
  }

  void run_timers() {
    if (passed(coordinator_due_)) start_coordinator();
    if (passed(group_due_)) start_group();
    if (passed(leave_due_) && group_) group_->signal(SIGKILL);  // its ranks die with it
    if (passed(count_due_) && group_) count_ranks();
    if (passed(stop_due_)) {
      say("still not stopped; killing");
      kill_all();
    }
  }

  // Ranks whose mpirun was killed; the two that were started here are waited for by their pidfds.
  void reap_orphans() {
    reap_adopted({coordinator_ ? coordinator_->pid() : -1, group_ ? group_->pid() : -1});
  }

  // --- stopping ---

  void take_signal() {
    signalfd_siginfo info;
    if (read(signals_, &info, sizeof info) != sizeof info) return;
    if (info.ssi_signo == SIGCHLD) return reap_orphans();
    ++times_told_;
    if (times_told_ >= kAtOnce) return kill_all();
    if (times_told_ == 1 && !stopping_) {
      say("stopping when running requests have finished; once more to end them now");
      return stop(SIGTERM, 0);
    }
    if (coordinator_) coordinator_->signal(SIGTERM);
    stop_due_ = Clock::now() + kHurryWithin;
  }

  // Orderly: the coordinator drains (SIGTERM) or refuses what waits (SIGUSR2), and tells the
  // workers to leave.
  void stop(int signal, int exit_code) {
    if (stopping_) return;
    stopping_ = true;
    exit_code_ = exit_code;
    coordinator_due_.reset();
    if (coordinator_) coordinator_->signal(signal);
    if (!coordinator_ && group_) group_->signal(SIGTERM);
    stop_due_ = Clock::now() + std::chrono::seconds(stop_within_seconds(config_));
  }

  // Another life cannot mend it, or the budget is spent.
  void give_up(int code) {
    const int exit_code = code == 0 ? 1 : code;
    if (!stopping_) return stop(SIGUSR2, exit_code);
    exit_code_ = exit_code;
    if (coordinator_) coordinator_->signal(SIGUSR2);
  }

  void kill_all() {
    if (coordinator_) coordinator_->signal(SIGKILL);
    if (group_) group_->signal(SIGKILL);
  }

  // --- the coordinator ---

  void start_coordinator() {
    const Launch launch = coordinator_launch(config_, bin_);
    auto started = Process::start(launch.argv, launch.env, /*read_output=*/true);
    if (!started.ok()) {
      say(std::string(started.status().message()));
      return stop(SIGTERM, 1);
    }
    coordinator_ = *std::move(started);
  }

  void read_coordinator() {
    for (const std::string& line : coordinator_->read_lines()) {
      take_line(line);
      if (isatty(STDOUT_FILENO) != 0) continue;  // lines for programs; people had theirs
      std::printf("%s\n", line.c_str());
      std::fflush(stdout);
    }
  }

  void take_line(const std::string& line) {
    if (absl::StartsWith(line, "quire-coordinator listening ")) {
      listens(field(line, "http"), field(line, "grpc"));
    } else if (absl::StartsWith(line, "quire-coordinator ready ")) {
      announce(field(line, "http"), field(line, "grpc"));
    } else if (absl::StartsWith(line, "quire-coordinator progress ")) {
      coordinator_budget_.advanced();
      group_budget_.advanced();
    } else if (absl::StartsWith(line, "quire-coordinator lost ")) {
      if (field(line, "instance") == instance_) leave_due_ = Clock::now() + kLeaveWithin;
    }
  }

  void listens(const std::string& http, const std::string& grpc) {
    auto address = address_for_ranks(config_, host_name(), grpc);
    if (!address.ok()) {  // the hostfile has changed since `quire serve` looked at it
      say(std::string(address.status().message()));
      return stop(SIGTERM, 64);
    }
    grpc_ = *std::move(address);
    config_.port = port_of(http);  // the next life is found where this one is
    config_.grpc_port = port_of(grpc);
    if (!group_due_) start_group();
  }

  void announce(const std::string& http, const std::string& grpc) {
    if (std::exchange(announced_, true)) return;
    say(absl::StrCat("ready. OpenAI API ", http, "/v1   metrics ", http, "/metrics   gRPC ", grpc));
  }

  void coordinator_ended() {
    if (coordinator_->output() >= 0) read_coordinator();
    const int code = coordinator_->exit_code();
    coordinator_.reset();
    if (stopping_) return coordinator_stopped(code);
    const bool listened = !grpc_.empty();
    // Before it first listens it has said itself what was wrong with options, model or address.
    if (listened || code <= 1 || code > 128) {
      say(absl::StrCat("the coordinator ended: ", explain_exit(code)));
    }
    const bool hopeless = !listened && (is_permanent(code) || code == kAddressInUse);
    const auto pause = hopeless ? std::nullopt : coordinator_budget_.next_pause();
    if (pause) {
      say(absl::StrCat(in_pause(*pause), group_ ? "; the workers keep the model" : ""));
      coordinator_due_ = Clock::now() + *pause;
      return;
    }
    if (!hopeless) give_reason("the coordinator", coordinator_budget_);
    stop(SIGTERM, code == 0 ? 1 : code);
  }

  void coordinator_stopped(int code) {
    if (exit_code_ == 0 && code != 0) exit_code_ = code;
    group_due_.reset();
    if (!group_) return;
    group_->signal(SIGTERM);
    stop_due_ = Clock::now() + std::chrono::seconds(3);
  }

  // --- the worker group ---

  void start_group() {
    if (group_ || !coordinator_) return;
    instance_ = random_instance();
    const Launch launch = group_launch(config_, bin_, grpc_, instance_);
    auto started = Process::start(launch.argv, launch.env, /*read_output=*/false);
    if (!started.ok()) {
      say(std::string(started.status().message()));
      return stop(SIGTERM, 1);
    }
    group_ = *std::move(started);
    if (!config_.hostfile.empty()) return;  // only the ranks of one host are mpirun's children
    count_due_ = Clock::now() + kCountRanksEvery;
    all_there_by_ = Clock::now() + kLaunchWithin;
    launched_ = false;
  }

  void count_ranks() {
    count_due_ = Clock::now() + kCountRanksEvery;
    const Process::Children ranks = group_->children();
    const bool all = ranks.living >= config_.tensor_parallel_size;
    const bool first_seen = !launched_ && ranks.living + ranks.ended > 0;
    launched_ = launched_ || first_seen;
    if (all || first_seen) {
      all_there_by_ = Clock::now() + kFollowWithin;
    } else if (Clock::now() > all_there_by_) {
      say("mpirun hangs, though not all of its ranks run; killing it");
      group_->signal(SIGKILL);
      count_due_.reset();
    }
  }

  void group_ended() {
    if (coordinator_ && coordinator_->output() >= 0) read_coordinator();  // it may have advanced
    const int code = group_->exit_code();
    group_.reset();
    leave_due_.reset();
    count_due_.reset();
    sweep(std::exchange(instance_, ""));
    if (stopping_ && (code == 0 || !coordinator_ || exit_code_ != 0)) return;
    say(absl::StrCat("the worker group ended: ", explain_exit(code)));
    if (is_permanent(code)) return give_up(code);
    // Without a coordinator it could not stay: the next one is followed by the next group.
    if (!coordinator_) return;
    const auto pause = group_budget_.next_pause();
    if (!pause) {
      give_reason("the worker group", group_budget_);
      return give_up(code);
    }
    say(in_pause(*pause));
    group_due_ = Clock::now() + *pause;
  }

  static void give_reason(const char* who, const RestartBudget& budget) {
    say(absl::StrCat(who, " did no step in ", budget.failed_lives(), " lives; giving up"));
  }

  static constexpr int kAddressInUse = 69;

  EngineConfig config_;
  const OwnJournal own_journal_{&config_};
  std::string bin_;
  std::optional<Process> coordinator_;
  std::optional<Process> group_;  // mpirun
  std::string grpc_;              // what ranks dial; empty until a coordinator listened
  std::string instance_;          // of the group
  RestartBudget coordinator_budget_, group_budget_;
  Due coordinator_due_, group_due_;  // to be started
  Due leave_due_;                    // the group is killed
  Due count_due_;                    // its ranks are counted
  Clock::time_point all_there_by_;   // or mpirun hangs
  bool launched_ = false;            // it has had ranks
  Due stop_due_;                     // everything is
  int signals_ = -1;
  int times_told_ = 0;
  int exit_code_ = 0;
  bool stopping_ = false;
  bool announced_ = false;
};

}  // namespace

int supervise(const EngineConfig& config, const std::string& bin) {
  return Supervisor(config, bin).run();
}

}  // namespace quire
