#include "tests/e2e/server.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "tests/test_data.h"

namespace quire::test {
namespace {

constexpr int kReadyWithin = 60;  // seconds; a busy two-core machine
constexpr int kStopWithin = 25;

bool readable(int fd, int timeout_ms) {
  pollfd p{fd, POLLIN, 0};
  return poll(&p, 1, timeout_ms) > 0;
}

std::string value_of(const std::string& line, const std::string& key) {
  for (absl::string_view word : absl::StrSplit(line, ' ')) {
    if (absl::ConsumePrefix(&word, key)) return std::string(word);
  }
  return "";
}

}  // namespace

std::string bin(const std::string& program) {
  return absl::StrCat(QUIRE_BINARY_DIR, "/bin/", program);
}

std::optional<std::string> demo_model_if_present() {
  const auto path = demo_model();
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path.string();
}

CommandResult run_command(const std::vector<std::string>& argv, int seconds) {
  // Through a shell only to merge the two streams; arguments are passed, not interpolated.
  std::vector<std::string> shell = {"/bin/sh", "-c", "exec \"$@\" 2>&1", "sh"};
  shell.insert(shell.end(), argv.begin(), argv.end());
  auto started = Process::start(shell, {}, /*read_output=*/true);
  CommandResult result;
  if (!started.ok()) {
    result.output = std::string(started.status().message());
    return result;
  }
  const absl::Time deadline = absl::Now() + absl::Seconds(seconds);
  while (started->output() >= 0 && absl::Now() < deadline) {
    if (!readable(started->output(), 100)) continue;
    for (const std::string& line : started->read_lines())
      absl::StrAppend(&result.output, line, "\n");
  }
  if (!readable(started->pidfd(), 2000)) {
    absl::StrAppend(&result.output, "[did not end within ", seconds, " s]\n");
    return result;  // ~Process kills it
  }
  result.exit_code = started->exit_code();
  return result;
}

absl::StatusOr<std::unique_ptr<Server>> Server::start(const std::string& model, int num_ranks,
                                                      const std::vector<std::string>& options) {
  std::vector<std::string> argv = {bin("quire"),
                                   "serve",
                                   model,
                                   "--tensor-parallel-size",
                                   absl::StrCat(num_ranks),
                                   "--port",
                                   "0",
                                   "--grpc-port",
                                   "0"};
  argv.insert(argv.end(), options.begin(), options.end());
  auto process = Process::start(argv, {}, /*read_output=*/true);
  if (!process.ok()) return process.status();
  std::unique_ptr<Server> server(new Server(*std::move(process)));
  if (absl::Status status = server->wait_until_ready(kReadyWithin); !status.ok()) return status;
  server->stub_ = v1::Generation::NewStub(
      grpc::CreateChannel(server->grpc_, grpc::InsecureChannelCredentials()));
  return server;
}

absl::Status Server::wait_until_ready(int seconds) {
  const absl::Time deadline = absl::Now() + absl::Seconds(seconds);
  while (absl::Now() < deadline && process_.output() >= 0) {
    if (!readable(process_.output(), 100)) continue;
    for (const std::string& line : process_.read_lines()) {
      if (!absl::StartsWith(line, "quire-coordinator ready ")) continue;
      http_ = value_of(line, "http=");
      http_.erase(0, http_.find("://") + 3);
      grpc_ = value_of(line, "grpc=");
      return absl::OkStatus();
    }
  }
  return absl::DeadlineExceededError("the server did not become ready; its messages are above");
}

Server::~Server() {
  if (!process_.running()) return;
  process_.signal(SIGTERM);
  if (!readable(process_.pidfd(), kStopWithin * 1000)) {
    ADD_FAILURE() << "the server did not stop within " << kStopWithin << " s";
    return;
  }
  if (grpc_.empty()) return;  // it never became ready: the test says so already
  EXPECT_EQ(process_.exit_code(), 0) << "of an orderly stop";
}

// Those that are not dead, whoever their parent is now.
std::vector<int> running(const std::string& program, const std::string& argument) {
  std::vector<int> pids;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    int pid = 0;
    if (!absl::SimpleAtoi(entry.path().filename().string(), &pid)) continue;
    std::ifstream file(entry.path() / "cmdline");  // empty for one that is dead
    std::stringstream text;
    text << file.rdbuf();
    const std::vector<std::string> argv = absl::StrSplit(text.str(), '\0');
    if (!absl::EndsWith(argv[0], "/" + program)) continue;
    if (absl::StrContains(absl::StrJoin(argv, " "), argument)) pids.push_back(pid);
  }
  return pids;
}

std::vector<int> Server::workers() const {
  return running("quire-worker", grpc_);
}

int Server::coordinator() const {
  for (const int pid : running("quire-coordinator", "")) {
    std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
    std::string stat;
    std::getline(file, stat);
    int parent = 0;
    const std::vector<std::string> words =
        absl::StrSplit(stat.substr(stat.rfind(')') + 1), ' ', absl::SkipEmpty());
    if (words.size() > 1 && absl::SimpleAtoi(words[1], &parent) && parent == pid_) return pid;
  }
  return 0;
}

std::string Server::get(const std::string& path) const {
  const CommandResult result =
      run_command({"/usr/bin/python3", "-c",
                   "import sys,urllib.request,urllib.error\n"
                   "try: print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())\n"
                   "except urllib.error.HTTPError as e: print(e.code, e.read().decode())",
                   absl::StrCat("http://", http_, path)});
  return result.output;
}

int Server::status_of(const std::string& path) const {
  const CommandResult result =
      run_command({"/usr/bin/python3", "-c",
                   "import sys,urllib.request,urllib.error\n"
                   "try: print(urllib.request.urlopen(sys.argv[1], timeout=10).status)\n"
                   "except urllib.error.HTTPError as e: print(e.code)\n"
                   "except OSError: print(0)",
                   absl::StrCat("http://", http_, path)});
  int status = 0;
  static_cast<void>(absl::SimpleAtoi(result.output, &status));
  return status;
}

double Server::metric(const std::string& name) const {
  double sum = 0;
  for (absl::string_view line : absl::StrSplit(get("/metrics"), '\n')) {
    if (!absl::ConsumePrefix(&line, name) || line.empty() || (line[0] != '{' && line[0] != ' '))
      continue;
    double value = 0;
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
    if (absl::SimpleAtod(words.back(), &value)) sum += value;
  }
  return sum;
}

void Server::pause() {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

absl::StatusOr<Generated> generate(Server& server, const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(120));
  auto reader = server.stub().Generate(&context, request);
  Generated out;
  v1::GenerateReply reply;
  while (reader->Read(&reply)) {
    if (reply.has_delta()) {
      const v1::Delta& delta = reply.delta();
      out.text += delta.text();
      out.tokens.insert(out.tokens.end(), delta.token_ids().begin(), delta.token_ids().end());
      for (const v1::TokenLogprobs& l : delta.logprobs()) out.logprobs.push_back(l.logprob());
      if (!delta.finish_reason().empty()) out.finish_reason = delta.finish_reason();
    } else if (reply.has_usage()) {
      out.prompt_tokens = static_cast<int>(reply.usage().prompt_tokens());
      out.completion_tokens = static_cast<int>(reply.usage().completion_tokens());
    }
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) {
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }
  return out;
}

}  // namespace quire::test
