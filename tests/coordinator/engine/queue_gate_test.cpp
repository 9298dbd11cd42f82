// The queue's door with a clock of the test's own: limits, what the rates say, deadlines.
#include "coordinator/engine/queue_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire {
namespace {

using ::testing::HasSubstr;

const absl::Time kStart = absl::FromUnixSeconds(1'000'000);

absl::Time at(double seconds) {
  return kStart + absl::Seconds(seconds);
}

TEST(DrainRateTest, IsUnknownUntilAQueueWasSeenForAWhile) {
  DrainRate drain;
  EXPECT_FALSE(drain.requests().has_value());
  drain.observe({.left_requests = 0, .left_tokens = 0, .waiting = 5}, at(0));
  drain.observe({.left_requests = 4, .left_tokens = 400, .waiting = 5}, at(0.4));
  EXPECT_FALSE(drain.requests().has_value());
  drain.observe({.left_requests = 9, .left_tokens = 900, .waiting = 5}, at(1.0));
  ASSERT_TRUE(drain.requests().has_value());
  EXPECT_NEAR(*drain.requests(), 10.0, 0.5);  // the next one counts as leaving
  EXPECT_NEAR(*drain.tokens(), 900.0, 30.0);
}

TEST(DrainRateTest, TimeWithoutAQueueDoesNotCount) {
  DrainRate drain;
  drain.observe({.left_requests = 0, .left_tokens = 0, .waiting = 9}, at(0));
  drain.observe({.left_requests = 20, .left_tokens = 2000, .waiting = 0}, at(2));
  const double busy = *drain.requests();
  // An hour with a request a minute, each served at once.
  for (int i = 1; i <= 60; ++i) {
    const auto left = static_cast<std::uint64_t>(20 + i);
    drain.observe({.left_requests = left, .left_tokens = 100 * left, .waiting = 0}, at(2 + 60 * i));
  }
  EXPECT_EQ(*drain.requests(), busy);
}

TEST(DrainRateTest, FollowsTheLatestSeconds) {
  DrainRate drain(absl::Seconds(10));
  std::uint64_t left = 0;
  for (int i = 0; i <= 100; ++i) {
    drain.observe({.left_requests = left += 10, .left_tokens = left * 7, .waiting = 50}, at(i));
  }
  EXPECT_NEAR(*drain.requests(), 10.0, 0.2);
  for (int i = 101; i <= 150; ++i) {  // five times its memory
    drain.observe({.left_requests = left += 2, .left_tokens = left * 7, .waiting = 50}, at(i));
  }
  EXPECT_NEAR(*drain.requests(), 2.0, 0.3);
  EXPECT_NEAR(*drain.tokens(), 14.0, 1.5);
}

TEST(DrainRateTest, AStandstillIsSlowButNotEndless) {
  DrainRate drain(absl::Seconds(10));
  for (int i = 0; i <= 100; ++i) {
    drain.observe({.left_requests = 0, .left_tokens = 0, .waiting = 1}, at(i));
  }
  EXPECT_GT(*drain.requests(), 0.05);
  EXPECT_LT(*drain.requests(), 0.15);
  EXPECT_FALSE(drain.tokens().has_value());
}

TEST(DrainRateTest, PreemptionAndAnOlderClockAreNoNegativeWork) {
  DrainRate drain;
  drain.observe({.left_requests = 10, .left_tokens = 1000, .waiting = 5}, at(0));
  drain.observe({.left_requests = 8, .left_tokens = 500, .waiting = 7}, at(1));
  drain.observe({.left_requests = 18, .left_tokens = 1500, .waiting = 7}, at(0.5));  // too late
  EXPECT_NEAR(*drain.requests(), 1.0, 1e-9);
}

// Three prompts, which is enough.
void observe(PrefillSpeed& speed, std::int64_t tokens, double seconds, double from = 0) {
  for (int i = 0; i < 3; ++i) speed.observe(tokens, absl::Seconds(seconds), at(from));
}

TEST(PrefillSpeedTest, SpeaksOnlyOfPromptsLikeThoseItSaw) {
  PrefillSpeed speed;
  EXPECT_FALSE(speed.of(1, kStart).has_value());
  observe(speed, 100, 0.05);
  EXPECT_NEAR(*speed.of(100, kStart), 2000, 1);
  EXPECT_NEAR(*speed.of(10, kStart), 2000, 1);
  EXPECT_NEAR(*speed.of(255, kStart), 2000, 1);
  EXPECT_FALSE(speed.of(256, kStart).has_value());
  observe(speed, 4000, 1);
  EXPECT_NEAR(*speed.of(100, kStart), 4000, 1);  // the best of all that are as long
  EXPECT_NEAR(*speed.of(4000, kStart), 4000, 1);
}

TEST(PrefillSpeedTest, TheFastestOfLateCounts) {
  PrefillSpeed speed;
  observe(speed, 1000, 10);  // beside other work
  speed.observe(1000, absl::Milliseconds(100), kStart);
  EXPECT_NEAR(*speed.of(1000, kStart), 10000, 1);
  for (int i = 0; i < 20; ++i) observe(speed, 1000, 1);
  EXPECT_NEAR(*speed.of(1000, kStart), 1000, 50);  // the machine has become slower for good
  speed.observe(1000, absl::ZeroDuration(), kStart);
  EXPECT_GT(*speed.of(1000, kStart), 1e6);
}

TEST(PrefillSpeedTest, OneSlowMomentIsNoSpeedAndOldNewsIsNone) {
  PrefillSpeed speed;
  speed.observe(100, absl::Seconds(5), kStart);
  speed.observe(100, absl::Seconds(5), kStart);
  EXPECT_FALSE(speed.of(100, kStart).has_value());
  speed.observe(100, absl::Seconds(5), at(1));
  EXPECT_TRUE(speed.of(100, at(11)).has_value());
  EXPECT_FALSE(speed.of(100, at(11.1)).has_value()) << "all were refused: someone must be tried";
  speed.observe(100, absl::Seconds(5), at(12));
  EXPECT_FALSE(speed.of(100, at(12)).has_value()) << "it begins anew";
}

// The loop's side, by hand.
class QueueGateTest : public ::testing::Test {
 protected:
  absl::Status enter(QueueGate& gate, std::int64_t tokens = 10,
                     absl::Time deadline = absl::InfiniteFuture(), absl::Time now = kStart) {
    auto entry = gate.enter(loop_, tokens, deadline, now);
    if (entry.ok()) entry_ = *entry;
    return entry.status();
  }
  void take(std::uint64_t requests, std::int64_t tokens) {
    loop_.taken_requests += requests;
    loop_.taken_tokens += static_cast<std::uint64_t>(tokens);
    loop_.waiting += static_cast<int>(requests);
    loop_.waiting_tokens += tokens;
  }
  // A busy second: so much leaves the queue in ten steps.
  void drain(QueueGate& gate, int requests, std::int64_t tokens, double from) {
    for (int i = 0; i <= 10; ++i) {
      LoopQueue then = loop_;
      then.waiting -= requests * i / 10;
      then.waiting_tokens -= tokens * i / 10;
      gate.on_step(then, at(from + 0.1 * i));
    }
    loop_.waiting -= requests;
    loop_.waiting_tokens -= tokens;
  }
  LoopQueue loop_;
  QueueGate::Entry entry_;  // of the last one that was let in
};

TEST_F(QueueGateTest, ABurstBetweenTwoStepsCannotOvershoot) {
  QueueGate gate({.max_requests = 3});
  EXPECT_TRUE(enter(gate).ok());
  EXPECT_TRUE(entry_.at_once);
  EXPECT_TRUE(enter(gate).ok());
  EXPECT_FALSE(entry_.at_once);
  EXPECT_TRUE(enter(gate).ok());
  const absl::Status refused = enter(gate);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("3 requests wait, and at most 3 may"));
  take(3, 30);  // seen by the loop: they still wait
  EXPECT_FALSE(enter(gate).ok());
  loop_.waiting = 1;  // two run
  EXPECT_TRUE(enter(gate).ok());
  EXPECT_TRUE(enter(gate).ok());
  EXPECT_FALSE(enter(gate).ok());
  EXPECT_EQ(gate.refusals().requests, 3u);
  EXPECT_EQ(gate.refusals().tokens + gate.refusals().deadline, 0u);
}

