#include "tests/worker/conductor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status.h"

namespace quire::test {

void Conductor::admit(SlotId slot, const Prompt& prompt) {
  const auto length = static_cast<int>(prompt.ids.size());
  plan_.admits.push_back(
      {slot, prompt.ids, -1, length - prompt.num_output, prompt.sample_index, prompt.params});
  Line& line = lines_[slot] = Line();
  line.tokens = prompt.ids;
  line.num_prompt_tokens = length - prompt.num_output;
  line.beams = prompt.params.beam_width > 0;
}

void Conductor::fork(SlotId slot, SlotId parent, const Prompt& prompt) {
  Line& line = lines_[slot] = lines_.at(parent);
  line.beams = prompt.params.beam_width > 0;
  line.output = Output();
  line.released = false;
  plan_.admits.push_back(
      {slot, {}, parent, line.num_prompt_tokens, prompt.sample_index, prompt.params});
}

void Conductor::release(SlotId slot) {
  plan_.releases.push_back(slot);
  lines_.at(slot).released = true;
}

absl::Status Conductor::release_all() {
  for (const auto& [slot, line] : lines_) {
    if (!line.released) release(slot);
  }
  return run();
}

void Conductor::extend(PlanRow& row, Line& line) {
  row.new_blocks.resize(1);
  const int block_size = group_.limits().block_size;
  while (static_cast<int>(line.table.size()) * block_size < line.computed) {
    QUIRE_CHECK_LT(next_block_, group_.limits().num_blocks);
    row.new_blocks[0].push_back(next_block_);
    line.table.push_back(next_block_++);
  }
}

PlanRow& Conductor::add_row(SlotId slot, int tokens) {
  Line& line = lines_.at(slot);
  PlanRow& row = plan_.rows.emplace_back();
  row.slot = slot;
  row.first_position = line.computed;
  row.num_tokens = tokens;
  line.computed += tokens;
  row.samples = line.computed == static_cast<int>(line.tokens.size());
  extend(row, line);
  return row;
}

void Conductor::grant(SlotId slot, int tokens) {
  add_row(slot, tokens);
}

void Conductor::guess(SlotId slot, std::vector<TokenId> drafts) {
  Line& line = lines_.at(slot);
  line.tokens.insert(line.tokens.end(), drafts.begin(), drafts.end());
  add_row(slot, 1 + static_cast<int>(drafts.size())).drafts = std::move(drafts);
}

void Conductor::tell(SlotId slot, std::vector<TokenId> tokens) {
  Line& line = lines_.at(slot);
  line.tokens.insert(line.tokens.end(), tokens.begin(), tokens.end());
  add_row(slot, static_cast<int>(tokens.size())).tokens = std::move(tokens);
}

PlanRow& Conductor::row_of(SlotId slot) {
  const auto found = std::find_if(plan_.rows.begin(), plan_.rows.end(),
                                  [slot](const PlanRow& row) { return row.slot == slot; });
  QUIRE_CHECK(found != plan_.rows.end());
  return *found;
}

void Conductor::pick_with(SlotId slot, SlotId parent) {
  Line &line = lines_.at(slot), &from = lines_.at(parent);
  PlanRow row;
  row.slot = slot;
  row.first_position = from.computed;
  row.samples = true;
  row.new_blocks = row_of(parent).new_blocks;
  line.computed = from.computed;
  line.table = from.table;
  plan_.rows.push_back(std::move(row));
}

void Conductor::own_last_block(SlotId slot) {
  Line& line = lines_.at(slot);
  PlanRow& row = row_of(slot);
  const int index = row.first_position / group_.limits().block_size;
  row.keep_blocks = index;
  BlockId& block = line.table[static_cast<std::size_t>(index)];
  plan_.copies.push_back({0, block, next_block_});
  block = next_block_++;
  row.new_blocks[0].assign(line.table.begin() + index, line.table.end());
}

// As the worker does: drafts stay as far as they were picked.
void Conductor::take(const PlanRow& row, std::vector<RowResult> picks) {
  Line& line = lines_.at(row.slot);
  ASSERT_EQ(picks.size(), row.samples ? row.drafts.size() + 1 : 0);
  line.tokens.resize(line.tokens.size() - row.drafts.size());
  for (std::size_t i = 0; i < picks.size(); ++i) {
    const TokenId token = picks[i].token;
    line.output.tokens.push_back(token);
    line.output.logprobs.push_back(std::move(picks[i].logprobs));
    if (line.beams) return;
    line.tokens.push_back(token);
    line.computed = static_cast<int>(line.tokens.size()) - 1;
    if (i == row.drafts.size() || token != row.drafts[i]) return;
  }
}

absl::Status Conductor::run() {
  const StepPlan plan = std::exchange(plan_, {});
  ++num_steps_;
  QUIRE_ASSIGN_OR_RETURN(const StepResult result, group_.step(plan));
  std::vector<std::vector<RowResult>> picks(plan.rows.size());
  int last = 0;
  for (const RowResult& row : result.rows) {
    EXPECT_GE(row.row, last) << "picks are in plan order";
    last = row.row;
    picks.at(static_cast<std::size_t>(row.row)).push_back(row);
  }
  for (std::size_t i = 0; i < plan.rows.size(); ++i) take(plan.rows[i], std::move(picks[i]));
  return absl::OkStatus();
}

void expect_same(const Output& got, const Output& want) {
  EXPECT_EQ(got.tokens, want.tokens);
  ASSERT_EQ(got.logprobs.size(), want.logprobs.size());
  for (std::size_t i = 0; i < got.logprobs.size(); ++i) {
    ASSERT_EQ(got.logprobs[i].size(), want.logprobs[i].size()) << "token " << i;
    for (std::size_t k = 0; k < got.logprobs[i].size(); ++k) {
      EXPECT_EQ(got.logprobs[i][k].token, want.logprobs[i][k].token) << "token " << i;
      EXPECT_EQ(got.logprobs[i][k].logprob, want.logprobs[i][k].logprob) << "token " << i;
    }
  }
}

}  // namespace quire::test
