// Deltas and their checks.
#include "worker/runner/slot_table.h"

#include <algorithm>

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
      slots_(static_cast<std::size_t>(limits.max_num_seqs)),
      parents_(slots_.size(), -1),
      rows_(slots_.size(), -1) {}

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

absl::Status SlotTable::check_ids(SlotId slot, const char* field,
                                  absl::Span<const TokenId> ids) const {
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocab_) {
      return bad(slot, field, "holds id ", id, ", outside [0, ", vocab_ - 1, "]");
    }
  }
  return absl::OkStatus();
}

bool SlotTable::awaits_picks(const StepPlan& plan) const {
  const auto drafts = [this](SlotId slot) {
    return slot >= 0 && slot < limits_.max_num_seqs && at(slot).drafting;
  };
  return std::any_of(plan.rows.begin(), plan.rows.end(),
                     [&](const PlanRow& row) { return !row.drafts.empty() || drafts(row.slot); }) ||
         std::any_of(plan.admits.begin(), plan.admits.end(),
                     [&](const AdmitRow& row) { return drafts(row.fork_of); });
}

absl::Status SlotTable::apply(const StepPlan& plan) {
  for (const SlotId slot : plan.releases) {
    QUIRE_RETURN_IF_ERROR(check_slot(slot, true, "releases"));
    slots_[static_cast<std::size_t>(slot)] = Slot();
  }
  std::fill(parents_.begin(), parents_.end(), -1);
  for (const AdmitRow& row : plan.admits) QUIRE_RETURN_IF_ERROR(admit(row));
  if (plan.rows.empty() && !plan.copies.empty()) {
    return absl::InvalidArgumentError("`copies` stand in a plan without rows");
  }
  for (const BlockCopy& copy : plan.copies) QUIRE_RETURN_IF_ERROR(check_copy(copy));
  QUIRE_RETURN_IF_ERROR(index_rows(plan));
  for (const PlanRow& row : plan.rows) QUIRE_RETURN_IF_ERROR(grant(plan, row));
  return absl::OkStatus();
}

// Where each slot's row is, and that the step has no more tokens and picks than there is room for.
absl::Status SlotTable::index_rows(const StepPlan& plan) {
  std::fill(rows_.begin(), rows_.end(), -1);
  std::int64_t num_tokens = 0, num_picks = 0;
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    const PlanRow& row = plan.rows[i];
    QUIRE_RETURN_IF_ERROR(check_slot(row.slot, true, "rows"));
    int& index = rows_[static_cast<std::size_t>(row.slot)];
    if (index >= 0) return bad(row.slot, "rows", "names it twice");
    index = static_cast<int>(i);
    num_tokens += std::max(row.num_tokens, 0);
    if (num_tokens > limits_.max_num_batched_tokens) {
      return bad(row.slot, "num_tokens", "brings the step above ", limits_.max_num_batched_tokens,
                 " tokens");
    }
    if (row.samples) num_picks += 1 + static_cast<std::int64_t>(row.drafts.size());
    if (num_picks > limits_.max_picks()) {
      return bad(row.slot, "samples", "brings the step above ", limits_.max_picks(), " picks");
    }
  }
  return absl::OkStatus();
}

