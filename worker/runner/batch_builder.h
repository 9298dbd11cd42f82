// Flattens a plan and the slots it names into the flat device arrays of a Batch: written in host
// memory, then sent in one copy. All arrays are made once for the largest step and stay where they
// are; a Batch is valid until the next build().
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "common/shard.h"
#include "common/step.h"
#include "kernels/batch.h"
#include "worker/device_buffer.h"
#include "worker/runner/slot_table.h"

namespace quire {

class BatchBuilder {
 public:
  static absl::StatusOr<BatchBuilder> create(const StepLimits& limits, const ShardMap& shards,
                                             Device& device);

  // `plan` was applied to `slots` and has rows. KV group 0's tables are used. Enqueues the copy.
  const Batch& build(const StepPlan& plan, const SlotTable& slots);
  // The rank that owns the embedding of each token: [T].
  const std::int32_t* owners() const { return on_device(owners_); }
  // Indices into plan.rows of those that sample, in order.
  const std::vector<int>& sampling_rows() const { return sampling_rows_; }

 private:
  std::int32_t owner_of(TokenId token) const;
  void add_tokens(const PlanRow& row, const Slot& slot, int index);
  void fill_tables(const StepPlan& plan, const SlotTable& slots);
  void send();
  // Where an address in host_ has its twin in device memory.
  const std::int32_t* on_device(const std::int32_t* in_host) const {
    return static_cast<const std::int32_t*>(memory_.data()) +
           (in_host - static_cast<const std::int32_t*>(host_.data()));
  }

  StepLimits limits_;
  std::vector<TokenId> vocab_ends_;  // by rank
  Device* device_ = nullptr;
  DeviceBuffer memory_;                    // what the device reads
  DeviceBuffer host_;                      // its twin; holds all of the following
  TokenId* tokens_ = nullptr;              // [T]
  std::int32_t* positions_ = nullptr;      // [T]
  std::int32_t* row_of_token_ = nullptr;   // [T]
  std::int32_t* owners_ = nullptr;         // [T]
  std::int32_t* row_begin_ = nullptr;      // [B + 1]
  std::int32_t* context_ = nullptr;        // [B]
  std::int32_t* sample_tokens_ = nullptr;  // [B]
  BlockId* block_tables_ = nullptr;        // [B][blocks of the longest row in the step]
  std::vector<int> sampling_rows_;
  Batch batch_;
};

}  // namespace quire
