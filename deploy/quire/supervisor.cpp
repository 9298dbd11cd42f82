// One loop over poll(): the coordinator's output and end, the group's end, signals, and one timer.
// The coordinator speaks in lines on its standard output:
//   quire-coordinator listening http=URL grpc=HOST:PORT   -> workers may be started
//   quire-coordinator ready http=URL grpc=HOST:PORT       -> a group answers
// A group that dies is started again with a growing pause; five lives in a row that never became
// ready, or an exit code that another life cannot mend, end the server with a non-zero code.
#include "deploy/quire/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "deploy/quire/launch.h"
#include "deploy/quire/process.h"

namespace quire {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kMaxFailedLives = 5;
constexpr milliseconds kFirstPause{500};
constexpr milliseconds kLongestPause{30000};

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

class Supervisor {
 public:
  Supervisor(const EngineConfig& config, std::string bin) : config_(config), bin_(std::move(bin)) {}

  int run() {
    sigset_t stop_signals;
    sigemptyset(&stop_signals);
    for (int s : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&stop_signals, s);
    signals_ = signalfd(-1, &stop_signals, SFD_CLOEXEC | SFD_NONBLOCK);
    const Launch launch = coordinator_launch(config_, bin_);
    auto started = Process::start(launch.argv, launch.env, /*read_output=*/true);
    if (!started.ok()) {
      say(std::string(started.status().message()));
      return 1;
    }
    coordinator_ = *std::move(started);
    while (coordinator_ || group_) wait_once();
    close(signals_);
    return exit_code_;
  }

 private:
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
    if (timer_ && Clock::now() >= *timer_) timer_fired();
  }

  int timeout_ms() const {
    if (!timer_) return -1;
    const auto left = std::chrono::duration_cast<milliseconds>(*timer_ - Clock::now()).count();
    return static_cast<int>(std::clamp<long>(left + 1, 0, 60000));
  }

  void take_signal() {
    signalfd_siginfo info;
    if (read(signals_, &info, sizeof info) != sizeof info) return;
    if (stopping_) {
      kill_all();  // a second signal: now
      return;
    }
    say("stopping; once more to stop at once");
    stop(0);
  }

  // Orderly: the coordinator drains and tells the workers to leave.
  void stop(int exit_code) {
    if (stopping_) return;
    stopping_ = true;
    exit_code_ = exit_code;
    if (coordinator_) coordinator_->signal(SIGTERM);
    if (!coordinator_ && group_) group_->signal(SIGTERM);
    timer_ = Clock::now() + std::chrono::seconds(stop_within_seconds(config_));
  }

  void kill_all() {
    if (coordinator_) coordinator_->signal(SIGKILL);
    if (group_) group_->signal(SIGKILL);  // its ranks die with it
  }

  void read_coordinator() {
    for (const std::string& line : coordinator_->read_lines()) {
      if (absl::StartsWith(line, "quire-coordinator listening ")) {
        auto address = address_for_ranks(config_, host_name(), field(line, "grpc"));
        if (!address.ok()) {  // the hostfile has changed since `quire serve` looked at it
          say(std::string(address.status().message()));
          stop(64);
          continue;
        }
        grpc_ = *std::move(address);
        start_group();
      } else if (absl::StartsWith(line, "quire-coordinator ready ")) {
        failed_lives_ = 0;
        if (!announced_) {
          const std::string http = field(line, "http");
          say(absl::StrCat("ready. OpenAI API ", http, "/v1   metrics ", http, "/metrics   gRPC ",
                           field(line, "grpc")));
        }
        announced_ = true;
      }
      if (isatty(STDOUT_FILENO) != 0) continue;  // lines for programs; people had theirs
      std::printf("%s\n", line.c_str());
      std::fflush(stdout);
    }
  }

  void start_group() {
    if (stopping_ || group_ || !coordinator_) return;
    const Launch launch = group_launch(config_, bin_, grpc_);
    auto started = Process::start(launch.argv, launch.env, /*read_output=*/false);
    if (!started.ok()) {
      say(std::string(started.status().message()));
      stop(1);
      return;
    }
    group_ = *std::move(started);
  }

  void group_ended() {
    const int code = group_->exit_code();
    group_.reset();
    if (stopping_) {
      if (coordinator_) return;
      timer_.reset();
      return;
    }
    ++failed_lives_;
    say(absl::StrCat("the worker group ended: ", explain_exit(code)));
    if (is_permanent(code)) {
      stop(code);
    } else if (failed_lives_ >= kMaxFailedLives) {
      say(absl::StrCat("it never became ready in ", failed_lives_, " lives; giving up"));
      stop(code == 0 ? 1 : code);
    } else {
      const milliseconds pause =
          failed_lives_ == 1 ? milliseconds{0}
                             : std::min(kFirstPause * (1 << (failed_lives_ - 2)), kLongestPause);
      say(absl::StrCat("starting it again in ", pause.count(), " ms"));
      timer_ = Clock::now() + pause;
    }
  }

  void coordinator_ended() {
    if (coordinator_->output() >= 0) read_coordinator();
    const int code = coordinator_->exit_code();
    coordinator_.reset();
    if (!stopping_) {
      // Before the first ready it has said itself what was wrong with options, model or address.
      if (announced_ || code <= 1 || code > 128) {
        say(absl::StrCat("the coordinator ended: ", explain_exit(code)));
      }
      stop(code == 0 ? 1 : code);
    } else if (exit_code_ == 0 && code != 0) {
      exit_code_ = code;
    }
    if (group_) {
      group_->signal(SIGTERM);
      timer_ = Clock::now() + std::chrono::seconds(3);
    }
  }

  void timer_fired() {
    timer_.reset();
    if (stopping_) {
      say("still not stopped; killing");
      kill_all();
    } else {
      start_group();
    }
  }

  const EngineConfig& config_;
  std::string bin_;
  std::optional<Process> coordinator_;
  std::optional<Process> group_;  // mpirun
  std::string grpc_;
  std::optional<Clock::time_point> timer_;  // stopping: kill; else: start the group
  int signals_ = -1;
  int failed_lives_ = 0;  // in a row, without a ready in between
  int exit_code_ = 0;
  bool stopping_ = false;
  bool announced_ = false;
};

}  // namespace

int supervise(const EngineConfig& config, const std::string& bin) {
  return Supervisor(config, bin).run();
}

}  // namespace quire
