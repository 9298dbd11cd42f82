// Beams: the coordinator tells each its next token. What comes back is what the model says about
// the same tokens when they are admitted, and enough of it for the widest search.
#include <algorithm>

#include "tests/worker/runner/plan_cases.h"

namespace quire::test {
namespace {

using Beams = PlanTest;

// As the coordinator sends it.
Prompt beam(std::vector<TokenId> ids, int width) {
  Prompt prompt = greedy(std::move(ids), 1, 2 * width);
  prompt.params.beam_width = width;
  return prompt;
}

// The output when `forced` are admitted after `prompt`, one more each time.
Output taught(RankGroup& group, const std::vector<TokenId>& prompt,
              const std::vector<TokenId>& forced, int logprobs) {
  auto outputs = teacher_force(group, {{prompt, forced}}, logprobs);
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? (*outputs)[0] : Output();
}

TEST_P(Beams, FollowTheTokensTheyAreTold) {
  const int tokens = slow() ? 4 : 20;
  const auto prompt = random_ids(kSeed, 14);
  const auto told = random_ids(kSeed + 1, tokens);
  Conductor conductor(*group_);
  conductor.admit(2, beam(prompt, 4));
  conductor.grant(2, 14);
  for (int i = 0; i < tokens; ++i) {
    const absl::Status status = conductor.run();
    ASSERT_TRUE(status.ok()) << status;
    if (i + 1 < tokens) conductor.tell(2, {told[static_cast<std::size_t>(i)]});
  }
  ASSERT_TRUE(conductor.release_all().ok());
  expect_same(conductor.output(2), taught(*group_, prompt, told, 8));
}

// Two tokens at once, of which only the last is picked after.
TEST_P(Beams, MayBeToldSeveralTokens) {
  const auto prompt = random_ids(kSeed + 2, 15);
  const auto told = random_ids(kSeed + 3, 3);
  Conductor conductor(*group_);
  conductor.admit(0, beam(prompt, 2));
  conductor.grant(0, 15);
  ASSERT_TRUE(conductor.run().ok());
  conductor.tell(0, {told[0], told[1]});
  ASSERT_TRUE(conductor.run().ok());
  ASSERT_TRUE(conductor.release_all().ok());
  const Output want = taught(*group_, prompt, told, 4);
  expect_same(conductor.output(0),
              {{want.tokens[0], want.tokens[2]}, {want.logprobs[0], want.logprobs[2]}});
}

// A step of a search: one beam goes on in two ways and another ends; its slot takes the new one.
TEST_P(Beams, ForkWhereTheyPart) {
  const auto prompt = random_ids(kSeed + 5, 18);
  const auto told = random_ids(kSeed + 6, 8);
  const Prompt request = beam(prompt, 2);
  Conductor conductor(*group_);
  conductor.admit(0, request);
  conductor.grant(0, 18);
  conductor.fork(1, 0, request);
  conductor.pick_with(1, 0);
  ASSERT_TRUE(conductor.run().ok());
  const auto tell_both = [&](TokenId first, TokenId second, bool parts) {
    conductor.tell(0, {first});
    conductor.tell(1, {second});
    if (parts) conductor.own_last_block(1);
    return conductor.run();
  };
  ASSERT_TRUE(tell_both(told[0], told[1], true).ok());
  ASSERT_TRUE(tell_both(told[2], told[3], false).ok());
  conductor.release(1);  // beam 0 goes on in both
  conductor.fork(1, 0, request);
  ASSERT_TRUE(tell_both(told[4], told[5], true).ok());
  ASSERT_TRUE(tell_both(told[6], told[7], false).ok());
  ASSERT_TRUE(conductor.release_all().ok());
  const Output first = taught(*group_, prompt, {told[0], told[2], told[4], told[6], 0}, 4);
  expect_same(conductor.output(0), first);
  const Output second = taught(*group_, prompt, {told[0], told[2], told[5], told[7], 0}, 4);
  const Output got = conductor.output(1);
  expect_same(got, {{second.tokens.begin() + 3, second.tokens.end()},
                    {second.logprobs.begin() + 3, second.logprobs.end()}});
}

TEST_P(Beams, TheWidestGetsTheThirtyTwoBest) {
  const auto prompt = random_ids(kSeed + 7, 9);
  Conductor conductor(*group_);
  conductor.admit(0, beam(prompt, kMaxBeamWidth));
  conductor.grant(0, 9);
  ASSERT_TRUE(conductor.run().ok());
  ASSERT_TRUE(conductor.release_all().ok());
  const std::vector<TokenLogprob> row = conductor.output(0).logprobs[0];
  ASSERT_EQ(row.size(), 1u + kMaxRowLogprobs);
  EXPECT_EQ(row[0].token, row[1].token);  // greedy
  std::vector<TokenId> ids;
  for (std::size_t i = 1; i < row.size(); ++i) {
    ids.push_back(row[i].token);
    EXPECT_LE(row[i].logprob, row[i == 1 ? 0 : i - 1].logprob);
  }
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(std::adjacent_find(ids.begin(), ids.end()), ids.end());
  const Output twenty = taught(*group_, prompt, {0}, 20);
  for (std::size_t i = 0; i < twenty.logprobs[0].size(); ++i) {
    EXPECT_EQ(row[i].token, twenty.logprobs[0][i].token);
    EXPECT_EQ(row[i].logprob, twenty.logprobs[0][i].logprob);
  }
}

INSTANTIATE_TEST_SUITE_P(Groups, Beams, testing::ValuesIn(plan_cases()), name_of_case);

}  // namespace
}  // namespace quire::test
