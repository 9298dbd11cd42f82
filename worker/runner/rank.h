// One rank put together: device, weights, communicator, runner. The worker process owns one; tests
// own several, one per thread. Two phases, because the coordinator decides capacities only after it
// has heard what every rank has: load(), then start().
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "common/model_file/model_file.h"
#include "common/shard.h"
#include "kernels/device.h"
#include "worker/comm/comm.h"
#include "worker/kv/host_store.h"
#include "worker/kv/kv_arena.h"
#include "worker/loader/progress.h"
#include "worker/model/weights.h"
#include "worker/runner/runner.h"

namespace quire {

// Where this rank stands; part_bytes is filled in by start().
struct RankPlace {
  int rank = 0;
  int world = 1;
  int first_local_rank = 0;
  int num_local_ranks = 1;
  // Of the groups whose ranks share this host, each with as many of them.
  int local_group = 0;
  int num_local_groups = 1;

  int num_on_host() const { return num_local_ranks * num_local_groups; }
  int index_on_host() const { return local_group * num_local_ranks + rank - first_local_rank; }
};

class Rank {
 public:
  // Verifies the checkpoint, cuts it, reads and packs this rank's shard for `device`.
  static absl::StatusOr<std::unique_ptr<Rank>> load(ModelFile file, std::unique_ptr<Device> device,
                                                    const RankPlace& place,
                                                    const ProgressFn& progress);

  // What the ranks must share before they can meet; "" where they meet in host memory or there is
  // one alone. See Device::collective_kind().
  std::string collective_kind() const;
  // Collective: opens the communicator and makes every buffer. Ranks meet in host memory under
  // `comm_name`, or else by the id that rank 0's device made. What an earlier start() made is let
  // go first; only weights and store stay.
  absl::Status start(const StepLimits& limits, const std::string& comm_name,
                     const std::string& collective_id = "", int deadline_ms = 60000);

  // Before start(): where plans may send blocks. Kept for every later start().
  void keep_store(std::unique_ptr<HostStore> store) { store_ = std::move(store); }
  HostStore* store() const { return store_.get(); }  // null: there is none

  Runner& runner() { return *runner_; }
  Comm& comm() { return *comm_; }

  // --- what Hello presents ---
  const ModelFile& file() const { return file_; }
  const ShardMap& shards() const { return shards_; }
  const RankPlace& place() const { return place_; }
  Device& device() const { return *device_; }
  const ModelWeights& weights() const { return weights_; }
  KvShape kv_shape(int block_size) const;
  std::size_t kv_block_bytes(int block_size) const;  // over all layers
  bool kv_replicated() const;  // a neighbour holds some of this rank's KV heads too
  // Everything that may change a bit of an answer; the same on every rank of a group.
  std::string numerics_id() const;
  // The shard map and KV layout that all ranks must share.
  std::string layout_digest(int block_size) const;

 private:
  Rank() = default;
  absl::StatusOr<std::unique_ptr<Comm>> open_comm(const CommOptions& options,
                                                  const std::string& collective_id);

  ModelFile file_;
  RankPlace place_;
  ShardMap shards_;
  std::unique_ptr<Device> device_;
  ModelWeights weights_;
  DType kv_dtype_ = DType::kF32;
  std::unique_ptr<HostStore> store_;
  std::unique_ptr<Comm> comm_;
  std::unique_ptr<Runner> runner_;
};

}  // namespace quire
