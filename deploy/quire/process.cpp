#include "deploy/quire/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

std::vector<char*> c_strings(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

[[noreturn]] void become(char* const* argv, char* const* env, int out_fd, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before the line above
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setpgid(0, 0);  // a terminal's Ctrl-C reaches only the supervisor, which stops us in order
  if (out_fd >= 0) dup2(out_fd, STDOUT_FILENO);
  execve(argv[0], argv, env);
  const char* why = std::strerror(errno);
  for (const char* text : {"cannot start ", static_cast<const char*>(argv[0]), ": ", why, "\n"}) {
    if (write(STDERR_FILENO, text, std::strlen(text)) < 0) break;
  }
  _exit(127);
}

}  // namespace

bool has_ended(int pid) {
  std::ifstream stat(absl::StrCat("/proc/", pid, "/stat"));
  std::string text;
  std::getline(stat, text);
  const std::size_t name_end = text.rfind(')');  // the name may hold anything
  if (name_end == std::string::npos || name_end + 2 >= text.size()) return true;
  const char state = text[name_end + 2];
  return state == 'Z' || state == 'X';
}

absl::StatusOr<Process> Process::start(const std::vector<std::string>& argv,
                                       const std::vector<std::string>& extra_env,
                                       bool read_output) {
  int pipe_fds[2] = {-1, -1};
  if (read_output && pipe2(pipe_fds, O_CLOEXEC) != 0) {
    return absl::InternalError(absl::StrCat("cannot make a pipe: ", std::strerror(errno)));
  }
  std::vector<std::string> arguments = argv;
  std::vector<std::string> environment;
  for (char** e = environ; *e != nullptr; ++e) environment.emplace_back(*e);
  environment.insert(environment.end(), extra_env.begin(), extra_env.end());
  const std::vector<char*> c_argv = c_strings(arguments);
  const std::vector<char*> c_env = c_strings(environment);

  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) become(c_argv.data(), c_env.data(), pipe_fds[1], parent);
  if (pipe_fds[1] >= 0) close(pipe_fds[1]);
  if (pid < 0) {
    if (pipe_fds[0] >= 0) close(pipe_fds[0]);
    return absl::InternalError(absl::StrCat("cannot fork: ", std::strerror(errno)));
  }
  Process process;
  process.pid_ = pid;
  process.output_ = pipe_fds[0];
  if (process.output_ >= 0) fcntl(process.output_, F_SETFL, O_NONBLOCK);
  process.pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (process.pidfd_ < 0) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return absl::InternalError("this kernel has no pidfd_open; Linux 5.3 or newer is needed");
  }
  return process;
}

Process& Process::operator=(Process&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(pidfd_, other.pidfd_);
  std::swap(output_, other.output_);
  std::swap(partial_, other.partial_);
  return *this;
}

Process::~Process() {
  if (pidfd_ >= 0) {
    signal(SIGKILL);
    exit_code();
  }
  if (output_ >= 0) close(output_);
}

void Process::signal(int number) const {
  if (pidfd_ >= 0) syscall(SYS_pidfd_send_signal, pidfd_, number, nullptr, 0);
}

Process::Children Process::children() const {
  std::ifstream pids(absl::StrCat("/proc/", pid_, "/task/", pid_, "/children"));
  Children children;
  for (int pid; pids >> pid;) ++(has_ended(pid) ? children.ended : children.living);
  return children;
}

int Process::exit_code() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  close(std::exchange(pidfd_, -1));
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::vector<std::string> Process::read_lines() {
  std::vector<std::string> lines;
  char buffer[4096];
  for (;;) {
    const ssize_t n = read(output_, buffer, sizeof buffer);
    if (n < 0) break;  // EAGAIN: nothing more now
    if (n == 0) {
      close(std::exchange(output_, -1));
      if (!partial_.empty()) lines.push_back(std::exchange(partial_, ""));
      break;
    }
    partial_.append(buffer, static_cast<std::size_t>(n));
    for (std::size_t end; (end = partial_.find('\n')) != std::string::npos;) {
      lines.push_back(partial_.substr(0, end));
      partial_.erase(0, end + 1);
    }
  }
  return lines;
}

void reap_adopted(const std::vector<int>& ours) {
  std::ifstream children(absl::StrCat("/proc/self/task/", getpid(), "/children"));
  for (int child = 0; children >> child;) {
    if (std::find(ours.begin(), ours.end(), child) == ours.end()) waitpid(child, nullptr, WNOHANG);
  }
}

}  // namespace quire
