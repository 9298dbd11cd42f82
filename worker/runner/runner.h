// One step on one rank: apply the plan to the slots, run the model, pick tokens, tell every rank.
// Called by one thread, one plan after the other, the same plans in the same order on every rank.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/step.h"
#include "worker/kv/kv_arena.h"
#include "worker/model/decoder.h"
#include "worker/runner/batch_builder.h"
#include "worker/runner/slot_table.h"
#include "worker/sampler/sampler.h"

namespace quire {

// What a Runner works with; all of it outlives the runner.
struct RunnerParts {
  const ModelSpec* spec = nullptr;
  const ShardMap* shards = nullptr;
  const ModelWeights* weights = nullptr;
  Device* device = nullptr;
  Comm* comm = nullptr;
};

class Runner {
 public:
  static absl::StatusOr<std::unique_ptr<Runner>> create(const RunnerParts& parts, const KvShape& kv,
                                                        const StepLimits& limits);

  // The picked tokens are the same on every rank; logprobs are filled in on the sampling rank.
  // After an error the slots and the arena are in no defined state: the epoch has ended.
  absl::StatusOr<StepResult> run(const StepPlan& plan);

 private:
  Runner(const RunnerParts& parts, const StepLimits& limits, KvArena arena, BatchBuilder builder,
         DeviceBuffer ids);
  void enqueue_samples(const StepPlan& plan, const Batch& batch);

  RunnerParts parts_;
  SlotTable slots_;
  KvArena arena_;
  BatchBuilder builder_;
  Sampler sampler_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<KvLayer> kv_layers_;  // [L]

  std::vector<SampleRow> sample_rows_;  // of the step in progress, one per sampling row
  std::vector<RowResult> results_;
  DeviceBuffer ids_;  // host memory: picked [rows], sent from the sampling rank to all
};

}  // namespace quire
