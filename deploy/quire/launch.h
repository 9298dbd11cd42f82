// The command lines of the two programs that make up a server, and what their exit codes mean.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/config.h"

namespace quire {

struct Launch {
  std::vector<std::string> argv;
  std::vector<std::string> env;  // NAME=value, added to ours
};

// `bin` is the folder of the programs.
Launch coordinator_launch(const EngineConfig& config, const std::string& bin);
// mpirun with tensor_parallel_size ranks that dial `coordinator` (host:port) and call their group
// `instance`; `group`: which of those that this machine starts.
Launch group_launch(const EngineConfig& config, const std::string& bin,
                    const std::string& coordinator, const std::string& instance, int group = 0);
std::string random_instance();

// The hosts that mpirun's hostfile names, in order. InvalidArgument: none.
absl::StatusOr<std::vector<std::string>> hosts_in(const std::string& hostfile);
// What ranks dial, given where the coordinator listens: over several hosts an address of `self`
// (this machine's name). InvalidArgument: a hostfile that names other machines, and a
// --grpc-host that they cannot reach.
absl::StatusOr<std::string> address_for_ranks(const EngineConfig& config, const std::string& self,
                                              const std::string& grpc);
std::string host_name();

// The first of the usual places that has mpirun; empty if none.
std::string find_mpirun();

// Exit codes of coordinator, worker and mpirun that another life cannot mend (usage, bad weights,
// missing file), and a sentence for any code.
bool is_permanent(int exit_code);
std::string explain_exit(int exit_code);

}  // namespace quire
