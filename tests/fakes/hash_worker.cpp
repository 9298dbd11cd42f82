// One plan in the order of common/step.h: releases, admits, saves, loads, copies, then all rows at
// once: first every table changes, then every row stores, then every row reads back and picks.
#include "tests/fakes/hash_worker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace quire::test {
namespace {

template <typename... Words>
absl::Status wrong(const Words&... words) {
  return absl::InvalidArgumentError(absl::StrCat(words...));
}

}  // namespace

HashWorker::HashWorker(HashWorkerConfig config)
    : config_(config),
      arena_(config.num_blocks, config.block_size, config.num_host_blocks),
      next_step_(config.first_step) {}

absl::Status HashWorker::run(const StepPlan& plan, StepResult* result) {
  *result = {plan.epoch, plan.step, {}, 1};
  absl::Status status = check_head(plan);
  if (status.ok()) status = run_rows(plan, result);
  if (status.ok()) return status;
  return wrong("plan ", plan.step, " ", status.message());
}

absl::Status HashWorker::check_head(const StepPlan& plan) {
  if (plan.epoch != config_.epoch) return wrong("names another epoch");
  if (plan.step != next_step_++) return wrong("is out of order");
  if (!plan.rows.empty()) return absl::OkStatus();
  if (plan.saves.empty()) return wrong("has neither rows nor saves");
  if (!plan.admits.empty() || !plan.loads.empty() || !plan.copies.empty()) {
    return wrong("has no rows, but admits, loads or copies");
  }
  return absl::OkStatus();
}

absl::Status HashWorker::run_rows(const StepPlan& plan, StepResult* result) {
  for (const SlotId slot : plan.releases) QUIRE_RETURN_IF_ERROR(release(slot));
  for (const AdmitRow& row : plan.admits) QUIRE_RETURN_IF_ERROR(admit(row));
  QUIRE_RETURN_IF_ERROR(move_blocks(plan));
  num_gained_.clear();
  std::map<SlotId, Work> works;
  HashCost cost = config_.cost;  // summed up in its first field
  int granted = 0;
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    const PlanRow& row = plan.rows[i];
    if (works.count(row.slot) > 0) return wrong("grants slot ", row.slot, " twice");
    Work& work = works[row.slot];
    work.index = static_cast<int>(i);
    QUIRE_RETURN_IF_ERROR(grant(row, &work));
    granted += row.num_tokens;
    cost.step_us += cost.token_us * row.num_tokens + cost.context_us * row.num_tokens * work.end;
  }
  if (granted > config_.max_num_batched_tokens) return wrong("exceeds the token budget");
  for (const auto& [slot, work] : works) {
    if (work.row->num_tokens == 0) QUIRE_RETURN_IF_ERROR(pair_fork(work, &works));
  }
  count_holders(works);
  QUIRE_RETURN_IF_ERROR(check_filled(plan));
  for (const auto& [slot, work] : works) QUIRE_RETURN_IF_ERROR(open_prefix(work));
  for (const auto& [slot, work] : works) QUIRE_RETURN_IF_ERROR(store(work));
  for (const PlanRow& row : plan.rows) {
    const Work& work = works.at(row.slot);
    QUIRE_RETURN_IF_ERROR(read_back(work, work.end));
    work.slot->num_computed = work.end;
    work.slot->granted = true;
    if (row.samples) pick(work, result);
  }
  cost.step_us += cost.pick_us * static_cast<double>(result->rows.size());
  result->busy_us = static_cast<std::int64_t>(cost.step_us);
  return absl::OkStatus();
}

absl::Status HashWorker::release(SlotId id) {
  const auto found = slots_.find(id);
  if (found == slots_.end()) return wrong("releases unknown slot ", id);
  slots_.erase(found);
  return absl::OkStatus();
}

