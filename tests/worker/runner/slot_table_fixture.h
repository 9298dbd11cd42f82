// A slot table with one sequence in it, and short ways to write plans.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "worker/runner/slot_table.h"

namespace quire::test {

inline constexpr StepLimits kLimits{.num_blocks = 8,
                                    .block_size = 16,
                                    .max_num_seqs = 4,
                                    .max_num_batched_tokens = 64,
                                    .max_model_len = 100};
inline constexpr int kVocab = 50;

inline AdmitRow admit(SlotId slot, int length) {
  AdmitRow row;
  row.slot = slot;
  row.tokens.assign(static_cast<std::size_t>(length), 7);
  row.num_prompt_tokens = length;
  return row;
}

inline AdmitRow fork(SlotId slot, SlotId parent, int num_prompt_tokens) {
  AdmitRow row;
  row.slot = slot;
  row.fork_of = parent;
  row.num_prompt_tokens = num_prompt_tokens;
  return row;
}

inline PlanRow row(SlotId slot, int first, int count, bool samples, std::vector<BlockId> blocks) {
  return {.slot = slot,
          .first_position = first,
          .num_tokens = count,
          .samples = samples,
          .new_blocks = {std::move(blocks)}};
}

// Slot 1 holds 20 tokens, all computed but none picked yet.
class SlotTableTest : public testing::Test {
 protected:
  SlotTableTest() {
    StepPlan plan;
    plan.admits = {admit(1, 20)};
    plan.rows = {row(1, 0, 20, true, {3, 5})};
    apply(plan);
  }
  void apply(const StepPlan& plan) {
    const absl::Status status = slots_.apply(plan);
    ASSERT_TRUE(status.ok()) << status;
  }
  // What the slot's row picks has come.
  void take(SlotId slot, const std::vector<TokenId>& picks) {
    slots_.settle(slots_.expect(slot, 0, picks.size() - 1), picks);
  }
  void expect_refused(const StepPlan& plan, const std::vector<std::string>& says) {
    const absl::Status status = slots_.apply(plan);
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    for (const std::string& text : says) {
      EXPECT_THAT(std::string(status.message()), testing::HasSubstr(text));
    }
  }
  SlotTable slots_{kLimits, kVocab, 1};
};

}  // namespace quire::test
