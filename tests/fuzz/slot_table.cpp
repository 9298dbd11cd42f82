// Long sequences of plans, made from the input field by field so that many of them are accepted:
// the worker's mirror must hold its invariants after each, or refuse.
#include "worker/runner/slot_table.h"

#include <fuzzer/FuzzedDataProvider.h>

#include "tests/fuzz/fuzz.h"

namespace quire::fuzz {
namespace {

constexpr StepLimits kLimits = {.num_blocks = 24,
                                .block_size = 4,
                                .max_num_seqs = 4,
                                .max_num_batched_tokens = 24,
                                .max_model_len = 32};
constexpr int kVocab = 10;
constexpr int kGroups = 2;

SlotId any_slot(FuzzedDataProvider& input) {
  return input.ConsumeIntegralInRange<SlotId>(-1, kLimits.max_num_seqs);
}

AdmitRow any_admit(FuzzedDataProvider& input) {
  AdmitRow row;
  row.slot = any_slot(input);
  const int length = input.ConsumeIntegralInRange(0, kLimits.max_model_len + 1);
  for (int i = 0; i < length; ++i) row.tokens.push_back(i % kVocab);
  if (input.ConsumeIntegral<std::uint8_t>() == 7) row.tokens.push_back(kVocab);
  row.num_prompt_tokens = length;
  row.params.temperature = input.ConsumeBool() ? 0.0f : input.ConsumeFloatingPoint<float>();
  return row;
}

// Mostly the row that a right coordinator would send, with one thing changed now and then.
PlanRow any_row(FuzzedDataProvider& input, const SlotTable& slots) {
  PlanRow row;
  row.slot = any_slot(input);
  row.num_tokens = input.ConsumeIntegralInRange(0, 12);
  row.samples = input.ConsumeBool();
  if (row.slot >= 0 && row.slot < kLimits.max_num_seqs) {
    row.first_position = slots.at(row.slot).num_computed;
    const auto left = static_cast<int>(slots.at(row.slot).tokens.size()) - row.first_position;
    if (row.samples && input.ConsumeBool()) row.num_tokens = left;
  }
  row.first_position +=
      input.ConsumeIntegralInRange(0, 31) == 0 ? input.ConsumeIntegral<int>() % 64 : 0;
  const int groups = input.ConsumeIntegralInRange(0, 15) == 0 ? 1 : kGroups;
  const int count = input.ConsumeIntegralInRange(0, 4);
  for (int group = 0; group < groups && count > 0; ++group) {
    auto& blocks = row.new_blocks.emplace_back();
    for (int i = 0; i < count; ++i) {
      blocks.push_back(input.ConsumeIntegralInRange<BlockId>(0, kLimits.num_blocks));
    }
  }
  return row;
}

void check_invariants(const SlotTable& slots) {
  for (SlotId id = 0; id < kLimits.max_num_seqs; ++id) {
    const Slot& slot = slots.at(id);
    if (!slot.used) continue;
    QUIRE_CHECK_GE(slot.num_computed, 0);
    QUIRE_CHECK_LE(slot.num_computed, static_cast<int>(slot.tokens.size()));
    QUIRE_CHECK_LE(static_cast<int>(slot.tokens.size()), kLimits.max_model_len);
    QUIRE_CHECK_EQ(slot.tables.size(), static_cast<std::size_t>(kGroups));
    for (const auto& table : slot.tables) {
      QUIRE_CHECK_GE(static_cast<int>(table.size()) * kLimits.block_size, slot.num_computed);
      for (const BlockId block : table) QUIRE_CHECK(block >= 0 && block < kLimits.num_blocks);
    }
  }
}

}  // namespace
}  // namespace quire::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace quire;
  FuzzedDataProvider input(data, size);
  SlotTable slots(fuzz::kLimits, fuzz::kVocab, fuzz::kGroups);
  while (input.remaining_bytes() > 0) {
    StepPlan plan;
    for (int n = input.ConsumeIntegralInRange(0, 2); n > 0; --n) {
      plan.releases.push_back(fuzz::any_slot(input));
    }
    for (int n = input.ConsumeIntegralInRange(0, 2); n > 0; --n) {
      plan.admits.push_back(fuzz::any_admit(input));
    }
    for (int n = input.ConsumeIntegralInRange(0, 3); n > 0; --n) {
      plan.rows.push_back(fuzz::any_row(input, slots));
    }
    if (!slots.apply(plan).ok()) return 0;  // ends the epoch
    for (const PlanRow& row : plan.rows) {
      if (row.samples) slots.append(row.slot, 1);
    }
    fuzz::check_invariants(slots);
  }
  return 0;
}