absl::Status HashWorker::admit(const AdmitRow& row) {
  if (row.slot < 0 || row.slot >= config_.max_num_seqs) return wrong("admits slot ", row.slot);
  if (slots_.count(row.slot) > 0) return wrong("admits live slot ", row.slot);
  Slot slot;
  slot.admit = row;
  slot.admission = ++num_admissions_;
  slot.domain = config_.seed_names_domain ? row.params.seed >> 32 : 0;
  slot.tokens = row.tokens;
  slot.tables.resize(static_cast<std::size_t>(config_.num_kv_groups));
  if (row.fork_of >= 0) QUIRE_RETURN_IF_ERROR(fork(row, &slot));
  if (row.num_prompt_tokens < 1 || row.num_prompt_tokens > static_cast<int>(slot.tokens.size())) {
    return wrong("admits slot ", row.slot, " with a prompt of ", row.num_prompt_tokens, " of ",
                 slot.tokens.size(), " tokens");
  }
  slots_.emplace(row.slot, std::move(slot));
  return absl::OkStatus();
}

absl::Status HashWorker::fork(const AdmitRow& row, Slot* slot) {
  const auto parent = slots_.find(row.fork_of);
  if (parent == slots_.end()) return wrong("forks slot ", row.fork_of, ", which is not in use");
  if (!row.tokens.empty()) return wrong("admits fork ", row.slot, " with tokens");
  slot->tokens = parent->second.tokens;
  slot->num_computed = parent->second.num_computed;
  slot->tables = parent->second.tables;
  slot->granted = parent->second.granted;
  return absl::OkStatus();
}

absl::Status HashWorker::move_blocks(const StepPlan& plan) {
  filled_.clear();
  std::set<HostBlockId> saved;
  for (const BlockSwap& swap : plan.saves) {
    if (!saved.insert(swap.host).second) return wrong("saves twice to host block ", swap.host);
    QUIRE_RETURN_IF_ERROR(arena_.save(swap));
  }
  for (const BlockSwap& swap : plan.loads) {
    if (!filled_.insert(swap.block).second) return wrong("loads twice to block ", swap.block);
    QUIRE_RETURN_IF_ERROR(arena_.load(swap));
  }
  for (const BlockCopy& copy : plan.copies) {
    if (copy.kv_group < 0 || copy.kv_group >= config_.num_kv_groups) {
      return wrong("copies in unknown KV group ", copy.kv_group);
    }
    if (!filled_.insert(copy.to).second) return wrong("fills block ", copy.to, " twice");
    QUIRE_RETURN_IF_ERROR(arena_.copy(copy));
  }
  for (const BlockCopy& copy : plan.copies) {
    for (const BlockCopy& other : plan.copies) {
      if (copy.from == other.to) return wrong("copies from and to block ", copy.from);
    }
  }
  return absl::OkStatus();
}

absl::Status HashWorker::grant(const PlanRow& row, Work* work) {
  const auto found = slots_.find(row.slot);
  if (found == slots_.end()) return wrong("grants unknown slot ", row.slot);
  Slot* slot = &found->second;
  work->row = &row;
  work->slot = slot;
  work->end = row.first_position + row.num_tokens;
  QUIRE_RETURN_IF_ERROR(extend(row, slot));
  const int known = static_cast<int>(slot->tokens.size());
  const bool pairs = row.num_tokens == 0;  // the first row of a fork: pair_fork() checks it
  work->first = !slot->granted && !pairs;
  if (row.first_position < 0 ||
      (slot->granted && !pairs && row.first_position != slot->num_computed)) {
    return wrong("grants slot ", row.slot, " from position ", row.first_position, ", but ",
                 slot->num_computed, " are computed");
  }
  if (row.num_tokens < 0 || work->end > known) {
    return wrong("grants slot ", row.slot, " tokens nobody has");
  }
  if (row.samples != (work->end == known)) {
    return wrong(row.samples ? "samples slot " : "does not sample slot ", row.slot, " at position ",
                 work->end, " of ", known);
  }
  if (static_cast<int>(row.drafts.size()) >= row.num_tokens && !row.drafts.empty()) {
    return wrong("grants slot ", row.slot, " drafts without the token before them");
  }
  return change_tables(row, work->end, slot);
}

