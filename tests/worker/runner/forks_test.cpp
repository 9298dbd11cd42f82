// The choices of one request from one prompt: its blocks are shared, also the partly filled last
// one, until each choice writes; tokens and logprobs are those of separate sequences.
#include <algorithm>

#include "tests/worker/runner/plan_cases.h"

namespace quire::test {
namespace {

using Forks = PlanTest;

constexpr int kChoices = 4;

std::vector<Prompt> choices_of(const Prompt& prompt) {
  std::vector<Prompt> choices(kChoices, prompt);
  for (int i = 0; i < kChoices; ++i) choices[static_cast<std::size_t>(i)].sample_index = i;
  return choices;
}

// The prompt's last rows are `chunk` tokens; then all choices pick, in the order of `rows`.
absl::Status run_choices(Conductor& conductor, const std::vector<Prompt>& choices, int chunk,
                         const std::vector<SlotId>& rows) {
  const auto length = static_cast<int>(choices[0].ids.size());
  conductor.admit(0, choices[0]);
  if (chunk < length) {
    conductor.grant(0, length - chunk);
    if (absl::Status status = conductor.run(); !status.ok()) return status;
  }
  conductor.grant(0, chunk);
  for (SlotId slot = 1; slot < kChoices; ++slot) {
    conductor.fork(slot, 0, choices[static_cast<std::size_t>(slot)]);
    conductor.pick_with(slot, 0);
  }
  std::vector<PlanRow> sorted;
  for (const SlotId slot : rows) {
    sorted.push_back(conductor.plan().rows[static_cast<std::size_t>(slot)]);
  }
  conductor.plan().rows = sorted;
  if (absl::Status status = conductor.run(); !status.ok()) return status;
  for (int step = 1; step < choices[0].max_tokens; ++step) {
    for (SlotId slot = 0; slot < kChoices; ++slot) {
      conductor.grant(slot, 1);
      // The last one that shares the block writes to it.
      if (step == 1 && slot > 0 && length % 16 != 0) conductor.own_last_block(slot);
    }
    if (absl::Status status = conductor.run(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

TEST_P(Forks, GiveWhatSeparateSequencesGive) {
  struct Case {
    int length, chunk;
    std::vector<SlotId> rows;  // of the plan in which all choices pick first
  };
  const Case cases[] = {
      {21, 12, {0, 1, 2, 3}},  // the second block is partly filled
      {21, 21, {2, 0, 3, 1}},  // admitted with its forks, and some stand before it
      {32, 1, {3, 2, 1, 0}},   // nothing to copy
  };
  for (const Case& c : cases) {
    if (slow() && c.chunk != 21) continue;
    SCOPED_TRACE(testing::Message() << c.length << " tokens, the last " << c.chunk);
    const std::vector<Prompt> choices =
        choices_of(drawn(random_ids(kSeed, c.length), slow() ? 4 : 14, kSeed));
    const std::vector<Output> want = plain(choices);
    ASSERT_NE(want[0].tokens, want[1].tokens);
    Conductor conductor(*group_);
    const absl::Status status = run_choices(conductor, choices, c.chunk, c.rows);
    ASSERT_TRUE(status.ok()) << status;
    for (SlotId slot = 0; slot < kChoices; ++slot) {
      SCOPED_TRACE(testing::Message() << "choice " << slot);
      expect_same(conductor.output(slot), want[static_cast<std::size_t>(slot)]);
    }
    ASSERT_TRUE(conductor.release_all().ok());
  }
}

// What penalties count begins anew with each fork.
TEST_P(Forks, CountTheirOwnTokens) {
  Prompt prompt = drawn(random_ids(kSeed + 1, 19), slow() ? 3 : 10, 5);
  prompt.params.frequency_penalty = 1.2f;
  prompt.params.repetition_penalty = 1.3f;
  prompt.params.min_tokens = 4;
  const std::vector<Prompt> choices = choices_of(prompt);
  const std::vector<Output> want = plain(choices);
  Conductor conductor(*group_);
  const absl::Status status = run_choices(conductor, choices, 19, {1, 0, 2, 3});
  ASSERT_TRUE(status.ok()) << status;
  for (SlotId slot = 0; slot < kChoices; ++slot) {
    expect_same(conductor.output(slot), want[static_cast<std::size_t>(slot)]);
  }
}

// A fork in the middle of an answer, with parameters of its own, while its parent goes on.
TEST_P(Forks, GoOnFromTheMiddle) {
  const int before = slow() ? 2 : 6, tokens = slow() ? 5 : 12;
  const Prompt prompt = drawn(random_ids(kSeed + 2, 11), tokens, 3);
  const Output parent = plain({prompt})[0];
  Prompt other = drawn(prompt.ids, tokens - before, 99);
  other.ids.insert(other.ids.end(), parent.tokens.begin(), parent.tokens.begin() + before);
  other.num_output = before;
  const Output child = plain({other})[0];
  Conductor conductor(*group_);
  conductor.admit(5, prompt);
  conductor.grant(5, 11);
  ASSERT_TRUE(conductor.run().ok());
  for (int i = 1; i < tokens; ++i) {
    if (i == before) conductor.fork(2, 5, other);
    conductor.grant(5, 1);
    if (i >= before) conductor.grant(2, 1);
    if (i == before) conductor.own_last_block(2);
    const absl::Status status = conductor.run();
    ASSERT_TRUE(status.ok()) << status;
  }
  expect_same(conductor.output(5), parent);
  expect_same(conductor.output(2), child);
}

// With few slots the limit is what drafts may have.
TEST_P(Forks, RefusesMorePicksThanThereIsRoomFor) {
  GroupOptions options = GetParam().options;
  options.limits.max_num_batched_tokens = 300;
  auto group = RankGroup::open(scratch_ / "tiny.gguf", options);
  ASSERT_TRUE(group.ok()) << group.status();
  const Prompt prompt = greedy(random_ids(kSeed, 5), 1, -1);
  Conductor conductor(**group);
  conductor.admit(0, prompt);
  conductor.grant(0, 5);
  ASSERT_TRUE(conductor.run().ok());
  conductor.guess(0, random_ids(kSeed + 4, 256));
  const absl::Status status = conductor.run();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("256 picks"), std::string::npos) << status;
}

INSTANTIATE_TEST_SUITE_P(Groups, Forks, testing::ValuesIn(plan_cases()), name_of_case);

}  // namespace
}  // namespace quire::test
