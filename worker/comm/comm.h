// Where slices meet. Every call enqueues on the device's stream and must be made by all ranks in
// the same order with the same sizes. A peer that does not arrive by the deadline, or that died,
// ends the step with an error from Device::wait(); nobody hangs.
//
// HostComm (host_comm.cpp) is for devices that compute in host memory: exchanges over a Transport
// (solo, shared memory inside a host, MPI between host leaders). DeviceComm (device_comm.cpp) is
// for the others: exchanges over the device's Collective. Arithmetic is by Ops in both.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/shard.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace quire {

// How one row-parallel sum is put together on every rank: computed once at start, the same
// everywhere.
struct MeetPlan {
  struct Source {
    int rank = 0;
    int output = 0;  // which of that rank's SumPlan outputs
  };
  std::vector<int> program;  // see CombineArgs; entry i >= 0 names sources[i]
  std::vector<Source> sources;
  int max_outputs = 0;  // of any rank: parts are sized by it
};
MeetPlan make_meet_plan(const LeafCut& cut, absl::Span<const Range> owned_leaves_by_rank);

struct MeetArgs {
  const MeetPlan* plan = nullptr;
  int rows = 0;                        // T
  int columns = 0;                     // E
  const float* bias = nullptr;         // [E] or null; added once, after the root
  float* residual = nullptr;           // [T][E]
  const float* norm_weight = nullptr;  // [E] or null
  float eps = 1e-5f;
  Activation out;
};

// Row b of the piece of rank r: piece[r] + b * stride[r].
struct Gathered {
  std::vector<const float*> pieces;
  std::vector<std::size_t> strides;
};

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int world() const = 0;
  virtual std::string description() const = 0;  // e.g. "solo", "shm, 2 of 2 ranks on this host"

  // Row-parallel sums. This rank's linear writes its partial sums to begin_meet():
  // [plan.max_outputs][T][E] floats. meet() is combine + bias + residual + norm, in the tree's
  // order: the same bits on every rank.
  virtual float* begin_meet(const MeetPlan& plan, int rows, int columns) = 0;
  virtual void meet(const MeetArgs& args) = 0;

  // Vocabulary-parallel embedding. The owner of tokens[t] writes its row to begin_select() + t *
  // columns; select() copies each row from its owner to `out` on every rank. ends[r]: where the ids
  // of rank r end.
  virtual float* begin_select(int rows, int columns) = 0;
  virtual void select(absl::Span<const TokenId> ends, const TokenId* tokens, int rows, int columns,
                      float* out) = 0;

  // Vocabulary-parallel logits. Rank r writes [rows][columns_by_rank[r]] to begin_gather(); after
  // gather() every rank of this host may read all pieces until the exchange after the next one.
  virtual float* begin_gather(int rows, absl::Span<const int> columns_by_rank) = 0;
  virtual Gathered gather(int rows, absl::Span<const int> columns_by_rank) = 0;

  // `bytes` of the device's memory from `root` to everyone.
  virtual void broadcast(void* data, std::size_t bytes, int root) = 0;

  // Which of its buffers the next exchange uses: part of the key of work that is kept and enqueued
  // again (Device::replay).
  virtual int phase() const = 0;

  // Makes waiting peers give up at once (a stream broke, the epoch ended). Any thread.
  virtual void abort() = 0;
};

struct CommOptions {
  int rank = 0;
  int world = 1;
  std::string name;            // of the shared-memory segment; carries the group's instance id
  std::size_t part_bytes = 0;  // the most bytes one rank contributes to one exchange
  int deadline_ms = 60000;     // for a peer to arrive
  bool measure = true;         // which way to sum pays, where exchanges may be large
  // Ranks of this host, contiguous. Where other hosts exist their ranks' parts come over MPI, which
  // must then be initialised with MPI_THREAD_SERIALIZED.
  int first_local_rank = 0;
  int num_local_ranks = 1;
  int num_on_host = 1;  // with those of other groups, which want its cores, too
};

// ResourceExhausted says how many bytes of shared memory are needed and how many there are.
absl::StatusOr<std::unique_ptr<Comm>> open_host_comm(const CommOptions& options, Device& device);
// Over what `device` opened for this life of the group; null where world is 1. Of the options,
// place and part_bytes count. ResourceExhausted: the device has no room for the parts.
absl::StatusOr<std::unique_ptr<Comm>> open_device_comm(const CommOptions& options, Device& device,
                                                       std::unique_ptr<Collective> collective);

}  // namespace quire