absl::Status HashWorker::extend(const PlanRow& row, Slot* slot) {
  const bool beam = slot->admit.params.beam_width > 0;
  if (!row.tokens.empty() && !beam) {
    return wrong("sends tokens to slot ", row.slot, ", which searches no beams");
  }
  if (!row.drafts.empty() && beam) return wrong("sends drafts to beam slot ", row.slot);
  for (const auto* tokens : {&row.tokens, &row.drafts}) {
    for (const TokenId token : *tokens) {
      if (token < 0 || token >= config_.model.vocab) return wrong("sends token ", token);
      slot->tokens.push_back(token);
    }
  }
  return absl::OkStatus();
}

absl::Status HashWorker::change_tables(const PlanRow& row, int end, Slot* slot) {
  if (!row.new_blocks.empty() && row.new_blocks.size() != slot->tables.size()) {
    return wrong("brings slot ", row.slot, " blocks of ", row.new_blocks.size(), " KV groups");
  }
  const auto needed = static_cast<std::size_t>((end + config_.block_size - 1) / config_.block_size);
  for (std::size_t g = 0; g < slot->tables.size(); ++g) {
    std::vector<BlockId>& table = slot->tables[g];
    const std::size_t most = std::max(needed, table.size());  // wrong drafts leave blocks behind
    const auto keep =
        row.keep_blocks < 0 ? table.size() : static_cast<std::size_t>(row.keep_blocks);
    if (keep > table.size()) return wrong("keeps blocks that slot ", row.slot, " does not have");
    table.resize(keep);
    if (!row.new_blocks.empty()) {
      for (const BlockId block : row.new_blocks[g]) {
        if (!arena_.knows(block)) return wrong("names unknown block ", block);
        ++num_gained_[block];
        table.push_back(block);
      }
    }
    if (table.size() < needed || table.size() > most) {
      return wrong("gives slot ", row.slot, " ", table.size(), " blocks instead of ", needed);
    }
  }
  return absl::OkStatus();
}

// The first row of a fork, of no tokens: it is where its parent's row of this plan ends.
absl::Status HashWorker::pair_fork(const Work& fork, std::map<SlotId, Work>* works) {
  const SlotId slot = fork.row->slot;
  const AdmitRow& admit = fork.slot->admit;
  const auto found = works->find(admit.fork_of);
  if (admit.fork_of < 0 || found == works->end()) {
    return wrong("grants slot ", slot, " no tokens, but its parent has no row");
  }
  Work& parent = found->second;
  if (fork.slot->admission <= parent.slot->admission || parent.row->num_tokens == 0 ||
      fork.slot->num_computed != parent.slot->num_computed) {
    return wrong("grants slot ", slot, " no tokens, but does not fork it");
  }
  if (!parent.row->samples || !parent.row->drafts.empty() || !parent.row->tokens.empty()) {
    return wrong("lets slot ", slot, " pick from a row that does not end plainly");
  }
  if (fork.end != parent.end) {
    return wrong("lets slot ", slot, " pick at ", fork.end, ", its parent at ", parent.end);
  }
  if (fork.slot->tables != parent.slot->tables) {
    return wrong("gives fork ", slot, " other blocks than its parent");
  }
  ++parent.num_forks;
  return absl::OkStatus();
}

void HashWorker::count_holders(const std::map<SlotId, Work>& works) {
  num_holding_.assign(static_cast<std::size_t>(arena_.num_blocks()), 0);
  for (const auto& [slot, work] : works) {
    for (const auto& table : work.slot->tables) {
      for (const BlockId block : table) ++num_holding_[static_cast<std::size_t>(block)];
    }
  }
}

// What a load or a copy fills is new to whoever holds it.
absl::Status HashWorker::check_filled(const StepPlan& plan) const {
  for (const BlockId block : filled_) {
    const auto gained = num_gained_.find(block);
    if (num_holding_[static_cast<std::size_t>(block)] >
        (gained == num_gained_.end() ? 0 : gained->second)) {
      return wrong("fills block ", block, ", which a slot holds already");
    }
  }
  for (const BlockCopy& copy : plan.copies) {
    if (num_holding_[static_cast<std::size_t>(copy.to)] == 0)
      return wrong("copies to block ", copy.to, " for nobody");
  }
  return absl::OkStatus();
}

