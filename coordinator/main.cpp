// quire-coordinator: options in, lines out (machine-readable, for the launcher), signals.
//   quire-coordinator listening http=URL grpc=HOST:PORT   workers may be started
//   quire-coordinator ready http=URL grpc=HOST:PORT       each time a worker group has become ready
//   quire-coordinator attached epoch=N instance=ID        the workers that it consists of
//   quire-coordinator progress epoch=N instance=ID        it has done somebody good
//   quire-coordinator lost epoch=N instance=ID cause=WORD its workers are to leave, or be killed
//   quire-coordinator stopped
// Everything else goes to standard error. The first SIGINT or SIGTERM drains, the second waits for
// nothing, the third ends at once. SIGUSR2: no worker group will come any more, so what waits is
// refused and the server stops. Exit codes: 0 stopped as asked, 64 wrong options, 65 the model
// cannot be served, 66 a file is missing, 69 an address or the journal cannot be had, 77 a file may
// not be read, 1 anything else.
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/config.h"
#include "common/log.h"
#include "coordinator/server.h"
#include "spdlog/spdlog.h"

namespace quire {
namespace {

constexpr int kUsage = 64, kModel = 65, kMissing = 66, kAddress = 69, kAccess = 77, kOther = 1,
              kStoppedAtOnce = 130;

int exit_code_of(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return kUsage;
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kUnimplemented:
      return kModel;
    case absl::StatusCode::kNotFound:
      return kMissing;
    case absl::StatusCode::kPermissionDenied:
      return kAccess;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kFailedPrecondition:
      return kAddress;
    default:
      return kOther;
  }
}

int fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "quire-coordinator: %s\n", std::string(status.message()).c_str());
  return code;
}

constexpr const char* kReady = "ready";

void say(const std::string& line) {
  std::printf("quire-coordinator %s\n", line.c_str());
  std::fflush(stdout);
}

// Blocked in every thread (threads inherit the mask), read from a descriptor instead.
int open_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signalfd(-1, &set, SFD_CLOEXEC);
}

// Lines for the launcher: left by any thread, written by main()'s, which wakes by `fd()`.
class News {
 public:
  News() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  int fd() const { return fd_; }
  void leave(std::string line) {
    std::lock_guard lock(mutex_);
    lines_.push_back(std::move(line));
    eventfd_write(fd_, 1);
  }
  std::vector<std::string> take() {
    std::lock_guard lock(mutex_);
    eventfd_t count = 0;
    eventfd_read(fd_, &count);
    return std::exchange(lines_, {});
  }

 private:
  const int fd_;
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

ServerEvents told_to(News& news) {
  return {.on_ready = [&news] { news.leave(kReady); },
          .on_attached =
              [&news](const std::string& instance, std::uint64_t epoch) {
                news.leave(absl::StrCat("attached epoch=", epoch, " instance=", instance));
              },
          .on_progress =
              [&news](const std::string& instance, std::uint64_t epoch) {
                news.leave(absl::StrCat("progress epoch=", epoch, " instance=", instance));
              },
          .on_lost =
              [&news](const std::string& instance, std::uint64_t epoch, const char* cause) {
                news.leave(
                    absl::StrCat("lost epoch=", epoch, " instance=", instance, " cause=", cause));
              }};
}

// Tells the launcher what happens, and obeys its signals, until the server has stopped.
class Program {
 public:
  Program(Server& server, News& news, int signals)
      : server_(server), news_(news), signals_(signals) {}
  ~Program() {
    if (stop_.joinable()) stop_.join();
  }

  int run() {
    say(absl::StrCat("listening", addresses()));
    while (!stopped_) {
      pollfd fds[] = {{signals_, POLLIN, 0}, {news_.fd(), POLLIN, 0}};
      if (poll(fds, 2, -1) <= 0) continue;
      if ((fds[0].revents & POLLIN) != 0) take_signal();
      if ((fds[1].revents & POLLIN) != 0) tell_news();
    }
    return failed_ ? kOther : 0;
  }

 private:
  std::string addresses() const {
    return absl::StrCat(" http=", server_.http_url(), " grpc=", server_.grpc_address());
  }

  void take_signal() {
    signalfd_siginfo info;
    if (read(signals_, &info, sizeof(info)) != static_cast<ssize_t>(sizeof(info))) return;
    if (info.ssi_signo == SIGUSR2) {
      failed_ = true;
      server_.fail();
    } else {
      ++times_told_;
    }
    if (times_told_ > kHurry) _exit(kStoppedAtOnce);
    if (times_told_ == kHurry) return server_.hurry();
    if (stop_.joinable()) return;
    spdlog::info("stopping; a second signal does not wait for running requests");
    stop_ = std::thread([this] {
      server_.stop();
      stopped_ = true;
      news_.leave("stopped");
    });
  }

  void tell_news() {
    for (const std::string& line : news_.take()) {
      say(line == kReady ? absl::StrCat(line, addresses()) : line);
    }
  }

  static constexpr int kHurry = 2;

  Server& server_;
  News& news_;
  const int signals_;
  int times_told_ = 0;
  bool failed_ = false;
  std::atomic<bool> stopped_ = false;
  std::thread stop_;
};

int run(const EngineConfig& config) {
  const int signals = open_signals();
  News news;
  if (signals < 0 || news.fd() < 0) return fail(absl::InternalError("no file descriptors"), kOther);
  auto server = Server::start(config, told_to(news));
  if (!server.ok()) return fail(server.status(), exit_code_of(server.status()));
  return Program(**server, news, signals).run();
}

int main(int argc, char** argv) {
  const absl::StatusOr<ParsedConfig> parsed =
      parse_config(kCoordinator, {argv, static_cast<std::size_t>(argc)});
  if (!parsed.ok()) return fail(parsed.status(), kUsage);
  if (parsed->help) {
    std::fputs(help_text(kCoordinator, "quire-coordinator MODEL [options]").c_str(), stdout);
    return 0;
  }
  start_log("quire-coordinator", parsed->config.log_level);
  return run(parsed->config);
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  return quire::main(argc, argv);
}