int SlotTable::logits_row(const PlanRow& row) const {
  const auto own = static_cast<std::size_t>(row.slot);
  return rows_[row.num_tokens > 0 ? own : static_cast<std::size_t>(parents_[own])];
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

absl::Status SlotTable::check_admitted_tokens(const AdmitRow& row) const {
  const auto length = static_cast<int>(row.tokens.size());
  if (length < 1 || length > limits_.max_model_len) {
    return bad(row.slot, "tokens", "holds ", length, " tokens; 1 to ", limits_.max_model_len,
               " are allowed");
  }
  QUIRE_RETURN_IF_ERROR(check_ids(row.slot, "tokens", row.tokens));
  if (row.num_prompt_tokens < 1 || row.num_prompt_tokens > length) {
    return bad(row.slot, "num_prompt_tokens", "is ", row.num_prompt_tokens, " of ", length,
               " tokens");
  }
  return absl::OkStatus();
}

absl::Status SlotTable::check_fork(const AdmitRow& row) const {
  if (!row.tokens.empty()) {
    return bad(row.slot, "tokens", "are given, but a fork has those of its parent");
  }
  if (row.fork_of < 0 || row.fork_of >= limits_.max_num_seqs || !at(row.fork_of).used) {
    return bad(row.slot, "fork_of", "names slot ", row.fork_of, ", which is not in use");
  }
  const Slot& parent = at(row.fork_of);
  if (parent.drafting ||
      std::find(parent.tokens.begin(), parent.tokens.end(), kUnseen) != parent.tokens.end()) {
    return bad(row.slot, "fork_of", "names slot ", row.fork_of,
               ", for which a step in flight picks a token");
  }
  if (row.num_prompt_tokens != parent.num_prompt_tokens) {
    return bad(row.slot, "num_prompt_tokens", "is ", row.num_prompt_tokens,
               ", but its parent's is ", parent.num_prompt_tokens);
  }
  return absl::OkStatus();
}

absl::Status SlotTable::admit(const AdmitRow& row) {
  QUIRE_RETURN_IF_ERROR(check_slot(row.slot, false, "admits"));
  const bool forks = row.fork_of != -1;
  QUIRE_RETURN_IF_ERROR(forks ? check_fork(row) : check_admitted_tokens(row));
  if (absl::Status status = validate(row.params, vocab_); !status.ok()) {
    return bad(row.slot, "params", "are invalid: ", status.message());
  }
  Slot& slot = slots_[static_cast<std::size_t>(row.slot)];
  if (forks) {
    slot = at(row.fork_of);
    parents_[static_cast<std::size_t>(row.slot)] = row.fork_of;
  } else {
    slot.tokens = row.tokens;
    slot.num_prompt_tokens = row.num_prompt_tokens;
    slot.tables.resize(num_kv_groups_);
  }
  slot.used = true;
  slot.admission = ++num_admissions_;
  slot.params = row.params;
  slot.sample_index = row.sample_index;
  return absl::OkStatus();
}

absl::Status SlotTable::grant(const StepPlan& plan, const PlanRow& row) {
  Slot& slot = slots_[static_cast<std::size_t>(row.slot)];
  if (slot.drafting) {
    return bad(row.slot, "rows", "names it, but a step in flight tells which drafts it keeps");
  }
  QUIRE_RETURN_IF_ERROR(append_tokens(row, slot));
  QUIRE_RETURN_IF_ERROR(row.num_tokens == 0 ? check_no_tokens(plan, row) : check_tokens(row, slot));
  const auto length = static_cast<int>(slot.tokens.size());
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
  slot.drafting = !row.drafts.empty();
  slot.num_computed = end;
  return absl::OkStatus();
}

absl::Status SlotTable::append_tokens(const PlanRow& row, Slot& slot) {
  if (row.tokens.empty() && row.drafts.empty()) return absl::OkStatus();
  if (!row.tokens.empty() && slot.params.beam_width == 0) {
    return bad(row.slot, "tokens", "come with the row, but only a slot that searches beams does ",
               "not keep what is picked for it");
  }
  if (!row.drafts.empty()) QUIRE_RETURN_IF_ERROR(check_drafts(row, slot));
  QUIRE_RETURN_IF_ERROR(check_ids(row.slot, "tokens", row.tokens));
  QUIRE_RETURN_IF_ERROR(check_ids(row.slot, "drafts", row.drafts));
  const std::size_t length = slot.tokens.size() + row.tokens.size() + row.drafts.size();
  if (length > static_cast<std::size_t>(limits_.max_model_len)) {
    return bad(row.slot, row.tokens.empty() ? "drafts" : "tokens", "make the sequence ", length,
               " tokens long; ", limits_.max_model_len, " are allowed");
  }
  slot.tokens.insert(slot.tokens.end(), row.tokens.begin(), row.tokens.end());
  slot.tokens.insert(slot.tokens.end(), row.drafts.begin(), row.drafts.end());
  return absl::OkStatus();
}

// Whether each of the row's picks is one that decoding without drafts would make.
absl::Status SlotTable::check_drafts(const PlanRow& row, const Slot& slot) const {
  if (slot.params.beam_width > 0) {
    return bad(row.slot, "drafts", "are guesses at picks, but a search of beams keeps none");
  }
  if (slot.params.adjusts_logits()) {
    return bad(row.slot, "drafts", "stand where each pick depends on the one before it: the ",
               "slot's parameters change logits");
  }
  if (slot.tokens.back() == kUnseen) {
    return bad(row.slot, "drafts", "follow a token that a step in flight picks");
  }
  if (!row.samples || row.num_tokens <= static_cast<std::int64_t>(row.drafts.size())) {
    return bad(row.slot, "drafts", "has ", row.drafts.size(), " entries, but the row of ",
               row.num_tokens, " tokens does not pick after the token before them");
  }
  return absl::OkStatus();
}

absl::Status SlotTable::check_tokens(const PlanRow& row, const Slot& slot) const {
  const auto length = static_cast<int>(slot.tokens.size());
  if (row.first_position < 0 || (slot.granted && row.first_position != slot.num_computed)) {
    return bad(row.slot, "first_position", "is ", row.first_position, ", but ", slot.num_computed,
               " tokens are computed");
  }
  if (row.num_tokens < 1 || row.num_tokens > length - row.first_position) {
    return bad(row.slot, "num_tokens", "is ", row.num_tokens, " from position ", row.first_position,
               ", but the slot has ", length, " tokens");
  }
  return absl::OkStatus();
}

// The first row of a fork, which picks where its parent does.
absl::Status SlotTable::check_no_tokens(const StepPlan& plan, const PlanRow& row) const {
  const SlotId parent = parents_[static_cast<std::size_t>(row.slot)];
  if (parent < 0) {
    return bad(row.slot, "num_tokens", "is 0, but the plan admits no fork into the slot");
  }
  if (!row.samples || !row.tokens.empty()) {
    return bad(row.slot, "num_tokens", "is 0, so the row should pick a token and bring none");
  }
  const int index = rows_[static_cast<std::size_t>(parent)];
  if (index < 0) {
    return bad(row.slot, "num_tokens", "is 0, but its parent, slot ", parent,
               ", has no row in the plan");
  }
  const PlanRow& from = plan.rows[static_cast<std::size_t>(index)];
  if (from.num_tokens < 1 || !from.samples || !from.drafts.empty()) {
    return bad(row.slot, "num_tokens", "is 0, but the row of its parent, slot ", parent,
               ", does not compute tokens and pick one");
  }
  if (row.first_position != from.first_position + from.num_tokens) {
    return bad(row.slot, "first_position", "is ", row.first_position,
               ", but the row of its parent, slot ", parent, ", ends at ",
               from.first_position + from.num_tokens);
  }
  return absl::OkStatus();
}

absl::Status SlotTable::append_blocks(const PlanRow& row, Slot& slot) {
  if (!row.new_blocks.empty() && row.new_blocks.size() != num_kv_groups_) {
    return bad(row.slot, "new_blocks", "has ", row.new_blocks.size(), " KV groups instead of ",
               num_kv_groups_);
  }
  if (row.keep_blocks < -1) {
    return bad(row.slot, "keep_blocks", "is ", row.keep_blocks, ", below -1");
  }
  const int end = row.first_position + row.num_tokens;
  for (std::size_t group = 0; group < num_kv_groups_; ++group) {
    std::vector<BlockId>& table = slot.tables[group];
    if (row.keep_blocks >= 0) {
      const auto keep = static_cast<std::size_t>(row.keep_blocks);
      if (keep > table.size()) {
        return bad(row.slot, "keep_blocks", "is ", keep, ", but the slot has ", table.size(),
                   " blocks");
      }
      table.resize(keep);
    }
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

SlotTable::Expected SlotTable::expect(SlotId slot, std::size_t first_pick, std::size_t num_drafts) {
  Slot& entry = slots_[static_cast<std::size_t>(slot)];
  QUIRE_CHECK(entry.used);
  QUIRE_CHECK_EQ(entry.drafting, num_drafts > 0);
  if (num_drafts == 0) {
    entry.tokens.push_back(kUnseen);
    entry.unseen_pick = static_cast<int>(first_pick);
  }
  const std::size_t index = entry.tokens.size() - std::max<std::size_t>(num_drafts, 1);
  return {slot, entry.admission, index, first_pick, num_drafts + 1};
}

void SlotTable::settle(const Expected& expected, absl::Span<const TokenId> picks) {
  QUIRE_CHECK_EQ(picks.size(), expected.num_picks);
  Slot& entry = slots_[static_cast<std::size_t>(expected.slot)];
  if (!entry.used || entry.admission != expected.admission) return;
  if (picks.size() == 1) {
    entry.tokens[expected.index] = picks[0];
    return;
  }
  std::size_t right = 0;  // drafts
  while (right + 1 < picks.size() && entry.tokens[expected.index + right] == picks[right]) ++right;
  entry.tokens.resize(expected.index + right);
  entry.tokens.push_back(picks[right]);
  entry.num_computed = static_cast<int>(expected.index + right);
  entry.drafting = false;
}

}  // namespace quire
