// Deltas and their checks.
#include "worker/runner/slot_table.h"

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace quire {
namespace {

template <typename... Words>
absl::Status bad(SlotId slot, const char* field, const Words&... words) {
  return absl::InvalidArgumentError(absl::StrCat("slot ", slot, ": `", field, "` ", words...));
}

}  // namespace

SlotTable::SlotTable(const StepLimits& limits, int vocab, int num_kv_groups)
    : limits_(limits),
      vocab_(vocab),
      num_kv_groups_(static_cast<std::size_t>(num_kv_groups)),
      slots_(static_cast<std::size_t>(limits.max_num_seqs)) {}

int SlotTable::num_used() const {
  int used = 0;
  for (const Slot& slot : slots_) used += slot.used ? 1 : 0;
  return used;
}

absl::Status SlotTable::check_slot(SlotId slot, bool used, const char* field) const {
  if (slot < 0 || slot >= limits_.max_num_seqs) {
    return bad(slot, field, "is outside [0, ", limits_.max_num_seqs - 1, "]");
  }
  if (at(slot).used != used) return bad(slot, field, used ? "is not in use" : "is in use already");
  return absl::OkStatus();
}

absl::Status SlotTable::apply(const StepPlan& plan) {
  for (const SlotId slot : plan.releases) {
    QUIRE_RETURN_IF_ERROR(check_slot(slot, true, "releases"));
    slots_[static_cast<std::size_t>(slot)] = Slot();
  }
  for (const AdmitRow& row : plan.admits) QUIRE_RETURN_IF_ERROR(admit(row));
  if (plan.rows.empty() && !plan.copies.empty()) {
    return absl::InvalidArgumentError("`copies` stand in a plan without rows");
  }
  for (const BlockCopy& copy : plan.copies) QUIRE_RETURN_IF_ERROR(check_copy(copy));
  int num_tokens = 0;
  std::vector<bool> seen(slots_.size(), false);
  for (const PlanRow& row : plan.rows) {
    QUIRE_RETURN_IF_ERROR(check_slot(row.slot, true, "rows"));
    if (seen[static_cast<std::size_t>(row.slot)]) return bad(row.slot, "rows", "names it twice");
    seen[static_cast<std::size_t>(row.slot)] = true;
    QUIRE_RETURN_IF_ERROR(grant(row));
    num_tokens += row.num_tokens;
    if (num_tokens > limits_.max_num_batched_tokens) {
      return bad(row.slot, "num_tokens", "brings the step above ", limits_.max_num_batched_tokens,
                 " tokens");
    }
  }
  return absl::OkStatus();
}

absl::Status SlotTable::check_copy(const BlockCopy& copy) const {
  if (copy.kv_group < 0 || static_cast<std::size_t>(copy.kv_group) >= num_kv_groups_) {
    return absl::InvalidArgumentError(
        absl::StrCat("`copies` names KV group ", copy.kv_group, " of ", num_kv_groups_));
  }
  for (const BlockId block : {copy.from, copy.to}) {
    if (block >= 0 && block < limits_.num_blocks) continue;
    return absl::InvalidArgumentError(absl::StrCat("`copies` names block ", block, ", outside [0, ",
                                                   limits_.num_blocks - 1, "]"));
  }
  return absl::OkStatus();
}

absl::Status SlotTable::admit(const AdmitRow& row) {
  QUIRE_RETURN_IF_ERROR(check_slot(row.slot, false, "admits"));
  const auto length = static_cast<int>(row.tokens.size());
  if (length < 1 || length > limits_.max_model_len) {
    return bad(row.slot, "tokens", "holds ", length, " tokens; 1 to ", limits_.max_model_len,
               " are allowed");
  }
  for (const TokenId token : row.tokens) {
    if (token < 0 || token >= vocab_) {
      return bad(row.slot, "tokens", "holds id ", token, ", outside [0, ", vocab_ - 1, "]");
    }
  }
  if (row.num_prompt_tokens < 1 || row.num_prompt_tokens > length) {
    return bad(row.slot, "num_prompt_tokens", "is ", row.num_prompt_tokens, " of ", length,
               " tokens");
  }
  if (absl::Status status = validate(row.params, vocab_); !status.ok()) {
    return bad(row.slot, "params", "are invalid: ", status.message());
  }
  Slot& slot = slots_[static_cast<std::size_t>(row.slot)];
  slot.used = true;
  slot.tokens = row.tokens;
  slot.num_prompt_tokens = row.num_prompt_tokens;
  slot.admission = ++num_admissions_;
  slot.tables.resize(num_kv_groups_);
  slot.params = row.params;
  slot.sample_index = row.sample_index;
  return absl::OkStatus();
}

absl::Status SlotTable::grant(const PlanRow& row) {
  Slot& slot = slots_[static_cast<std::size_t>(row.slot)];
  const auto length = static_cast<int>(slot.tokens.size());
  if (row.first_position < 0 || (slot.granted && row.first_position != slot.num_computed)) {
    return bad(row.slot, "first_position", "is ", row.first_position, ", but ", slot.num_computed,
               " tokens are computed");
  }
  if (row.num_tokens < 1 || row.num_tokens > length - row.first_position) {
    return bad(row.slot, "num_tokens", "is ", row.num_tokens, " from position ", row.first_position,
               ", but the slot has ", length, " tokens");
  }
  const int end = row.first_position + row.num_tokens;
  if (row.samples && end != length) {
    return bad(row.slot, "samples", "is set at position ", end, ", but the slot has ", length,
               " tokens");
  }
  if (row.samples && length >= limits_.max_model_len) {
    return bad(row.slot, "samples", "is set, but the sequence has all of its ",
               limits_.max_model_len, " tokens");
  }
  QUIRE_RETURN_IF_ERROR(append_blocks(row, slot));
  slot.granted = true;
  slot.num_computed = end;
  return absl::OkStatus();
}

absl::Status SlotTable::append_blocks(const PlanRow& row, Slot& slot) {
  if (!row.new_blocks.empty() && row.new_blocks.size() != num_kv_groups_) {
    return bad(row.slot, "new_blocks", "has ", row.new_blocks.size(), " KV groups instead of ",
               num_kv_groups_);
  }
  const int end = row.first_position + row.num_tokens;
  for (std::size_t group = 0; group < num_kv_groups_; ++group) {
    std::vector<BlockId>& table = slot.tables[group];
    if (!row.new_blocks.empty()) {
      for (const BlockId block : row.new_blocks[group]) {
        if (block < 0 || block >= limits_.num_blocks) {
          return bad(row.slot, "new_blocks", "names block ", block, ", outside [0, ",
                     limits_.num_blocks - 1, "]");
        }
        table.push_back(block);
      }
    }
    const auto room = static_cast<std::int64_t>(table.size()) * limits_.block_size;
    if (room < end) {
      return bad(row.slot, "new_blocks", "leaves room for ", room, " positions, but ", end,
                 " are needed");
    }
    if (room >= std::int64_t{limits_.max_model_len} + 2 * limits_.block_size) {
      return bad(row.slot, "new_blocks", "gives room for ", room, " positions, above the ",
                 limits_.max_model_len, " a sequence may have");
    }
  }
  return absl::OkStatus();
}

SlotTable::Expected SlotTable::expect(SlotId slot, int pick) {
  Slot& entry = slots_[static_cast<std::size_t>(slot)];
  QUIRE_CHECK(entry.used);
  entry.tokens.push_back(kUnseen);
  entry.unseen_pick = pick;
  return {slot, entry.admission, entry.tokens.size() - 1};
}

void SlotTable::settle(const Expected& expected, TokenId token) {
  Slot& entry = slots_[static_cast<std::size_t>(expected.slot)];
  if (entry.used && entry.admission == expected.admission) entry.tokens[expected.index] = token;
}

}  // namespace quire
