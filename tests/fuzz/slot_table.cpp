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

AdmitRow any_admit(FuzzedDataProvider& input, const SlotTable& slots) {
  AdmitRow row;
  row.slot = any_slot(input);
  const int length = input.ConsumeIntegralInRange(0, kLimits.max_model_len + 1);
  for (int i = 0; i < length; ++i) row.tokens.push_back(i % kVocab);
  if (input.ConsumeIntegral<std::uint8_t>() == 7) row.tokens.push_back(kVocab);
  row.num_prompt_tokens = length;
  if (input.ConsumeIntegralInRange(0, 3) == 0) {
    row.fork_of = any_slot(input);
    row.tokens.clear();
    if (row.fork_of >= 0 && row.fork_of < kLimits.max_num_seqs) {
      row.num_prompt_tokens = slots.at(row.fork_of).num_prompt_tokens;
    }
  }
  row.params.beam_width = input.ConsumeIntegralInRange(0, 3) == 0 ? 2 : 0;
  row.params.temperature = input.ConsumeBool() ? 0.0f : input.ConsumeFloatingPoint<float>();
  return row;
}

// Mostly the row that a right coordinator would send, with one thing changed now and then.
PlanRow any_row(FuzzedDataProvider& input, const SlotTable& slots, const StepPlan& plan) {
  PlanRow row;
  row.slot = any_slot(input);
  row.num_tokens = input.ConsumeIntegralInRange(0, 12);
  row.samples = input.ConsumeBool();
  if (row.slot >= 0 && row.slot < kLimits.max_num_seqs) {
    row.first_position = slots.at(row.slot).num_computed;
    const auto left = static_cast<int>(slots.at(row.slot).tokens.size()) - row.first_position;
    if (row.samples && input.ConsumeBool()) row.num_tokens = left;
  }
  for (const AdmitRow& admit : plan.admits) {
    const bool forks = admit.fork_of >= 0 && admit.fork_of < kLimits.max_num_seqs;
    if (!forks || admit.slot != row.slot) continue;
    const Slot& parent = slots.at(admit.fork_of);
    row.samples = true;
    row.first_position = parent.num_computed;
    if (input.ConsumeBool()) {  // picks with its parent
      row.first_position = static_cast<int>(parent.tokens.size());
      row.num_tokens = 0;
    }
  }
  for (int n = input.ConsumeIntegralInRange(-8, 3); n > 0; --n) {
    (input.ConsumeBool() ? row.tokens : row.drafts)
        .push_back(input.ConsumeIntegralInRange(0, kVocab));
    row.num_tokens += 1;
  }
  if (input.ConsumeIntegralInRange(0, 7) == 0) {
    row.keep_blocks = input.ConsumeIntegralInRange(-2, 9);
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

// What a runner does with the picks of a plan.
void pick(FuzzedDataProvider& input, SlotTable& slots, const StepPlan& plan) {
  for (const PlanRow& row : plan.rows) {
    if (!row.samples) continue;
    const int from = slots.logits_row(row);
    QUIRE_CHECK(from >= 0 && plan.rows[static_cast<std::size_t>(from)].num_tokens > 0);
    if (slots.at(row.slot).params.beam_width > 0) continue;
    std::vector<TokenId> picks;
    for (const TokenId draft : row.drafts) {
      picks.push_back(input.ConsumeBool() ? draft : input.ConsumeIntegralInRange(0, kVocab - 1));
    }
    picks.push_back(1);
    slots.settle(slots.expect(row.slot, 0, row.drafts.size()), picks);
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
      plan.admits.push_back(fuzz::any_admit(input, slots));
    }
    for (int n = input.ConsumeIntegralInRange(0, 3); n > 0; --n) {
      plan.rows.push_back(fuzz::any_row(input, slots, plan));
    }
    if (!slots.apply(plan).ok()) return 0;  // ends the epoch
    fuzz::check_invariants(slots);
    fuzz::pick(input, slots, plan);
    fuzz::check_invariants(slots);
  }
  return 0;
}
