// Loads are a pure function of their seeds.
#include "bench/serve/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "bench/serve/stats.h"

namespace quire::bench {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

std::vector<TokenId> counting(int n) {
  std::vector<TokenId> ids(static_cast<std::size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

std::pair<std::size_t, int> totals(const std::vector<Call>& calls) {
  std::size_t input = 0;
  int output = 0;
  for (const Call& call : calls) {
    input += call.prompt.size();
    output += call.max_tokens;
  }
  return {input, output};
}

TEST(Load, OfTheResultsHasTheLengthsTheyName) {
  EXPECT_EQ(totals(make_load({}, counting(1000))), std::make_pair(std::size_t{3816}, 6588));
}

TEST(Load, OfMoreRequestsBeginsWithThatOfFewer) {
  LoadOptions options;
  const std::vector<Call> few = make_load(options, counting(1000));
  options.requests = 64;
  const std::vector<Call> many = make_load(options, counting(1000));
  ASSERT_EQ(many.size(), 64u);
  for (std::size_t i = 0; i < few.size(); ++i) {
    EXPECT_EQ(many[i].prompt, few[i].prompt);
    EXPECT_EQ(many[i].max_tokens, few[i].max_tokens);
  }
}

TEST(Load, LengthsStayInTheirClips) {
  LoadOptions options;
  options.requests = 3000;
  const std::vector<Call> calls = make_load(options, counting(5000));
  std::size_t shortest = 1 << 20, longest = 0;
  for (const Call& call : calls) {
    shortest = std::min(shortest, call.prompt.size());
    longest = std::max(longest, call.prompt.size());
    EXPECT_GE(call.max_tokens, 8);
    EXPECT_LE(call.max_tokens, 512);
  }
  EXPECT_EQ(shortest, 8u);
  EXPECT_EQ(longest, 1024u);
}

TEST(Load, AnotherPromptSeedChangesPromptsAndNoLength) {
  LoadOptions options;
  const std::vector<Call> one = make_load(options, counting(100000));
  options.prompt_seed = 7;
  const std::vector<Call> other = make_load(options, counting(100000));
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].prompt.size(), other[i].prompt.size());
    EXPECT_EQ(one[i].max_tokens, other[i].max_tokens);
    EXPECT_NE(one[i].prompt.front(), other[i].prompt.front());
  }
}

TEST(Load, PromptsRunThroughTheTextAsARing) {
  LoadOptions options;
  options.requests = 5;
  options.input.fixed = 25;
  options.output.fixed = 3;
  for (const Call& call : make_load(options, counting(10))) {
    ASSERT_EQ(call.prompt.size(), 25u);
    EXPECT_EQ(call.max_tokens, 3);
    for (std::size_t i = 1; i < 25; ++i) EXPECT_EQ(call.prompt[i], (call.prompt[i - 1] + 1) % 10);
  }
}

TEST(Load, RangeSpreadsFixedLengthsToBothSides) {
  LoadOptions options;
  options.requests = 500;
  options.input.fixed = 100;
  options.input.range = 0.5;
  options.output.fixed = 40;
  std::size_t shortest = 1000, longest = 0;
  for (const Call& call : make_load(options, counting(5000))) {
    shortest = std::min(shortest, call.prompt.size());
    longest = std::max(longest, call.prompt.size());
    EXPECT_EQ(call.max_tokens, 40);
  }
  EXPECT_GE(shortest, 50u);
  EXPECT_LT(shortest, 60u);
  EXPECT_LE(longest, 150u);
  EXPECT_GT(longest, 140u);
}

TEST(Load, CommonPrefixComesBeforeEachPromptsOwn) {
  LoadOptions options;
  options.requests = 8;
  options.input.fixed = 10;
  options.common_prefix = 20;
  const std::vector<Call> calls = make_load(options, counting(5000));
  for (const Call& call : calls) {
    ASSERT_EQ(call.prompt.size(), 30u);
    EXPECT_TRUE(std::equal(call.prompt.begin(), call.prompt.begin() + 20, calls[0].prompt.begin()));
  }
  EXPECT_NE(calls[0].prompt[20], calls[1].prompt[20]);
}

TEST(RandomTokens, LieInTheVocabularyAndLeaveOutItsFirstThree) {
  const std::vector<TokenId> ids = random_tokens(50, 1, nullptr);
  EXPECT_EQ(*std::min_element(ids.begin(), ids.end()), 3);
  EXPECT_EQ(*std::max_element(ids.begin(), ids.end()), 49);
  EXPECT_EQ(ids, random_tokens(50, 1, nullptr));
  EXPECT_NE(ids, random_tokens(50, 2, nullptr));
}

TEST(Arrivals, AreAllAtOnceWithoutARate) {
  EXPECT_THAT(arrivals(5, std::numeric_limits<double>::infinity(), 1, 3), Each(0.0));
  EXPECT_THAT(arrivals(0, 2, 1, 3), ElementsAre());
}

// Mean and deviation of the gaps between `times`.
Spread gaps_of(const std::vector<double>& times) {
  std::vector<double> gaps = {times[0]};
  for (std::size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
  return spread_of(gaps, {});
}

TEST(Arrivals, TakeExactlyRequestsOverRate) {
  for (const double burstiness : {0.2, 1.0, 50.0}) {
    const std::vector<double> times = arrivals(400, 8, burstiness, 11);
    ASSERT_EQ(times.size(), 400u);
    EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
    EXPECT_GT(times.front(), 0);
    EXPECT_NEAR(times.back(), 50, 1e-9);
  }
}

TEST(Arrivals, SpreadAsTheirBurstinessSays) {
  // Of gamma gaps with shape b, deviation / mean is 1 / sqrt(b).
  for (const double burstiness : {0.25, 1.0, 16.0}) {
    const Spread gaps = gaps_of(arrivals(20000, 5, burstiness, 17));
    EXPECT_NEAR(gaps.std / gaps.mean, 1 / std::sqrt(burstiness), 0.1 / std::sqrt(burstiness));
  }
}

}  // namespace
}  // namespace quire::bench
