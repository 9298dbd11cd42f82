// One loop over poll(): the coordinator's output and end, the groups' ends, signals, and timers.
// The coordinator speaks in lines on its standard output:
//   quire-coordinator listening http=URL grpc=HOST:PORT    -> workers may be started
//   quire-coordinator ready http=URL grpc=HOST:PORT        -> a group answers
//   quire-coordinator attached epoch=N instance=ID         -> that group has come, or come back
//   quire-coordinator progress epoch=N instance=ID         -> lives before this one are forgiven
//   quire-coordinator lost epoch=N instance=ID cause=WORD  -> that group leaves, or is killed
// A child that dies is started again, the coordinator on the ports that it had first; a group
// outlives its coordinator and attaches to the next one. A spent budget, or an exit code that
// another life cannot mend, of the coordinator or of the last group, ends the server with a
// non-zero code, after the coordinator has refused what waits; of one group among others, that
// group.
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
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "deploy/quire/group_process.h"
#include "deploy/quire/launch.h"
#include "deploy/quire/own_journal.h"
#include "deploy/quire/process.h"
#include "deploy/quire/restart_budget.h"
#include "deploy/quire/sweep.h"

namespace quire {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kHurryWithin{3000};
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
  Supervisor(const EngineConfig& config, std::string bin) : config_(config), bin_(std::move(bin)) {
    const int count = num_local_groups(config);
    for (int i = 0; i < count; ++i) {
      groups_.emplace_back(i, count == 1 ? "the worker group" : absl::StrCat("worker group ", i));
    }
  }

  int run() {
    sigset_t handled;
    sigemptyset(&handled);
    for (int s : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&handled, s);
    signals_ = signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
    sweep("");
    start_coordinator();
    while (coordinator_ || coordinator_due_ || any_group()) wait_once();
    close(signals_);
    return exit_code_;
  }