TEST_F(QueueGateTest, TokensAreLimitedToo) {
  QueueGate gate({.max_tokens = 100});
  EXPECT_TRUE(enter(gate, 500).ok()) << "alone in the queue it can always wait";
  const absl::Status refused = enter(gate, 1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  for (const char* part : {"500 tokens wait", "the 1 of this one", "exceed 100"}) {
    EXPECT_THAT(std::string(refused.message()), HasSubstr(part));
  }
  take(1, 500);
  loop_.waiting = 0;
  loop_.waiting_tokens = 0;
  EXPECT_TRUE(enter(gate, 60).ok());
  EXPECT_TRUE(enter(gate, 40).ok());
  EXPECT_FALSE(enter(gate, 1).ok());
  EXPECT_EQ(gate.refusals().tokens, 2u);
}

TEST_F(QueueGateTest, ZeroIsNoLimit) {
  QueueGate gate({});
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(enter(gate, 1 << 20).ok());
}

TEST_F(QueueGateTest, RetryAfterIsWhatHalfTheQueueTakes) {
  QueueGate gate({.max_requests = 1000});
  EXPECT_EQ(gate.retry_after(loop_), absl::Seconds(1));  // nothing is known
  for (int i = 0; i < 500; ++i) ASSERT_TRUE(enter(gate, 100).ok());
  take(500, 50000);
  drain(gate, 10, 1000, 0);  // 490 wait, ten leave in a second
  const absl::Duration wait = gate.retry_after(loop_);
  EXPECT_GE(wait, absl::Seconds(20));
  EXPECT_LE(wait, absl::Seconds(25));
  loop_.waiting = 2;
  loop_.waiting_tokens = 200;
  EXPECT_EQ(gate.retry_after(loop_), absl::Seconds(1));
  loop_.waiting = 100000;
  EXPECT_EQ(gate.retry_after(loop_), absl::Seconds(600));
}

TEST_F(QueueGateTest, ADeadlineThatHasPassedIsRefused) {
  QueueGate gate({});
  const absl::Status refused = enter(gate, 10, at(-0.25), kStart);
  EXPECT_EQ(refused.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("passed 0.250 s before"));
  EXPECT_FALSE(enter(gate, 10, kStart, kStart).ok());
  EXPECT_TRUE(enter(gate, 10, at(0.001), kStart).ok());
  EXPECT_FALSE(entry_.is_doubtful) << "without estimates everything is tried";
  EXPECT_EQ(gate.refusals().deadline, 2u);
}

TEST_F(QueueGateTest, ADeadlineIsInDoubtBelowTheSpeedsThatWereSeen) {
  QueueGate gate({});
  for (int i = 0; i < 3; ++i) gate.on_first_token(1000, at(-1), kStart);
  ASSERT_TRUE(enter(gate, 1500, at(1.6)).ok());
  EXPECT_FALSE(entry_.is_doubtful);
  ASSERT_TRUE(enter(gate, 1500, at(1.4)).ok()) << "the loop decides";
  EXPECT_TRUE(entry_.is_doubtful);
  EXPECT_NEAR(entry_.speeds.prompt_tokens, 1000, 1);
  ASSERT_TRUE(enter(gate, 5000, at(0.1)).ok());
  EXPECT_FALSE(entry_.is_doubtful) << "nothing is known of prompts so long";
  ASSERT_TRUE(enter(gate, 1500, absl::InfiniteFuture()).ok());
  EXPECT_FALSE(entry_.is_doubtful);
}

TEST_F(QueueGateTest, ADeadlineIsInDoubtBelowWhatStepsMayTake) {
  QueueGate gate({.max_batched_tokens = 512});
  loop_.full_step_us = 100'000;
  ASSERT_TRUE(enter(gate, 1024, at(0.21)).ok());
  EXPECT_FALSE(entry_.is_doubtful);
  for (const std::int64_t tokens : {1024, 1025, 100'000}) {
    ASSERT_TRUE(enter(gate, tokens, at(0.19)).ok());
    EXPECT_TRUE(entry_.is_doubtful) << tokens;
  }
  EXPECT_FALSE(enter(gate, 10, at(-0.1)).ok()) << "no doubt about that";
}

TEST_F(QueueGateTest, ADeadlineIsInDoubtBehindALongQueue) {
  QueueGate gate({});
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(enter(gate, 300).ok());
  take(1000, 300000);
  drain(gate, 10, 1000, 0);  // 299000 tokens wait, at 1000 a second
  ASSERT_TRUE(enter(gate, 10, at(1 + 310), at(1)).ok());
  EXPECT_FALSE(entry_.is_doubtful);
  ASSERT_TRUE(enter(gate, 10, at(1 + 290), at(1)).ok());
  EXPECT_TRUE(entry_.is_doubtful);
  EXPECT_NEAR(entry_.speeds.queue_tokens, 1000, 50);
}

TEST_F(QueueGateTest, WhoIsTurnedAwayLeavesItsPlace) {
  QueueGate gate({.max_requests = 1, .max_tokens = 100});
  ASSERT_TRUE(enter(gate, 100).ok());
  EXPECT_FALSE(enter(gate, 1).ok());
  gate.turn_away(100);
  EXPECT_EQ(gate.refusals().deadline, 1u);
  EXPECT_TRUE(enter(gate, 100).ok());
}

TEST(CheckDeadlineTest, ARefusalNamesWhatIsKnownAndNothingElse) {
  DeadlineNeeds needs{
      .left_s = 1.5, .tokens_before = 700, .queue_s = 1.0, .missing_tokens = 40, .prompt_s = 0.4};
  EXPECT_TRUE(check_deadline(needs).ok());
  needs.prompt_s = 0.6;
  const absl::Status both = check_deadline(needs);
  EXPECT_EQ(both.code(), absl::StatusCode::kDeadlineExceeded);
  for (const char* part : {"in 1.500 s", "prompts of 700 tokens wait before it, for 1.000 s",
                           "the 40 tokens of its prompt that are not cached take 0.600 s"}) {
    EXPECT_THAT(std::string(both.message()), HasSubstr(part));
  }
  needs.queue_s = 0;
  EXPECT_TRUE(check_deadline(needs).ok()) << "what is not known is not held against it";
  needs.left_s = 0.5;
  const std::string prompt(check_deadline(needs).message());
  EXPECT_THAT(prompt, HasSubstr("0.600 s at least"));
  EXPECT_THAT(prompt, testing::Not(HasSubstr("0.000 s"))) << "no estimate of a queue";
  EXPECT_THAT(prompt, testing::Not(HasSubstr("wait before it")));
}

}  // namespace
}  // namespace quire
