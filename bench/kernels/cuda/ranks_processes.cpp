// Ranks are forked before anybody speaks to CUDA. Rank 0 writes the group's id into a pipe of every
// other rank.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "bench/kernels/cuda/meet_ranks.h"

namespace quire::bench {
namespace {

std::string read_all_of(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(n));
  }
  return text;
}

}  // namespace

int run_ranks(int world, bool own_hosts, const std::function<int(const RankPlaceHere&)>& work) {
  std::vector<int> readers, writers, pids;
  for (int r = 0; r < world; ++r) {
    int ends[2] = {-1, -1};
    if (pipe(ends) != 0) return 1;
    readers.push_back(ends[0]);
    writers.push_back(ends[1]);
  }
  for (int r = 0; r < world; ++r) {
    const int pid = fork();
    if (pid < 0) return 1;
    if (pid > 0) {
      pids.push_back(pid);
      continue;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (own_hosts) setenv("NCCL_HOSTID", ("quire-rank-" + std::to_string(r)).c_str(), 1);
    const auto share = [&](const std::string& id) {
      for (int w = 0; w < world; ++w) {
        const auto to = static_cast<std::size_t>(w);
        if (r == 0 && w != 0 &&
            write(writers[to], id.data(), id.size()) != static_cast<ssize_t>(id.size())) {
          std::perror("bench_cuda_meet: handing on the group's id");
        }
        close(writers[to]);
      }
      return r == 0 ? id : read_all_of(readers[static_cast<std::size_t>(r)]);
    };
    _exit(work({r, world, [] { return cuda::load_nccl(); }, share}));
  }
  for (const int fd : writers) close(fd);
  int code = 0;
  for (const int pid : pids) {
    int status = 0;
    waitpid(pid, &status, 0);
    const int its = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (code == 0) code = its;
  }
  return code;
}

}  // namespace quire::bench
