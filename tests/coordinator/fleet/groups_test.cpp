// Who waits, who takes the seat, and which number its epoch has.
#include "coordinator/fleet/groups.h"

#include "tests/coordinator/fleet/groups_fixture.h"

namespace quire::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(GroupTest, WelcomesOnlyWhenEveryRankHasPresentedItself) {
  EXPECT_THAT(group_.hello(7, hello(1), now_), IsEmpty());
  EXPECT_EQ(epoch(), 0u);
  EXPECT_THAT(group_.describe(), HasSubstr("1 of 2 ranks of A wait"));

  const GroupActions actions = group_.hello(8, hello(0), now_);
  const auto welcome = only<action::Welcome>(actions);
  ASSERT_THAT(welcome, SizeIs(1));
  EXPECT_THAT(welcome[0].links, ElementsAre(8, 7));  // by rank
  EXPECT_EQ(welcome[0].epoch, 1u);
  EXPECT_EQ(welcome[0].num_blocks, 40);  // the smaller of 50 and 40
  EXPECT_FALSE(group_.seat(0).ready());
}

TEST_F(GroupTest, RefusesADuplicateRankOfAnotherProcess) {
  group_.hello(1, hello(0), now_);
  RankHello twin = hello(0);
  twin.pid = 1;
  auto refused = only<action::Refuse>(group_.hello(2, twin, now_));
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_EQ(refused[0].link, 2u);
  EXPECT_THAT(refused[0].reason, HasSubstr("presented the same rank"));

  // Also once the epoch lives, and the epoch goes on.
  group_.hello(3, hello(1), now_);
  ASSERT_EQ(epoch(), 1u);
  refused = only<action::Refuse>(group_.hello(4, twin, now_));
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_THAT(refused[0].reason, HasSubstr("attached already"));
  EXPECT_EQ(epoch(), 1u);
}

TEST_F(GroupTest, AReattachingProcessReplacesItsOldStream) {
  group_.hello(1, hello(0), now_);
  const auto closed = only<action::Close>(group_.hello(2, hello(0), now_));
  ASSERT_THAT(closed, SizeIs(1));
  EXPECT_THAT(closed[0].links, ElementsAre(1));
  EXPECT_THAT(group_.gone(1, "ended", now_), IsEmpty());
  const auto welcome = only<action::Welcome>(group_.hello(3, hello(1), now_));
  ASSERT_THAT(welcome, SizeIs(1));
  EXPECT_THAT(welcome[0].links, ElementsAre(2, 3));
}

TEST_F(GroupTest, AStandbyTakesOverAfterALoss) {
  make_ready(1);
  EXPECT_THAT(group_.hello(11, hello(0, "B"), now_), IsEmpty());
  EXPECT_THAT(group_.hello(12, hello(1, "B"), now_), IsEmpty());
  EXPECT_EQ(epoch(), 1u);

  const GroupActions out = group_.gone(2, "its stream ended", now_);
  const auto closed = only<action::Close>(out);
  ASSERT_THAT(closed, SizeIs(1));
  EXPECT_THAT(closed[0].links, ElementsAre(1, 2));
  const auto lost = only<action::Lost>(out);
  ASSERT_THAT(lost, SizeIs(1));
  EXPECT_THAT(lost[0].why, HasSubstr("rank 1 on host0"));
  const auto welcome = only<action::Welcome>(out);
  ASSERT_THAT(welcome, SizeIs(1));
  EXPECT_EQ(welcome[0].epoch, 2u);
  EXPECT_THAT(welcome[0].links, ElementsAre(11, 12));
  mirror_ = {};
  mirror_.take(out);
  EXPECT_THAT(only<action::Ready>(prove(11)), SizeIs(1));
  // What the old group still says changes nothing.
  EXPECT_THAT(group_.heartbeat(1, 1, 2, 5, now_), IsEmpty());
  EXPECT_THAT(group_.result(1, answer(3), now_), IsEmpty());
  EXPECT_THAT(group_.gone(1, "ended", now_), IsEmpty());
  EXPECT_TRUE(group_.seat(0).ready());
}

TEST_F(GroupTest, AGroupThatLostItsEpochMayAttachAgain) {
  make_ready(1);
  group_.gone(1, "its connection was lost", now_);
  EXPECT_EQ(epoch(), 0u);
  EXPECT_THAT(only<action::Ready>(make_ready(3)), SizeIs(1));
  EXPECT_EQ(epoch(), 2u);
}

