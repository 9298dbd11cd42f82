// Open MPI's options and exit codes, measured on 4.1.4.
#include "deploy/quire/launch.h"

#include <unistd.h>

#include <fstream>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/status.h"

namespace quire {

Launch coordinator_launch(const EngineConfig& config, const std::string& bin) {
  Launch launch;
  launch.argv = {absl::StrCat(bin, "/quire-coordinator")};
  for (std::string& argument : to_arguments(config, kCoordinator)) {
    launch.argv.push_back(std::move(argument));
  }
  if (config.api_key_file.empty() && !config.api_key.empty()) {
    launch.env.push_back(absl::StrCat(kApiKeyVariable, "=", config.api_key));
  }
  return launch;
}

Launch group_launch(const EngineConfig& config, const std::string& bin,
                    const std::string& coordinator, const std::string& instance, int group) {
  Launch launch;
  launch.argv = {find_mpirun(), "-np", absl::StrCat(config.tensor_parallel_size)};
  const auto add = [&launch](std::initializer_list<const char*> arguments) {
    launch.argv.insert(launch.argv.end(), arguments.begin(), arguments.end());
  };
  if (!config.hostfile.empty()) {
    add({"--hostfile", config.hostfile.c_str(), "--map-by", "slot"});
  } else {
    // One host: MPI only spreads an id, over loopback. Its shared-memory transport would leave
    // files in /dev/shm when it is killed.
    add({"--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo"});
  }
  // More ranks than cores is normal; ranks that wait must yield, not spin. A dead rank takes the
  // group down at once (16 ms instead of 2 s), a lost host within seconds. Containers may forbid
  // the single-copy mechanism.
  add({"--oversubscribe",
       "--bind-to",
       "none",
       "--mca",
       "mpi_yield_when_idle",
       "1",
       "--mca",
       "odls_base_sigkill_timeout",
       "0",
       "--mca",
       "btl_vader_single_copy_mechanism",
       "none",
       "--mca",
       "pml",
       "ob1",
       "--mca",
       "oob_tcp_keepalive_time",
       "1",
       "--mca",
       "oob_tcp_keepalive_intvl",
       "1",
       "--mca",
       "oob_tcp_keepalive_probes",
       "2"});
  launch.argv.push_back(absl::StrCat(bin, "/quire-worker"));
  EngineConfig worker = config;
  worker.coordinator = coordinator;
  worker.instance_id = instance;
  worker.data_parallel_rank = group;
  // Where there is one, it says nothing.
  worker.data_parallel_size_local = num_local_groups(config) > 1 ? num_local_groups(config) : 0;
  for (std::string& argument : to_arguments(worker, kWorker)) {
    launch.argv.push_back(std::move(argument));
  }
  launch.env = {"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"};
  return launch;
}

absl::StatusOr<std::vector<std::string>> hosts_in(const std::string& hostfile) {
  std::ifstream file(hostfile);
  std::vector<std::string> hosts;
  for (std::string line; std::getline(file, line);) {
    const std::string text = line.substr(0, line.find('#'));
    const std::vector<std::string> words =
        absl::StrSplit(text, absl::ByAnyChar(" \t\r"), absl::SkipWhitespace());
    if (!words.empty()) hosts.push_back(words[0]);
  }
  if (hosts.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--hostfile: ", hostfile, " names no host; a line each, such as `node1 slots=4`"));
  }
  return hosts;
}

absl::StatusOr<std::string> address_for_ranks(const EngineConfig& config, const std::string& self,
                                              const std::string& grpc) {
  if (config.hostfile.empty()) return grpc;
  QUIRE_ASSIGN_OR_RETURN(const std::vector<std::string> hosts, hosts_in(config.hostfile));
  if (config.grpc_host == "0.0.0.0" || config.grpc_host == "::") {
    return absl::StrCat(self, grpc.substr(grpc.rfind(':')));
  }
  const auto is_here = [&self](const std::string& host) {
    return host == self || host == "localhost" || host == "::1" || absl::StartsWith(host, "127.");
  };
  if (config.grpc_host == self || !is_here(config.grpc_host)) return grpc;
  for (const std::string& host : hosts) {
    if (is_here(host)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "--hostfile names ", host, ", whose ranks cannot reach --grpc-host ", config.grpc_host,
        "; give an address of this machine that the other hosts reach, or 0.0.0.0"));
  }
  return grpc;
}

std::string random_instance() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x", device(), device(), device());
}

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "localhost";
}

std::string find_mpirun() {
  for (const char* path : {"/usr/bin/mpirun", "/usr/local/bin/mpirun", "/opt/openmpi/bin/mpirun",
                           "/usr/lib64/openmpi/bin/mpirun"}) {
    if (access(path, X_OK) == 0) return path;
  }
  return "";
}

bool is_permanent(int exit_code) {
  return exit_code == 64 || exit_code == 65 || exit_code == 66 || exit_code == 77 ||
         exit_code == 127;
}

std::string explain_exit(int exit_code) {
  switch (exit_code) {
    case 0:
      return "it ended";
    case 1:
      return "mpirun could not launch it, or it was told to stop";
    case 64:
      return "its options are wrong";
    case 65:
      return "the model's files are unusable";
    case 66:
      return "a file is missing";
    case 69:
      return "an address cannot be listened on";
    case 71:
      return "the device failed";
    case 74:
      return "reading or writing failed";
    case 75:
      return "a deadline passed";
    case 76:
      return "the coordinator refused it";
    case 77:
      return "it is not allowed to join";
    case 127:
      return "the program could not be started";
    case 205:
      return "a host was lost";
    default:
      break;
  }
  if (exit_code > 128) return absl::StrCat("signal ", exit_code - 128, " ended it");
  return absl::StrCat("it failed with code ", exit_code);
}

}  // namespace quire
