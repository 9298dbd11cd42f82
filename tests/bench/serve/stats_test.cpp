// The definitions, on made-up samples whose answers are known.
#include "bench/serve/stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

// `tokens` chunks: the first after `ttft_s`, then one every `gap_s`.
Outcome answered(double sent_at_s, double ttft_s, double gap_s, int tokens, int input = 10) {
  Outcome outcome;
  outcome.input_tokens = input;
  outcome.timing.sent_at_s = sent_at_s;
  outcome.timing.ttft_s = ttft_s;
  outcome.timing.chunk_gaps_s.assign(static_cast<std::size_t>(tokens - 1), gap_s);
  outcome.timing.end_s = ttft_s + gap_s * (tokens - 1);
  outcome.timing.output_tokens = tokens;
  return outcome;
}

Outcome refused() {
  Outcome outcome;
  outcome.input_tokens = 1000;
  outcome.error = "HTTP 503: full";
  return outcome;
}

TEST(Percentile, LiesOnTheLineBetweenNeighbours) {
  const std::vector<double> values = {40, 10, 30, 20};
  EXPECT_DOUBLE_EQ(percentile(values, 0), 10);
  EXPECT_DOUBLE_EQ(percentile(values, 0.5), 25);
  EXPECT_DOUBLE_EQ(percentile(values, 0.9), 37);
  EXPECT_DOUBLE_EQ(percentile(values, 1), 40);
  EXPECT_DOUBLE_EQ(percentile({7}, 0.99), 7);
  EXPECT_DOUBLE_EQ(percentile({}, 0.5), 0);
}

TEST(Spread, HasTheDeviationOfTheValuesThemselves) {
  const Spread spread = spread_of({2, 4, 4, 4, 5, 5, 7, 9}, {50, 100});
  EXPECT_DOUBLE_EQ(spread.mean, 5);
  EXPECT_DOUBLE_EQ(spread.median, 4.5);
  EXPECT_DOUBLE_EQ(spread.std, 2);
  EXPECT_THAT(spread.percentiles, ElementsAre(Pair(50, 4.5), Pair(100, 9)));
  EXPECT_DOUBLE_EQ(spread_of({}, {99}).mean, 0);
}

TEST(Tpot, DividesByTheTokensAfterTheFirst) {
  EXPECT_DOUBLE_EQ(tpot_ms(answered(0, 0.5, 0.02, 11).timing), 20);
  EXPECT_DOUBLE_EQ(tpot_ms(answered(0, 0.5, 0, 1).timing), 0);
  Timing pairs = answered(0, 0.1, 0.04, 5).timing;  // 5 chunks that hold 9 tokens
  pairs.output_tokens = 9;
  EXPECT_DOUBLE_EQ(tpot_ms(pairs), 20);
}

TEST(Summary, CountsWhatWasAnsweredOverTheDuration) {
  const Summary s = summarize(
      {answered(100, 0.5, 0.125, 5, 30), answered(100, 1.0, 0.25, 9, 50), refused()}, 4, Goals{});
  EXPECT_EQ(s.completed, 2);
  EXPECT_EQ(s.failed, 1);
  EXPECT_EQ(s.input_tokens, 80);
  EXPECT_EQ(s.output_tokens, 14);
  EXPECT_DOUBLE_EQ(s.request_throughput, 0.5);
  EXPECT_DOUBLE_EQ(s.output_throughput, 3.5);
  EXPECT_DOUBLE_EQ(s.total_throughput, 23.5);
  EXPECT_THAT(s.latencies.ttft, ElementsAre(500, 1000));
  EXPECT_THAT(s.latencies.tpot, ElementsAre(125, 250));
  EXPECT_THAT(s.latencies.e2el, ElementsAre(1000, 3000));
  EXPECT_EQ(s.latencies.itl.size(), 12u) << "a gap between any two chunks, of all requests";
}

TEST(Summary, LeavesAnswersOfOneTokenOutOfTpotOnly) {
  const Summary s = summarize({answered(0, 0.5, 0, 1), answered(0, 0.5, 0.25, 3)}, 1, Goals{});
  EXPECT_THAT(s.latencies.tpot, ElementsAre(250));
  EXPECT_THAT(s.latencies.ttft, ElementsAre(500, 500));
  EXPECT_EQ(s.output_tokens, 4);
}

TEST(Summary, OfNothingIsNothing) {
  const Summary s = summarize({refused(), refused()}, 2, Goals{});
  EXPECT_EQ(s.completed, 0);
  EXPECT_EQ(s.failed, 2);
  EXPECT_THAT(s.latencies.ttft, IsEmpty());
  EXPECT_EQ(s.input_tokens, 0);
  EXPECT_DOUBLE_EQ(s.output_throughput, 0);
}

TEST(Goodput, NeedsEveryGoalMet) {
  const std::vector<Outcome> outcomes = {answered(0, 0.4, 0.020, 11), answered(0, 0.6, 0.020, 11),
                                         answered(0, 0.4, 0.040, 11), refused()};
  Goals goals;
  EXPECT_FALSE(goals.any());
  EXPECT_EQ(summarize(outcomes, 2, goals).good, 3);
  goals.ttft_ms = 500;
  EXPECT_TRUE(goals.any());
  EXPECT_EQ(summarize(outcomes, 2, goals).good, 2);
  goals.tpot_ms = 30;
  EXPECT_EQ(summarize(outcomes, 2, goals).good, 1);
  EXPECT_DOUBLE_EQ(summarize(outcomes, 2, goals).goodput, 0.5);
  goals.e2el_ms = 500;
  EXPECT_EQ(summarize(outcomes, 2, goals).good, 0);
}

TEST(Goodput, CountsOneTokenAsATpotOfZero) {
  Goals goals;
  goals.tpot_ms = 1;
  EXPECT_TRUE(meets(answered(0, 9, 0, 1).timing, goals));
}

TEST(Peaks, CountChunksAndRequestsBySecond) {
  // Chunks at 0.25, 0.5, 0.75, 1.0 and 1.25; and at 1.5, 1.75 and 2.0 of a request from 1.25 on.
  const Summary s =
      summarize({answered(50, 0.25, 0.25, 5), answered(51.25, 0.25, 0.25, 3)}, 3, Goals{});
  EXPECT_DOUBLE_EQ(s.peak_output, 4) << "1.0, 1.25, 1.5 and 1.75";
  EXPECT_EQ(s.peak_concurrent, 2);
  EXPECT_EQ(summarize({answered(50, 0.25, 0.25, 2), answered(55, 0.25, 0.25, 2)}, 6, Goals{})
                .peak_concurrent,
            1);
}

}  // namespace
}  // namespace quire::bench
