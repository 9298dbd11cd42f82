// Plans by hand over a worker group: sequences are admitted, forked, granted tokens, drafts and
// beams' tokens as a test says; this keeps count of their tokens and blocks, and of what came back.
#pragma once

#include <map>
#include <vector>

#include "absl/status/status.h"
#include "tests/worker/harness.h"

namespace quire::test {

class Conductor {
 public:
  explicit Conductor(RankGroup& group) : group_(group) {}

  // --- for the plan that is being written ---
  void admit(SlotId slot, const Prompt& prompt);
  // `prompt` has the fork's parameters and sample index. Before the parent's row, if it goes on
  // too.
  void fork(SlotId slot, SlotId parent, const Prompt& prompt);
  void release(SlotId slot);
  // The slot's next `tokens` tokens; it samples where they are its last.
  void grant(SlotId slot, int tokens);
  // One token and, behind it, guesses.
  void guess(SlotId slot, std::vector<TokenId> drafts);
  // A beam's next tokens.
  void tell(SlotId slot, std::vector<TokenId> tokens);
  // A fork's first row, where its parent's row has been granted.
  void pick_with(SlotId slot, SlotId parent);
  // The slot's row of this plan writes to a copy of the block that it begins in.
  void own_last_block(SlotId slot);
  StepPlan& plan() { return plan_; }

  // Runs the plan and begins the next one.
  absl::Status run();
  absl::Status release_all();

  // What was picked for the slot and, without beams, kept; also after its release.
  const Output& output(SlotId slot) const { return lines_.at(slot).output; }
  int num_steps() const { return num_steps_; }

 private:
  struct Line {
    std::vector<TokenId> tokens;  // that the worker has
    int computed = 0;
    int num_prompt_tokens = 0;
    bool beams = false;
    bool released = false;
    std::vector<BlockId> table;
    Output output;
  };
  PlanRow& add_row(SlotId slot, int tokens);
  PlanRow& row_of(SlotId slot);
  void extend(PlanRow& row, Line& line);
  void take(const PlanRow& row, std::vector<RowResult> picks);

  RankGroup& group_;
  StepPlan plan_;
  std::map<SlotId, Line> lines_;
  int next_block_ = 0;
  int num_steps_ = 0;
};

// Tokens, and the bits of all logprobs.
void expect_same(const Output& got, const Output& want);

}  // namespace quire::test
