// A collective of ranks that reach each other's memory: GPUs of one host with peer access, each
// rank a process. Memory from allocate() is opened by every rank through CUDA IPC; meet() is a
// barrier kernel over words in it. Gathers and broadcasts stay NCCL's.
//
// Ranks end each for itself. What they read of each other in place must have been read by then:
// after a gather it has.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/collective/nccl_collective.h"
#include "kernels/cuda/collective/peer_meet.h"

namespace quire::cuda {

struct OpenedCollective {
  std::unique_ptr<Collective> collective;
  std::shared_ptr<Watchdog> watchdog;  // for Device::wait(): see nccl_collective.h
};

// As open_nccl; where every rank reaches every other's memory, peers are read in place. A rank that
// does not share its memory turns that off for all.
absl::StatusOr<OpenedCollective> open_collective(const NcclApi& api,
                                                 const CollectiveOptions& options,
                                                 cudaStream_t stream, bool share_memory = true);

}  // namespace quire::cuda