TEST_F(GroupTest, AGroupThatFailsItsFirstStepsIsNotTriedAgain) {
  group_.hello(1, hello(0), now_);
  group_.hello(2, hello(1), now_);
  const GroupActions out = group_.worker_error(2, 1, "out of memory", now_);
  EXPECT_THAT(only<action::Lost>(out), IsEmpty());  // the engine never heard of this epoch
  EXPECT_THAT(only<action::Close>(out)[0].why, HasSubstr("out of memory"));
  const auto refused = only<action::Refuse>(group_.hello(3, hello(0), now_));
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_THAT(refused[0].reason, HasSubstr("failed its first steps"));
  EXPECT_THAT(only<action::Ready>(make_ready(5, "B")), SizeIs(1));
}

// The coordinator has died, and one rank hangs too fast to dial again.
TEST_F(GroupTest, AnInstanceThatDoesNotComeBackWholeIsGivenUp) {
  RankHello back = hello(0);
  back.last_epoch = 7;
  EXPECT_THAT(group_.hello(1, back, now_), IsEmpty());
  now_ += absl::Seconds(15);
  EXPECT_THAT(group_.tick(now_), IsEmpty());
  now_ += absl::Seconds(1);
  const GroupActions out = group_.tick(now_);
  const auto refused = only<action::Refuse>(out);
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_EQ(refused[0].link, 1u);
  EXPECT_THAT(refused[0].reason, HasSubstr("only 1 of 2 ranks came back"));
  const auto ended = only<action::Ended>(out);
  ASSERT_THAT(ended, SizeIs(1));
  EXPECT_EQ(ended[0].instance, "A");
  EXPECT_EQ(ended[0].epoch, 7u);
  EXPECT_THAT(group_.tick(now_), IsEmpty());
}

TEST_F(GroupTest, ANewInstanceMayTakeItsTime) {
  group_.hello(1, hello(0), now_);
  now_ += absl::Minutes(10);
  EXPECT_THAT(group_.tick(now_), IsEmpty());
  EXPECT_THAT(only<action::Welcome>(group_.hello(2, hello(1), now_)), SizeIs(1));
}

TEST_F(GroupTest, TheEngineMayEndTheEpoch) {
  make_ready(1);
  EXPECT_THAT(
      only<action::Lost>(group_.end_epoch(epoch(), EndCause::kStepDeadline, "because", now_)),
      SizeIs(1));
  EXPECT_THAT(group_.end_epoch(epoch(), EndCause::kStepDeadline, "again", now_), IsEmpty());
}

TEST_F(GroupTest, EpochsBeginAboveThoseOfAnEarlierCoordinator) {
  GroupRules known = rules();
  known.last_epoch = 41;
  group_ = Groups(known);
  make_ready(1);
  EXPECT_EQ(epoch(), 42u);
}

TEST_F(GroupTest, EpochsBeginAboveThoseThatRanksWereIn) {
  RankHello stayed = hello(0);
  RankHello newer = hello(1);
  stayed.last_epoch = 6;
  newer.last_epoch = 7;  // its stream was the last to break
  group_.hello(1, stayed, now_);
  group_.hello(2, newer, now_);
  EXPECT_EQ(epoch(), 8u);
  group_.end_epoch(epoch(), EndCause::kStepDeadline, "because", now_);
  group_.hello(3, hello(0, "B"), now_);
  group_.hello(4, hello(1, "B"), now_);
  EXPECT_EQ(epoch(), 9u);
}

// Whoever keeps the processes must hear of it, also of a group that never became ready.
TEST_F(GroupTest, EveryEndedEpochIsNamedWithItsInstanceAndCause) {
  group_.hello(1, hello(0), now_);
  group_.hello(2, hello(1), now_);
  auto ended = only<action::Ended>(group_.tick(now_ + absl::Minutes(1)));
  ASSERT_THAT(ended, SizeIs(1));
  EXPECT_EQ(ended[0].instance, "A");
  EXPECT_EQ(ended[0].cause, EndCause::kRankSilent);
  now_ += absl::Minutes(1);
  make_ready(3, "B");
  const EpochId second = epoch();
  ended = only<action::Ended>(group_.gone(4, "its stream ended", now_));
  ASSERT_THAT(ended, SizeIs(1));
  EXPECT_EQ(ended[0].instance, "B");
  EXPECT_EQ(ended[0].epoch, second);
  EXPECT_EQ(ended[0].cause, EndCause::kRankGone);
}

}  // namespace
}  // namespace quire::test
