// quire-coordinator: options in, two lines out (machine-readable, for the launcher), signals.
//   quire-coordinator listening http=URL grpc=HOST:PORT   workers may be started
//   quire-coordinator ready http=URL grpc=HOST:PORT       each time a worker group has become ready
// Everything else goes to standard error. The first SIGINT or SIGTERM stops in order, the second at
// once. Exit codes: 0 stopped as asked, 64 wrong options, 65 the model cannot be served, 66 a
// file is missing, 69 an address cannot be listened on, 77 a file may not be read, 1 anything else.
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "absl/time/clock.h"
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
      return kAddress;
    default:
      return kOther;
  }
}

int fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "quire-coordinator: %s\n", std::string(status.message()).c_str());
  return code;
}

void say(const char* what, const Server& server) {
  std::printf("quire-coordinator %s http=%s grpc=%s\n", what, server.http_url().c_str(),
              server.grpc_address().c_str());
  std::fflush(stdout);
}

// Blocked in every thread (threads inherit the mask), read from a descriptor instead.
int open_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signalfd(-1, &set, SFD_CLOEXEC);
}

// Waits for a signal (true) or an event (false), and takes it.
bool next_is_signal(int signals, int events) {
  pollfd fds[] = {{signals, POLLIN, 0}, {events, POLLIN, 0}};
  while (poll(fds, 2, -1) <= 0) {
  }
  if ((fds[0].revents & POLLIN) != 0) {
    signalfd_siginfo info;
    return read(signals, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info));
  }
  eventfd_t count = 0;
  eventfd_read(events, &count);
  return false;
}

// The fleet says "ready" a moment before the engine has taken it in.
void announce_ready(const Server& server) {
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while (!server.ready() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
  if (server.ready()) say("ready", server);
}

int run(const EngineConfig& config) {
  const int signals = open_signals();
  const int events = eventfd(0, EFD_CLOEXEC);
  if (signals < 0 || events < 0) return fail(absl::InternalError("no file descriptors"), kOther);

  auto server = Server::start(config, [events] { eventfd_write(events, 1); });
  if (!server.ok()) return fail(server.status(), exit_code_of(server.status()));
  say("listening", **server);
  while (!next_is_signal(signals, events)) announce_ready(**server);

  spdlog::info("stopping; a second signal stops at once");
  const int stopped = eventfd(0, EFD_CLOEXEC);
  std::thread stop([&] {
    (*server)->stop();
    eventfd_write(stopped, 1);
  });
  if (next_is_signal(signals, stopped)) _exit(kStoppedAtOnce);
  stop.join();
  return 0;
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
