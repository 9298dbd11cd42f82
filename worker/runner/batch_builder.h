// Flattens a plan and the slots it names into the flat device arrays of a Batch: written in host
// memory, then sent in one copy of what the step needs. Where arrays lie follows from the step's
// numbers of tokens, rows and blocks alone. Two host sides take turns, so that a step may be built
// while the one before is on its way; the device's side is one, for steps run in order.
//
// A plan's row of no tokens is none here: it has a sample, of its parent's last token.
//
// A device that keeps records gets decoding steps in few shapes: rows and width of the tables are
// rounded up, and the rows beyond the plan's have no tokens of their own. Their entries in `tokens`
// name row -1: what is computed for them is stored nowhere.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/step.h"
#include "kernels/batch.h"
#include "kernels/shared_runs.h"
#include "worker/device_buffer.h"
#include "worker/runner/slot_table.h"

namespace quire {

// One pick of a step: the `offset`-th of a row of the plan. Only rows with drafts have several.
struct Pick {
  int row = 0;
  int offset = 0;
};

class BatchBuilder {
 public:
  static absl::StatusOr<BatchBuilder> create(const StepLimits& limits, Device& device);

  // `plan` was applied to `slots` and has rows. KV group 0's tables are used. Enqueues the copy,
  // and valid until the next call. `picked`: where the device holds what the step before picked.
  const Batch& build(const StepPlan& plan, const SlotTable& slots, const TokenId* picked);
  // What the batch's samples are, in order: that of the plan's rows.
  const std::vector<Pick>& picks() const { return picks_; }
  // The shape of a step that comes again and again: equal for batches of the same arrays; 0: none.
  std::uint64_t shape() const { return shape_; }

 private:
  struct Counts {
    int tokens = 0;
    int rows = 0;  // that have tokens
    int samples = 0;
    int most_tokens = 0;  // of a row
    int width = 0;        // blocks of the longest row
  };
  Counts count(const StepPlan& plan) const;
  bool is_decode(const StepPlan& plan) const;
  Counts rounded_up(const Counts& counts) const;
  void place(const Counts& counts);
  void add_row(const PlanRow& row, const Slot& slot, int index);
  void add_picks(const StepPlan& plan, const SlotTable& slots);
  void add_sampled();
  void pad(int first_row);
  void share(int rows);
  void send(const TokenId* picked);
  // Where an address in the host's side has its twin in device memory.
  template <typename T>
  T* on_device(const T* in_host) const {
    return reinterpret_cast<T*>(
        static_cast<std::byte*>(memory_.data()) +
        (reinterpret_cast<const std::byte*>(in_host) - static_cast<const std::byte*>(host_side())));
  }
  void* host_side() const { return host_[side_].data(); }

  StepLimits limits_;
  Device* device_ = nullptr;
  DeviceBuffer memory_;   // what the device reads
  DeviceBuffer host_[2];  // its twins; one holds all of the following
  int side_ = 0;
  TokenId* tokens_ = nullptr;              // [T]
  std::int32_t* positions_ = nullptr;      // [T]
  std::int32_t* row_of_token_ = nullptr;   // [T]
  std::int32_t* sources_ = nullptr;        // [T], see Ops::feed
  std::int32_t* row_begin_ = nullptr;      // [B + 1]
  std::int32_t* context_ = nullptr;        // [B]
  std::int32_t* sample_tokens_ = nullptr;  // [samples]
  // What Batch::sampled points at.
  std::int32_t* sampled_tokens_ = nullptr;
  std::int32_t* sampled_positions_ = nullptr;
  std::int32_t* sampled_rows_ = nullptr;
  std::int32_t* sampled_begin_ = nullptr;
  std::int32_t* sampled_picks_ = nullptr;
  std::int32_t* shared_runs_ = nullptr;    // [B][4], see Batch
  std::int32_t* shared_rows_ = nullptr;    // [B]
  std::int32_t* shared_of_row_ = nullptr;  // [B]
  BlockId* block_tables_ = nullptr;        // [B][width]
  std::int32_t* end_ = nullptr;
  bool feeds_ = false;            // some token is one that the host has not seen
  std::vector<int> row_of_plan_;  // [plan rows], the row that each became; -1: none
  std::vector<Pick> picks_;
  std::vector<int> place_of_;  // [T], among the sampled tokens; -1: not one
  SharedRuns found_runs_;
  std::uint64_t shape_ = 0;
  Batch batch_;
};

}  // namespace quire
