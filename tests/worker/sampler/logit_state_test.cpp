// What tokens and parameters make of a sequence's logits: step by step, and at once as after a
// recompute.
#include "worker/sampler/logit_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace quire {

bool operator==(const LogitEntry& a, const LogitEntry& b) {
  return a.token == b.token && a.bias == b.bias && a.count == b.count;
}
void PrintTo(const LogitEntry& e, std::ostream* out) {
  *out << "{" << e.token << ", " << e.bias << ", " << e.count << "}";
}

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr int kVocab = 100;
constexpr float kBan = -std::numeric_limits<float>::infinity();
constexpr TokenId kEos[] = {2, 3};

std::vector<LogitEntry> entries(const LogitAdjustment& adjustment) {
  return {adjustment.entries.begin(), adjustment.entries.end()};
}

TEST(LogitState, CountsTheOutputAndSeesThePrompt) {
  SamplingParams params;
  params.repetition_penalty = 1.2f;
  params.frequency_penalty = 0.5f;
  params.presence_penalty = -0.5f;
  LogitState state(params, 3, kEos, kVocab);
  const std::vector<TokenId> tokens = {9, 4, 9, 4, 50, 4};
  const auto update = [&](std::size_t n) {
    return entries(state.update(absl::MakeConstSpan(tokens).first(n)));
  };
  EXPECT_THAT(update(3), ElementsAre(LogitEntry{4, 0, 0}, LogitEntry{9, 0, 0}));
  EXPECT_THAT(update(4), ElementsAre(LogitEntry{4, 0, 1}, LogitEntry{9, 0, 0}));
  EXPECT_THAT(update(6),
              ElementsAre(LogitEntry{4, 0, 2}, LogitEntry{9, 0, 0}, LogitEntry{50, 0, 1}));
  const LogitAdjustment& adjustment = state.update(tokens);
  EXPECT_EQ(adjustment.repetition, 1.2f);
  EXPECT_EQ(adjustment.frequency, 0.5f);
  EXPECT_EQ(adjustment.presence, -0.5f);
  EXPECT_EQ(adjustment.allowed, nullptr);
}

TEST(LogitState, OnlyRepetitionLooksAtThePrompt) {
  SamplingParams params;
  params.presence_penalty = 1.0f;
  const std::vector<TokenId> tokens = {9, 4, 9, 9};
  LogitState state(params, 3, kEos, kVocab);
  EXPECT_THAT(entries(state.update(tokens)), ElementsAre(LogitEntry{9, 0, 1}));
}

TEST(LogitState, BansWhatEndsTheAnswerBeforeMinTokens) {
  SamplingParams params;
  params.min_tokens = 2;
  params.stop_token_ids = {7, 3};
  params.logit_bias = {{7, 5.0f}, {1, -1.0f}};
  LogitState state(params, 1, kEos, kVocab);
  const std::vector<TokenId> tokens = {9, 7, 8, 8};
  const auto update = [&](std::size_t n) {
    return entries(state.update(absl::MakeConstSpan(tokens).first(n)));
  };
  const auto banned = ElementsAre(LogitEntry{1, -1, -1}, LogitEntry{2, kBan, -1},
                                  LogitEntry{3, kBan, -1}, LogitEntry{7, kBan, -1});
  EXPECT_THAT(update(1), banned);
  EXPECT_THAT(update(2), banned);
  const auto free = ElementsAre(LogitEntry{1, -1, -1}, LogitEntry{2, 0, -1}, LogitEntry{3, 0, -1},
                                LogitEntry{7, 5, -1});
  EXPECT_THAT(update(3), free);
  EXPECT_THAT(update(4), free);
}

TEST(LogitState, EosThatIsIgnoredIsNotBanned) {
  SamplingParams params;
  params.min_tokens = 2;
  params.ignore_eos = true;
  const std::vector<TokenId> tokens = {9};
  LogitState state(params, 1, kEos, kVocab);
  EXPECT_THAT(entries(state.update(tokens)), IsEmpty());
}

TEST(LogitState, AllowedIdsAreBits) {
  SamplingParams params;
  params.allowed_token_ids = {0, 31, 32, 99, 31};
  LogitState state(params, 1, kEos, kVocab);
  const std::vector<TokenId> tokens = {9};
  const std::uint32_t* allowed = state.update(tokens).allowed;
  ASSERT_NE(allowed, nullptr);
  EXPECT_EQ(std::vector<std::uint32_t>(allowed, allowed + allowed_words(kVocab)),
            std::vector<std::uint32_t>({0x80000001u, 1u, 0u, 8u}));
}

TEST(LogitState, StepByStepIsAllAtOnce) {
  std::mt19937 random(4);  // seed 4
  for (int round = 0; round < 50; ++round) {
    SamplingParams params;
    params.frequency_penalty = 0.1f;
    params.repetition_penalty = round % 2 == 0 ? 1.0f : 1.5f;
    params.min_tokens = static_cast<int>(random() % 30);
    params.logit_bias = {{static_cast<TokenId>(random() % kVocab), 3.0f}};
    const int prompt = 1 + static_cast<int>(random() % 40);
    std::vector<TokenId> tokens;
    for (int i = 0; i < prompt; ++i) tokens.push_back(static_cast<TokenId>(random() % kVocab));
    LogitState steps(params, prompt, kEos, kVocab);
    for (int step = 0; step < 40; ++step) {
      LogitState fresh(params, prompt, kEos, kVocab);
      ASSERT_EQ(entries(steps.update(tokens)), entries(fresh.update(tokens))) << round;
      tokens.push_back(static_cast<TokenId>(random() % kVocab));
    }
  }
}

TEST(LogitStates, BeginAnewWithTheNextSequenceOfASlot) {
  LogitStates states(2, {2}, kVocab);
  SamplingParams params;
  EXPECT_EQ(states.update(1, 1, params, 1, {5}), nullptr);
  params.presence_penalty = 1.0f;
  const LogitAdjustment* adjustment = states.update(1, 2, params, 1, {5, 6});
  ASSERT_NE(adjustment, nullptr);
  EXPECT_THAT(entries(*adjustment), ElementsAre(LogitEntry{6, 0, 1}));
  adjustment = states.update(1, 2, params, 1, {5, 6, 6});
  EXPECT_THAT(entries(*adjustment), ElementsAre(LogitEntry{6, 0, 2}));
  adjustment = states.update(1, 3, params, 1, {8, 9});
  EXPECT_THAT(entries(*adjustment), ElementsAre(LogitEntry{9, 0, 1}));
}

TEST(LogitState, ManyTokensAtOnceAreAsOneByOne) {
  SamplingParams params;
  params.repetition_penalty = 1.2f;
  params.presence_penalty = 1.0f;
  params.logit_bias = {{40, 2.0f}, {99, -3.0f}};
  std::mt19937 random(3);
  std::vector<TokenId> tokens(60);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 90);
  LogitState slow(params, 30, kEos, kVocab), fast(params, 30, kEos, kVocab);
  for (std::size_t n = 1; n < tokens.size(); ++n) {
    slow.update(absl::MakeConstSpan(tokens).subspan(0, n));
  }
  EXPECT_EQ(entries(fast.update(tokens)), entries(slow.update(tokens)));
}

}  // namespace
}  // namespace quire
