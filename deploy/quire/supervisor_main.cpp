// quire-supervisor: what `quire serve` becomes. It links no gRPC, MPI or CUDA, so it can fork
// safely and be process 1 of a container.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "common/config.h"
#include "deploy/quire/launch.h"
#include "deploy/quire/supervisor.h"

int main(int argc, char** argv) {
  auto parsed =
      quire::parse_config(quire::kServe, absl::MakeConstSpan(argv, static_cast<std::size_t>(argc)));
  if (!parsed.ok()) {
    std::fprintf(stderr, "quire: %s\n", std::string(parsed.status().message()).c_str());
    return 64;
  }
  if (parsed->help) {
    std::fputs(
        "quire-supervisor is what `quire serve` becomes: start that instead.\n"
        "`quire serve --help` lists the options.\n",
        stdout);
    return 0;
  }
  if (quire::find_mpirun().empty()) {
    std::fprintf(stderr, "quire: mpirun is not installed; install Open MPI 4.1 (openmpi-bin)\n");
    return 69;
  }
  unsetenv(quire::kApiKeyVariable);  // the coordinator is told, mpirun and its ranks are not
  sigset_t blocked;
  sigemptyset(&blocked);
  for (int s : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&blocked, s);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);
  prctl(PR_SET_CHILD_SUBREAPER, 1);  // orphans come here, as they do to process 1 of a container
  signal(SIGPIPE, SIG_IGN);
  // Workers write to mpirun's pipe: only here is it known whether a person watches.
  quire::EngineConfig& config = parsed->config;
  if (config.progress == "auto") config.progress = isatty(STDERR_FILENO) ? "bar" : "lines";
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  return quire::supervise(config, self.parent_path().string());
}
