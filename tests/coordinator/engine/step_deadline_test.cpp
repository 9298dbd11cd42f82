// How long which step may take.
#include "coordinator/engine/step_deadline.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

constexpr absl::Duration kLongest = absl::Seconds(60);

// Past the first steps of a group.
StepDeadline settled(absl::Duration longest = kLongest) {
  StepDeadline deadline(longest, absl::ZeroDuration());
  for (int i = 0; i < 20; ++i) deadline.observe({1000, true}, absl::Milliseconds(1));
  return deadline;
}

TEST(StepDeadline, IsTwentyTimesWhatSuchStepsTakeAndAtLeastTwoSeconds) {
  EXPECT_EQ(settled().of({1000, true}), absl::Seconds(2));
  EXPECT_EQ(settled().of({500e3, true}), absl::Seconds(10));
  EXPECT_EQ(settled().of({100e6, true}), kLongest);
}

TEST(StepDeadline, IsLongWhereLittleIsKnown) {
  EXPECT_EQ(settled().of({0, false}), kLongest);
  EXPECT_EQ(settled().of({1000, false}), absl::Seconds(10));
  EXPECT_EQ(settled().of({200e3, false}), absl::Seconds(20));
}

TEST(StepDeadline, TheFirstStepsOfAGroupHaveMoreTime) {
  StepDeadline deadline = settled();
  deadline.begin_group();
  EXPECT_EQ(deadline.of({1000, true}), absl::Seconds(10));
  for (int i = 0; i < 8; ++i) deadline.observe({1000, true}, absl::Milliseconds(1));
  EXPECT_EQ(deadline.of({1000, true}), absl::Seconds(2));
}

TEST(StepDeadline, ASlowHostGetsMoreForAWhile) {
  StepDeadline deadline = settled();
  deadline.observe({500e3, true}, absl::Seconds(2));  // four times what was foretold
  EXPECT_EQ(deadline.of({500e3, true}), absl::Seconds(40));
  deadline.observe({500e3, true}, absl::Seconds(50));
  EXPECT_EQ(deadline.of({250e3, true}), absl::Seconds(50)) << "ten times at most";
  for (int i = 0; i < 5000; ++i) deadline.observe({500e3, true}, absl::Milliseconds(500));
  EXPECT_EQ(deadline.of({500e3, true}), absl::Seconds(10));
}

TEST(StepDeadline, AFixedOneHoldsForAll) {
  StepDeadline deadline(kLongest, absl::Milliseconds(50));
  EXPECT_EQ(deadline.of({0, false}), absl::Milliseconds(50));
  EXPECT_EQ(deadline.of({100e6, true}), absl::Milliseconds(50));
}

}  // namespace
}  // namespace quire
