// A worker group without a model. HashWorker mirrors slots exactly as a real worker does and keeps a
// KV arena, so that a block used twice, a wrong position or a lost token shows: either as an error
// (a plan that breaks the protocol) or as a wrong hash.
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "tests/fakes/hash_model.h"

namespace quire::test {

struct HashWorkerConfig {
  EpochId epoch = 1;
  StepId first_step = 1;
  int num_blocks = 0;
  int block_size = 16;
  int num_kv_groups = 1;
  int max_num_seqs = 128;
  int max_num_batched_tokens = 512;
  HashModel model;
};

class HashWorker {
 public:
  explicit HashWorker(HashWorkerConfig config)
      : config_(config),
        next_step_(config.first_step),
        owner_(static_cast<std::size_t>(config.num_blocks), -1),
        arena_(static_cast<std::size_t>(config.num_blocks * config.block_size)) {}

  // Runs one plan. InvalidArgument names the rule that the plan breaks.
  absl::Status run(const StepPlan& plan, StepResult* result) {
    if (plan.epoch != config_.epoch) return wrong(plan, "names another epoch");
    if (plan.step != next_step_++) return wrong(plan, "is out of order");
    if (plan.rows.empty()) return wrong(plan, "has no rows");
    for (const SlotId slot : plan.releases) QUIRE_RETURN_IF_ERROR(release(plan, slot));
    for (const AdmitRow& row : plan.admits) QUIRE_RETURN_IF_ERROR(admit(plan, row));
    *result = {plan.epoch, plan.step, {}, 1};
    std::set<SlotId> seen;
    int granted = 0;
    for (std::size_t i = 0; i < plan.rows.size(); ++i) {
      const PlanRow& row = plan.rows[i];
      if (!seen.insert(row.slot).second) return wrong(plan, "grants one slot twice");
      granted += row.num_tokens;
      QUIRE_RETURN_IF_ERROR(compute(plan, row));
      if (row.samples) result->rows.push_back(sample(static_cast<int>(i), &slots_.at(row.slot)));
    }
    if (granted > config_.max_num_batched_tokens) return wrong(plan, "exceeds the token budget");
    return absl::OkStatus();
  }

 private:
  struct Slot {
    AdmitRow admit;
    std::vector<TokenId> tokens;  // admitted, then sampled here
    int num_computed = 0;
    std::vector<std::vector<BlockId>> tables;  // [KV group][block]
  };
  struct Cell {  // what a position's KV stands for
    TokenId token = -1;
    int position = -1;
  };

  static absl::Status wrong(const StepPlan& plan, absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("plan ", plan.step, " ", what));
  }

  absl::Status release(const StepPlan& plan, SlotId id) {
    const auto found = slots_.find(id);
    if (found == slots_.end()) return wrong(plan, absl::StrCat("releases unknown slot ", id));
    for (const auto& table : found->second.tables) {
      for (const BlockId block : table) owner_[static_cast<std::size_t>(block)] = -1;
    }
    slots_.erase(found);
    return absl::OkStatus();
  }

  absl::Status admit(const StepPlan& plan, const AdmitRow& row) {
    if (row.slot < 0 || row.slot >= config_.max_num_seqs) {
      return wrong(plan, absl::StrCat("admits slot ", row.slot));
    }
    if (row.num_prompt_tokens < 1 || row.num_prompt_tokens > static_cast<int>(row.tokens.size())) {
      return wrong(plan, "admits a row with a bad prompt");
    }
    Slot slot{row, row.tokens, 0, {}};
    slot.tables.resize(static_cast<std::size_t>(config_.num_kv_groups));
    if (!slots_.emplace(row.slot, std::move(slot)).second) {
      return wrong(plan, absl::StrCat("admits live slot ", row.slot));
    }
    return absl::OkStatus();
  }

  absl::Status compute(const StepPlan& plan, const PlanRow& row) {
    const auto found = slots_.find(row.slot);
    if (found == slots_.end()) return wrong(plan, absl::StrCat("grants unknown slot ", row.slot));
    Slot& slot = found->second;
    const int end = row.first_position + row.num_tokens;
    const int known = static_cast<int>(slot.tokens.size());
    if (row.first_position != slot.num_computed) return wrong(plan, "leaves a gap in positions");
    if (row.num_tokens < 1 || end > known) return wrong(plan, "grants tokens nobody has");
    if (row.samples != (end == known)) return wrong(plan, "samples in the wrong place");
    QUIRE_RETURN_IF_ERROR(append_blocks(plan, row, &slot));
    for (int p = row.first_position; p < end; ++p) {
      for (const auto& table : slot.tables) {
        arena_[cell(table, p)] = {slot.tokens[static_cast<std::size_t>(p)], p};
      }
    }
    slot.num_computed = end;
    return absl::OkStatus();
  }

  absl::Status append_blocks(const StepPlan& plan, const PlanRow& row, Slot* slot) {
    if (row.new_blocks.size() != slot->tables.size()) return wrong(plan, "misses a KV group");
    const int end = row.first_position + row.num_tokens;
    const auto needed =
        static_cast<std::size_t>((end + config_.block_size - 1) / config_.block_size);
    for (std::size_t g = 0; g < slot->tables.size(); ++g) {
      for (const BlockId block : row.new_blocks[g]) {
        if (block < 0 || block >= config_.num_blocks) return wrong(plan, "names an unknown block");
        SlotId& owner = owner_[static_cast<std::size_t>(block)];
        if (owner != -1) return wrong(plan, absl::StrCat("gives block ", block, " to two slots"));
        owner = row.slot;
        slot->tables[g].push_back(block);
      }
      if (slot->tables[g].size() != needed) return wrong(plan, "gives a wrong number of blocks");
    }
    return absl::OkStatus();
  }

  // Reads every position back through the block tables, as attention would.
  RowResult sample(int row, Slot* slot) {
    std::vector<TokenId> read;
    for (int p = 0; p < slot->num_computed; ++p) {
      const auto& table = slot->tables[static_cast<std::size_t>(p) % slot->tables.size()];
      const Cell& found = arena_[cell(table, p)];
      read.push_back(found.position == p ? found.token : -1);
    }
    const SamplingParams& params = slot->admit.params;
    RowResult result;
    result.row = row;
    result.token = config_.model.next(read, params.seed, slot->admit.sample_index);
    if (params.logprobs >= 0) {
      result.logprobs = config_.model.logprobs(result.token, slot->num_computed, params.logprobs);
    }
    slot->tokens.push_back(result.token);
    return result;
  }

  std::size_t cell(const std::vector<BlockId>& table, int position) const {
    const BlockId block = table[static_cast<std::size_t>(position / config_.block_size)];
    return static_cast<std::size_t>(block * config_.block_size + position % config_.block_size);
  }

  const HashWorkerConfig config_;
  StepId next_step_;
  std::map<SlotId, Slot> slots_;
  std::vector<SlotId> owner_;  // [block]; -1 = free
  std::vector<Cell> arena_;    // [block][S]
};

}  // namespace quire::test
