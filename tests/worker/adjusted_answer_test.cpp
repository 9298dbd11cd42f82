// Penalties, biases and masks on whole ranks: they change the answer as they should, and it is the
// same alone, among others, after a recompute, over any number of ranks, whichever rank samples.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

using testing::Contains;
using testing::Each;
using testing::Not;

constexpr std::uint64_t kSeed = 20261123;
constexpr int kTokens = 14;

class AdjustedAnswer : public testing::Test {
 protected:
  void SetUp() override {
    TinyOptions tiny;
    tiny.seed = kSeed;
    write_tiny_gguf(scratch_ / "tiny.gguf", tiny);
  }
  std::unique_ptr<RankGroup> open(int world, const std::string& device = "cpu") {
    GroupOptions options;
    options.device = device;
    options.world = world;
    auto group = RankGroup::open(scratch_ / "tiny.gguf", options);
    EXPECT_TRUE(group.ok()) << group.status();
    return group.ok() ? *std::move(group) : nullptr;
  }
  static std::vector<TokenId> tokens(RankGroup& group, const Prompt& prompt) {
    const auto outputs = generate(group, {prompt});
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return outputs.ok() ? (*outputs)[0].tokens : std::vector<TokenId>();
  }
  ScratchFolder scratch_;
};

Prompt plain(int i) {
  return greedy(random_ids(kSeed + static_cast<std::uint64_t>(i), 20 + i), kTokens, 3);
}

// One of each kind; every other one draws.
std::vector<Prompt> make_prompts() {
  std::vector<Prompt> prompts;
  for (int i = 0; i < 12; ++i) {
    Prompt prompt = plain(i);
    SamplingParams& params = prompt.params;
    if (i % 2 == 1) {
      params.temperature = 0.8f;
      params.top_p = i % 4 == 1 ? 0.9f : 1.0f;
      params.seed = static_cast<std::uint64_t>(i);
    }
    if (i / 2 == 0) params.repetition_penalty = 3.0f;
    if (i / 2 == 1) params.frequency_penalty = 2.0f;
    if (i / 2 == 2) params.presence_penalty = 2.0f;
    if (i / 2 == 3) params.logit_bias = {{5, 100.0f}, {6, 99.5f}, {7, -100.0f}};
    if (i / 2 == 4) params.allowed_token_ids = {3, 200, 1999, 2100};
    prompts.push_back(std::move(prompt));
  }
  prompts[10].params.min_tokens = 5;
  prompts[11].params.min_tokens = 5;
  return prompts;  // 10 and 11: only bans
}

TEST_F(AdjustedAnswer, IsTheSameAloneTogetherAndOverOneTwoAndThreeRanks) {
  const std::vector<Prompt> prompts = make_prompts();
  std::vector<Output> first;
  for (const int world : {1, 2, 3}) {
    const auto group = open(world);
    ASSERT_NE(group, nullptr);
    const auto outputs = generate(*group, prompts);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    if (first.empty()) first = *outputs;
    for (std::size_t p = 0; p < prompts.size(); ++p) {
      EXPECT_EQ((*outputs)[p].tokens, first[p].tokens) << world << " ranks, prompt " << p;
      EXPECT_EQ(tokens(*group, prompts[p]), first[p].tokens) << world << " ranks, alone " << p;
      for (std::size_t t = 0; t < first[p].logprobs.size(); ++t) {
        EXPECT_EQ((*outputs)[p].logprobs[t][0].logprob, first[p].logprobs[t][0].logprob);
      }
    }
  }
}

TEST_F(AdjustedAnswer, ARecomputeGoesOnWhereItWas) {
  const auto group = open(2);
  ASSERT_NE(group, nullptr);
  for (const Prompt& prompt : make_prompts()) {
    const std::vector<TokenId> whole = tokens(*group, prompt);
    for (const int done : {1, 4, kTokens - 1}) {
      Prompt rest = prompt;
      rest.max_tokens -= done;
      rest.num_output = done;
      rest.ids.insert(rest.ids.end(), whole.begin(), whole.begin() + done);
      EXPECT_EQ(tokens(*group, rest), std::vector<TokenId>(whole.begin() + done, whole.end()))
          << "after " << done;
    }
  }
}

TEST_F(AdjustedAnswer, TheReferencePicksTheSame) {
  std::vector<Prompt> prompts = make_prompts();
  for (Prompt& prompt : prompts) prompt.max_tokens = 4;  // the reference is slow on purpose
  const auto reference = open(1, "reference"), cpu = open(1);
  ASSERT_NE(reference, nullptr);
  ASSERT_NE(cpu, nullptr);
  const auto want = generate(*reference, prompts), got = generate(*cpu, prompts);
  ASSERT_TRUE(want.ok()) << want.status();
  ASSERT_TRUE(got.ok()) << got.status();
  for (std::size_t p = 0; p < prompts.size(); ++p) EXPECT_EQ((*got)[p].tokens, (*want)[p].tokens);
}

TEST_F(AdjustedAnswer, DoesWhatWasAskedFor) {
  const auto group = open(2);
  ASSERT_NE(group, nullptr);
  const std::vector<TokenId> unchanged = tokens(*group, plain(3));

  Prompt prompt = plain(3);
  prompt.params.logit_bias = {{unchanged[0], -100.0f}};
  EXPECT_THAT(tokens(*group, prompt), Not(Contains(unchanged[0])));

  prompt = plain(3);
  prompt.params.logit_bias = {{42, 100.0f}};
  EXPECT_THAT(tokens(*group, prompt), Each(42));

  // The same pull, but each pick makes the next less likely: another id takes its turn.
  prompt.params.logit_bias = {{42, 60.0f}, {43, 57.0f}};
  prompt.params.frequency_penalty = 2.0f;
  const std::vector<TokenId> turns = tokens(*group, prompt);
  EXPECT_THAT(turns, Contains(42));
  EXPECT_THAT(turns, Contains(43));

  // A penalty this strong keeps every id from coming twice, also those of the prompt.
  prompt = plain(3);
  prompt.params.repetition_penalty = 100.0f;
  const std::vector<TokenId> once = tokens(*group, prompt);
  EXPECT_EQ(std::set<TokenId>(once.begin(), once.end()).size(), once.size());
  for (const TokenId id : prompt.ids) EXPECT_THAT(once, Not(Contains(id)));

  prompt = plain(3);
  prompt.params.allowed_token_ids = {9, 8, 1000};
  for (const TokenId id : tokens(*group, prompt)) {
    EXPECT_THAT(prompt.params.allowed_token_ids, Contains(id));
  }
  EXPECT_EQ(tokens(*group, plain(3)), unchanged);  // nothing of it stays in the slot
}

TEST_F(AdjustedAnswer, MinTokensHoldsStopsBack) {
  const auto group = open(1);
  ASSERT_NE(group, nullptr);
  Prompt prompt = plain(5);
  prompt.params.stop_token_ids = {77};
  prompt.params.logit_bias = {{77, 100.0f}};
  prompt.params.min_tokens = 6;
  const std::vector<TokenId> got = tokens(*group, prompt);
  const auto first = std::find(got.begin(), got.end(), 77);
  EXPECT_EQ(first - got.begin(), 6);
  EXPECT_EQ(std::count(got.begin(), got.end(), 77), kTokens - 6);
}

}  // namespace
}  // namespace quire::test