// A slot's first row may begin behind what the prefix cache holds: it has to be there already, in
// blocks that the slot does not write. (Rows store behind what is computed, and never into a block
// that another row reads: so what was ever read as a prefix stays as it is while anyone needs it.)
absl::Status HashWorker::open_prefix(const Work& work) {
  const int first = work.row->first_position;
  if (!work.first || first == 0) return absl::OkStatus();
  QUIRE_RETURN_IF_ERROR(read_back(work, first));
  for (std::size_t g = 0; g < work.slot->tables.size(); ++g) {
    const BlockId block =
        work.slot->tables[g][static_cast<std::size_t>((first - 1) / config_.block_size)];
    if (first % config_.block_size != 0 && filled_.count(block) == 0) {
      return wrong("begins slot ", work.row->slot, " at position ", first, " inside of block ",
                   block, ", which is not its own copy");
    }
  }
  return absl::OkStatus();
}

absl::Status HashWorker::store(const Work& work) {
  for (int p = work.row->first_position; p < work.end; ++p) {
    for (int g = 0; g < config_.num_kv_groups; ++g) {
      const BlockId block = work.slot->tables[static_cast<std::size_t>(g)]
                                             [static_cast<std::size_t>(p / config_.block_size)];
      if (num_holding_[static_cast<std::size_t>(block)] != 1 + work.num_forks) {
        return wrong("stores position ", p, " of slot ", work.row->slot, " into shared block ",
                     block);
      }
      cell(*work.slot, p, g) = expected(*work.slot, p, g);
    }
  }
  return absl::OkStatus();
}

// Reads through the block tables, as attention would.
absl::Status HashWorker::read_back(const Work& work, int end) {
  for (int p = 0; p < end; ++p) {
    for (int g = 0; g < config_.num_kv_groups; ++g) {
      const HashCell& found = cell(*work.slot, p, g);
      const HashCell right = expected(*work.slot, p, g);
      if (found != right) {
        return wrong("lets slot ", work.row->slot, " read ", found.text(), " where it needs ",
                     right.text());
      }
    }
  }
  return absl::OkStatus();
}

void HashWorker::pick(const Work& work, StepResult* result) {
  const std::vector<TokenId>& drafts = work.row->drafts;
  std::vector<TokenId>& tokens = work.slot->tokens;
  const auto base = tokens.size() - drafts.size();
  std::size_t accepted = 0;
  for (std::size_t i = 0; i <= drafts.size(); ++i) {
    result->rows.push_back(pick_one(work, static_cast<int>(base + i)));
    const TokenId token = result->rows.back().token;
    if (i == accepted && i < drafts.size() && token == drafts[i]) ++accepted;
  }
  if (work.slot->admit.params.beam_width > 0) return;
  const TokenId last = result->rows[result->rows.size() - 1 - drafts.size() + accepted].token;
  tokens.resize(base + accepted);
  tokens.push_back(last);
  work.slot->num_computed = static_cast<int>(base + accepted);
}

// The pick behind the slot's first `length` tokens.
RowResult HashWorker::pick_one(const Work& work, int length) const {
  const SamplingParams& params = work.slot->admit.params;
  const auto tokens =
      absl::MakeConstSpan(work.slot->tokens).first(static_cast<std::size_t>(length));
  RowResult result;
  result.row = work.index;
  if (params.beam_width > 0) {
    result.logprobs = config_.model.best(tokens, std::max(params.logprobs, 1));
    result.logprobs.insert(result.logprobs.begin(), result.logprobs.front());
    result.token = result.logprobs.front().token;
    return result;
  }
  result.token = config_.model.next(tokens, params.seed, work.slot->admit.sample_index);
  if (params.logprobs >= 0) {
    result.logprobs = config_.model.logprobs(result.token, length, params.logprobs);
  }
  return result;
}

HashCell HashWorker::expected(const Slot& slot, int position, int kv_group) const {
  return {slot.tokens[static_cast<std::size_t>(position)], position, kv_group, slot.domain};
}

HashCell& HashWorker::cell(const Slot& slot, int position, int kv_group) {
  const std::vector<BlockId>& table = slot.tables[static_cast<std::size_t>(kv_group)];
  return arena_.at(table[static_cast<std::size_t>(position / config_.block_size)],
                   position % config_.block_size);
}

}  // namespace quire::test
