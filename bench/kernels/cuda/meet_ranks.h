// How the ranks of bench_cuda_meet come to be: processes over NCCL on a GPU (ranks_processes.cpp),
// threads over the fake one under emulation (ranks_threads.cpp).
#pragma once

#include <functional>
#include <string>

#include "kernels/cuda/device.h"

namespace quire::bench {

struct RankPlaceHere {
  int rank = 0;
  int world = 1;
  cuda::NcclSource nccl;
  // Rank 0 gives what every rank then gets.
  std::function<std::string(const std::string&)> share;
};

// The exit code: 0, or the first one of a rank that is not. `own_hosts`: processes pretend to be on
// hosts of their own, without which NCCL before 2.30 refuses several ranks on one GPU.
int run_ranks(int world, bool own_hosts, const std::function<int(const RankPlaceHere&)>& work);

}  // namespace quire::bench
