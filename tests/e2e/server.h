// Real processes for end-to-end tests: `quire serve` on free loopback ports, and single commands.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "deploy/quire/process.h"
#include "generate.grpc.pb.h"

namespace quire::test {

std::string bin(const std::string& program);  // path of a built program

// A command run to its end (at most `seconds`), with standard output and error together.
struct CommandResult {
  int exit_code = -1;
  std::string output;
};
CommandResult run_command(const std::vector<std::string>& argv, int seconds = 60);

// A model every test can use: the demo model if it is there, else nullopt.
std::optional<std::string> demo_model_if_present();

// Pids of processes of `program` that have `argument` in their command line.
std::vector<int> running(const std::string& program, const std::string& argument);

class Server {
 public:
  // Starts `quire serve MODEL --tensor-parallel-size N options...` and waits until it is ready.
  static absl::StatusOr<std::unique_ptr<Server>> start(
      const std::string& model, int num_ranks, const std::vector<std::string>& options = {});
  ~Server();  // orderly stop; fails the test when that takes long or ends with a non-zero code

  const std::string& http() const { return http_; }  // "127.0.0.1:8123"
  const std::string& grpc() const { return grpc_; }
  v1::Generation::Stub& stub() { return *stub_; }
  Process& supervisor() { return process_; }
  int coordinator() const;  // pid; 0: there is none now
  // Pids of this server's quire-worker processes.
  std::vector<int> workers() const;
  // Body of GET `path`, and the value of a metric's only series (summed over its labels).
  std::string get(const std::string& path) const;
  double metric(const std::string& name) const;
  int status_of(const std::string& path) const;  // the HTTP code of GET; 0: nobody answers
  // Polls until `condition` holds; false after `seconds`.
  template <typename Condition>
  bool eventually(Condition condition, int seconds = 20) const {
    for (int i = 0; i < seconds * 50; ++i) {
      if (condition()) return true;
      pause();
    }
    return false;
  }

 private:
  explicit Server(Process process) : process_(std::move(process)), pid_(process_.pid()) {}
  absl::Status wait_until_ready(int seconds);
  static void pause();

  Process process_;
  const int pid_;
  std::string http_, grpc_;
  std::unique_ptr<v1::Generation::Stub> stub_;
};

// One generation collected to its end.
struct Generated {
  std::vector<int> tokens;
  std::vector<float> logprobs;
  std::string text;
  std::string finish_reason;
  int prompt_tokens = 0;
  int completion_tokens = 0;
};
absl::StatusOr<Generated> generate(Server& server, const v1::GenerateRequest& request);

}  // namespace quire::test
