// When drafts pay: against the rule spelled out, and over a life of good and bad ones.
#include "coordinator/schedule/draft_gain.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"

namespace quire::test {
namespace {

// One whose guesses are right with this chance, and which knows it.
DraftGain experienced(double acceptance, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::bernoulli_distribution right(acceptance);
  DraftGain gain;
  for (int i = 0; i < 200; ++i) {
    int accepted = 0;
    while (accepted < 4 && right(random)) ++accepted;
    gain.observe(4, accepted);
  }
  return gain;
}

TEST(DraftGain, LearnsHowOftenGuessesAreRight) {
  for (const double acceptance : {0.05, 0.3, 0.6, 0.9}) {
    double sum = 0.0;
    for (unsigned seed = 1; seed <= 50; ++seed) sum += experienced(acceptance, seed).acceptance();
    EXPECT_NEAR(sum / 50, acceptance, 0.07) << acceptance;
  }
  DraftGain always;
  for (int i = 0; i < 1000; ++i) always.observe(4, 4);
  EXPECT_GT(always.acceptance(), 0.95);
  EXPECT_LT(always.acceptance(), 1.0);
}

TEST(DraftGain, GivesTheNumberWithTheMostTokensPerMicrosecond) {
  int none = 0, some = 0, all = 0;
  for (unsigned seed = 1; seed <= 500; ++seed) {
    std::mt19937 random(seed);
    const auto uniform = [&] { return static_cast<double>(random() % 10'000) / 10'000.0; };
    const DraftGain gain = experienced(0.1 + 0.85 * uniform(), seed);
    const int rows = 1 + static_cast<int>(random() % 64);
    const double step_us = 1000.0 + 20'000.0 * uniform();
    const double each_us = 1.0 + step_us / rows * uniform();
    const double p = gain.acceptance();
    int best = 0;
    double best_rate = rows / step_us, gained = 0.0, chance = 1.0;
    for (int k = 1; k <= 8; ++k) {
      gained += chance *= p;
      const double rate = (rows + gained) / (step_us + k * each_us);
      if (rate > best_rate && chance >= 0.1) best_rate = rate, best = k;
    }
    EXPECT_EQ(gain.worthwhile(8, rows, step_us, each_us), best) << "seed " << seed;
    ++(best == 0 ? none : best == 8 ? all : some);
  }
  EXPECT_GT(none, 20);
  EXPECT_GT(some, 20);
  EXPECT_GT(all, 0);
}

TEST(DraftGain, WhatDraftsBringIsWhatTheyGainLessWhatTheirTimeIsWorth) {
  const DraftGain gain = experienced(0.9);
  const double p = gain.acceptance();
  EXPECT_DOUBLE_EQ(gain.net_tokens(2, 8, 4000.0, 100.0), p + p * p - 2 * 100.0 * 8 / 4000.0);
  EXPECT_DOUBLE_EQ(gain.net_tokens(2, 8, 0.0, 0.0), p + p * p) << "costs are not known";
  EXPECT_EQ(gain.net_tokens(0, 8, 4000.0, 100.0), 0.0);
  EXPECT_LT(gain.net_tokens(4, 64, 6400.0, 100.0), 0.0);
}

TEST(DraftGain, AtFullLoadNothingPays) {
  // Every token costs its share of the step, as it does once the machine computes all the time.
  for (const double acceptance : {0.1, 0.5, 0.9, 0.999}) {
    const DraftGain gain = experienced(acceptance);
    for (const int rows : {1, 8, 256}) {
      EXPECT_EQ(gain.worthwhile(8, rows, rows * 100.0, 100.0), 0);
      EXPECT_EQ(gain.worthwhile(8, rows, 500.0 + rows * 100.0, 100.0 + 500.0 / rows), 0);
    }
  }
}

TEST(DraftGain, AStepThatHasRoomTakesThemAll) {
  EXPECT_EQ(experienced(0.9).worthwhile(8, 4, 5000.0, 0.0), 8);
  EXPECT_EQ(experienced(0.9).worthwhile(0, 4, 5000.0, 0.0), 0);
  EXPECT_EQ(experienced(0.9).worthwhile(-1, 4, 5000.0, 0.0), 0);
  EXPECT_EQ(experienced(0.0).worthwhile(8, 4, 5000.0, 0.0), 0);  // free, yet never right
}

TEST(DraftGain, WhileCostsAreUnknownOnlyFewRowsDraft) {
  EXPECT_GT(DraftGain().worthwhile(8, 4, 0.0, 0.0), 0);
  EXPECT_EQ(DraftGain().worthwhile(8, 5, 0.0, 0.0), 0);
  EXPECT_EQ(experienced(0.05).worthwhile(8, 1, 0.0, 0.0), 0);
  EXPECT_LT(DraftGain().worthwhile(8, 1, 0.0, 0.0), experienced(0.95).worthwhile(8, 1, 0.0, 0.0));
}

// Guesses that come true one by one, none of them a draft, count as those that went with a row do.
TEST(DraftGain, AllGuessesCountAlike) {
  DraftGain one_by_one, together;
  for (int i = 0; i < 3; ++i) one_by_one.observe(1, 1);
  one_by_one.observe(1, 0);
  together.observe(8, 3);
  EXPECT_DOUBLE_EQ(one_by_one.acceptance(), together.acceptance());
  one_by_one.observe(0, 0);
  EXPECT_DOUBLE_EQ(one_by_one.acceptance(), together.acceptance()) << "nothing was judged";
}

// A sequence whose guesses are wrong drafts no more, and comes back soon after they are right
// again: it need not try for that.
TEST(DraftGain, ARowThatStoppedComesBackWhenItsGuessesAreRight) {
  DraftGain gain;
  const auto step = [&gain](bool right) {
    const int drafts = gain.worthwhile(4, 8, 10'000.0, 400.0);  // pays from 0.32 on
    const int guesses = std::max(drafts, 1);
    gain.observe(guesses, right ? guesses : 0);
    return drafts;
  };
  ASSERT_GT(step(false), 0);
  int wasted = 0;
  for (int i = 0; i < 2000; ++i) wasted += step(false);
  EXPECT_LE(wasted, 10);
  int steps = 0;
  while (step(true) < 4) ASSERT_LT(++steps, 120);
  EXPECT_GT(steps, 10) << "one that came true by chance is no reason";
}

}  // namespace
}  // namespace quire::test