 private:
  void wait_once() {
    std::vector<pollfd> fds;
    const auto watch = [&](int fd) {
      fds.push_back({fd, POLLIN, 0});
      return fds.size() - 1;
    };
    constexpr std::size_t kNone = static_cast<std::size_t>(-1);
    const std::size_t on_signal = watch(signals_);
    const std::size_t on_coordinator = coordinator_ ? watch(coordinator_->pidfd()) : kNone;
    const std::size_t on_output =
        coordinator_ && coordinator_->output() >= 0 ? watch(coordinator_->output()) : kNone;
    std::vector<std::size_t> on_group;
    for (const GroupProcess& group : groups_) {
      on_group.push_back(group.runs() ? watch(group.pidfd()) : kNone);
    }
    poll(fds.data(), static_cast<nfds_t>(fds.size()), timeout_ms());
    const auto has_news = [&](std::size_t at) { return at != kNone && fds[at].revents != 0; };
    if (has_news(on_signal)) take_signal();
    if (has_news(on_output)) read_coordinator();
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      if (has_news(on_group[i])) group_ended(groups_[i]);
    }
    if (has_news(on_coordinator)) coordinator_ended();
    run_timers();
  }

  bool any_group() const {
    return std::any_of(groups_.begin(), groups_.end(),
                       [](const GroupProcess& group) { return group.runs(); });
  }

  void signal_groups(int signal) {
    for (const GroupProcess& group : groups_) group.signal(signal);
  }

  int timeout_ms() const {
    Due next = sooner(coordinator_due_, stop_due_);
    for (const GroupProcess& group : groups_) next = sooner(next, group.when());
    if (!next) return -1;
    const auto left = std::chrono::duration_cast<milliseconds>(*next - SteadyClock::now()).count();
    return static_cast<int>(std::clamp<long>(left + 1, 0, 60000));
  }

  void run_timers() {
    if (passed(coordinator_due_)) start_coordinator();
    for (GroupProcess& group : groups_) {
      if (passed(group.start_due)) start_group(group);
      group.run_timers();
    }
    if (passed(stop_due_)) {
      say("still not stopped; killing");
      kill_all();
    }
  }

  // Ranks whose mpirun was killed; what was started here is waited for by its pidfd.
  void reap_orphans() {
    std::vector<int> ours;
    if (coordinator_) ours.push_back(coordinator_->pid());
    for (const GroupProcess& group : groups_) {
      if (group.runs()) ours.push_back(group.pid());
    }
    reap_adopted(ours);
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
    stop_due_ = SteadyClock::now() + kHurryWithin;
  }

  // Orderly: the coordinator drains (SIGTERM) or refuses what waits (SIGUSR2), and tells the
  // workers to leave.
  void stop(int signal, int exit_code) {
    if (stopping_) return;
    stopping_ = true;
    exit_code_ = exit_code;
    coordinator_due_.reset();
    if (coordinator_) coordinator_->signal(signal);
    if (!coordinator_) signal_groups(SIGTERM);
    stop_due_ = SteadyClock::now() + std::chrono::seconds(stop_within_seconds(config_));
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
    signal_groups(SIGKILL);
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
    } else if (absl::StartsWith(line, "quire-coordinator attached ")) {
      if (GroupProcess* group = group_of(field(line, "instance"))) group->attached();
    } else if (absl::StartsWith(line, "quire-coordinator progress ")) {
      coordinator_budget_.advanced();
      if (GroupProcess* group = group_of(field(line, "instance"))) group->budget.advanced();
    } else if (absl::StartsWith(line, "quire-coordinator lost ")) {
      if (GroupProcess* group = group_of(field(line, "instance"))) group->expect_to_leave();
    }
  }

  // Null: it is none of ours.
  GroupProcess* group_of(const std::string& instance) {
    for (GroupProcess& group : groups_) {
      if (group.is(instance)) return &group;
    }
    return nullptr;
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
    for (GroupProcess& group : groups_) {
      group.expect_to_come_back();
      if (!group.start_due) start_group(group);
    }
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
      say(absl::StrCat(in_pause(*pause), any_group() ? "; the workers keep the model" : ""));
      coordinator_due_ = SteadyClock::now() + *pause;
      return;
    }
    if (!hopeless) give_reason("the coordinator", coordinator_budget_);
    stop(SIGTERM, code == 0 ? 1 : code);
  }

  void coordinator_stopped(int code) {
    if (exit_code_ == 0 && code != 0) exit_code_ = code;
    for (GroupProcess& group : groups_) group.start_due.reset();
    if (!any_group()) return;
    signal_groups(SIGTERM);
    stop_due_ = SteadyClock::now() + std::chrono::seconds(3);
  }

  // --- the worker groups ---

  void start_group(GroupProcess& group) {
    if (group.runs() || group.given_up || !coordinator_) return;
    make_sessions_folder(host_name());
    const absl::Status started = group.start(config_, bin_, grpc_);
    if (started.ok()) return;
    say(std::string(started.message()));
    stop(SIGTERM, 1);
  }

  void group_ended(GroupProcess& group) {
    if (coordinator_ && coordinator_->output() >= 0) read_coordinator();  // it may have advanced
    const int code = group.end();
    if (stopping_ && (code == 0 || !coordinator_ || exit_code_ != 0)) return;
    say(absl::StrCat(group.name(), " ended: ", explain_exit(code)));
    if (is_permanent(code)) return give_up_on(group, code);
    // Without a coordinator it could not stay: the next one is followed by the next group.
    if (!coordinator_) return;
    const auto pause = group.budget.next_pause();
    if (!pause) {
      give_reason(group.name(), group.budget);
      return give_up_on(group, code);
    }
    say(in_pause(*pause));
    group.start_due = SteadyClock::now() + *pause;
  }

  // The server goes on with the others.
  void give_up_on(GroupProcess& group, int code) {
    group.given_up = true;
    if (std::all_of(groups_.begin(), groups_.end(),
                    [](const GroupProcess& each) { return each.given_up; })) {
      return give_up(code);
    }
    say(absl::StrCat(group.name(), " is not started again; the others go on"));
  }

  static void give_reason(const std::string& who, const RestartBudget& budget) {
    say(absl::StrCat(who, " did no step in ", budget.failed_lives(), " lives; giving up"));
  }

  static constexpr int kAddressInUse = 69;

  EngineConfig config_;
  const OwnJournal own_journal_{&config_};
  std::string bin_;
  std::optional<Process> coordinator_;
  std::string grpc_;                  // what ranks dial; empty until a coordinator listened
  std::vector<GroupProcess> groups_;  // that this machine starts
  RestartBudget coordinator_budget_;
  Due coordinator_due_;  // to be started
  Due stop_due_;         // everything is killed
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
