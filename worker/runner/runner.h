// One step on one rank: apply the plan to the slots, run the model, pick tokens, tell every rank.
// Called by one thread, one plan after the other, the same plans in the same order on every rank.
//
// Where the device runs ahead of the host, the next plan is enqueued while a step runs: tokens that
// the host has not seen go from step to step in device memory. Decoding steps of a shape that was
// seen before are enqueued as one record.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/step.h"
#include "worker/kv/host_store.h"
#include "worker/kv/kv_arena.h"
#include "worker/model/decoder.h"
#include "worker/runner/batch_builder.h"
#include "worker/runner/slot_table.h"
#include "worker/sampler/logit_state.h"
#include "worker/sampler/sampler.h"

namespace quire {

// What a Runner works with; all of it outlives the runner.
struct RunnerParts {
  const ModelSpec* spec = nullptr;
  const ShardMap* shards = nullptr;
  const ModelWeights* weights = nullptr;
  Device* device = nullptr;
  Comm* comm = nullptr;
  HostStore* store = nullptr;  // null: plans save and load nothing
};

class Runner {
 public:
  static absl::StatusOr<std::unique_ptr<Runner>> create(const RunnerParts& parts, const KvShape& kv,
                                                        const StepLimits& limits);

  ~Runner();

  // After an error the slots and the arena are in no defined state: the epoch has ended.
  bool may_enqueue() const;  // there is room for one more step
  absl::Status enqueue(const StepPlan& plan);
  int in_flight() const { return static_cast<int>(steps_.size()); }
  bool has_finished();  // the oldest step in flight; does not block
  // The oldest step in flight. The picked tokens are the same on every rank; logprobs are filled in
  // on the sampling rank.
  absl::StatusOr<StepResult> finish();

  // With none in flight: enqueue() and finish().
  absl::StatusOr<StepResult> run(const StepPlan& plan);

 private:
  static constexpr int kSides = 2;
  struct Step {
    StepResult result;  // rows are filled in by the device
    bool samples_here = false;
    std::vector<Pick> picks;
    std::vector<SampleRow> wishes;  // of each pick
    std::vector<SlotTable::Expected> expected;
    const TokenId* ids = nullptr;  // host memory
    absl::Time begun;
    bool settled = true;
  };
  Runner(const RunnerParts& parts, const StepLimits& limits, KvArena arena, BatchBuilder builder);
  absl::Status allocate_ids();
  bool reads_unseen_tokens(const StepPlan& plan) const;
  void enqueue_rows(const StepPlan& plan, Step& step);
  absl::Status enqueue_swaps(const StepPlan& plan);
  void reach_blocks(const StepPlan& plan);
  void enqueue_copies(const StepPlan& plan);
  void expect_picks(const StepPlan& plan, Step& step);
  Gathered enqueue_record(const Batch& batch);
  void enqueue_picks(const Gathered& logits, int first, int count, Step& step);
  absl::Status settle(Step& step);

  RunnerParts parts_;
  const StepLimits limits_;
  SlotTable slots_;
  KvArena arena_;
  BatchBuilder builder_;
  Sampler sampler_;
  LogitStates logit_states_;  // used on the sampling rank
  std::unique_ptr<Decoder> decoder_;
  std::vector<KvLayer> kv_layers_;  // [L]

  std::unordered_map<std::uint64_t, Gathered> recorded_;  // logits of each kept record

  std::deque<Step> steps_;    // in flight, oldest first
  DeviceBuffer picked_;       // [picks] of the newest step, in device memory
  DeviceBuffer ids_[kSides];  // the same in host memory, by turns
  int side_ = 0;
  absl::Time last_finish_ = absl::InfinitePast();
};

// What decoders and communicators are made for.
DecoderLimits decoder_limits(const StepLimits& limits, const Device& device);

}  // namespace quire
