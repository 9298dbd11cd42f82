// Where one newcomer goes, given what groups say of themselves.
#include "coordinator/engine/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire {
namespace {

using testing::Optional;

using Cached = Scheduler::Cached;

class PlacementTest : public testing::Test {
 protected:
  static constexpr int kBudget = 100;

  Placement::Lane lane(int num_streams = 0, std::int64_t prompt_tokens = 0) {
    Placement::Lane lane;
    lane.open = true;
    lane.total_blocks = 100;
    lane.costs = &unknown_;
    lane.load.idle = num_streams == 0 && prompt_tokens == 0;
    lane.load.free_seqs = 8;
    lane.load.free_blocks = 50;
    lane.load.prompt_tokens = prompt_tokens;
    for (int i = 0; i < num_streams; ++i) lane.load.streams.add_row(20, 1);
    return lane;
  }
  static Newcomer newcomer(int num_tokens, int blocks = 2) {
    return {.num_tokens = num_tokens,
            .num_answer = 30,
            .num_seqs = 1,
            .blocks_to_begin = blocks,
            .blocks_at_end = blocks + 2};
  }
  // What steps of a machine cost that takes so long for each token.
  static StepCostModel costs(double us_per_token) {
    StepCostModel model;
    for (int round = 0; round < 40; ++round) {
      for (const int tokens : {1, 2, 8, 33, 64}) {
        StepWork work;
        work.add_row(10.0 * (round % 7), tokens);
        work.num_samples = 1;
        model.observe(work, 500.0 + us_per_token * tokens);
      }
    }
    EXPECT_TRUE(model.known());
    return model;
  }

  const StepCostModel unknown_;
  const std::vector<Cached> nothing_ = {{}, {}, {}};
};

TEST_F(PlacementTest, OfEqualGroupsTheFirstAndThenTheOther) {
  Placement placement({lane(), lane()}, kBudget);
  EXPECT_THAT(placement.place(newcomer(20), nothing_), Optional(0));
  EXPECT_THAT(placement.place(newcomer(20), nothing_), Optional(1));
  EXPECT_THAT(placement.place(newcomer(10), nothing_), Optional(0));
}

TEST_F(PlacementTest, WhereLessIsToBeDone) {
  EXPECT_THAT(Placement({lane(5), lane(2)}, kBudget).place(newcomer(20), nothing_), Optional(1));
  EXPECT_THAT(Placement({lane(2, 30), lane(2, 90)}, kBudget).place(newcomer(20), nothing_),
              Optional(0));
}

TEST_F(PlacementTest, WhereItsPromptIsUnlessThatGroupHasMuchMoreToDo) {
  const std::vector<Cached> here = {{}, {.num_tokens = 80, .num_blocks = 0}};
  EXPECT_THAT(Placement({lane(), lane(2)}, kBudget).place(newcomer(90), here), Optional(1));
  EXPECT_THAT(Placement({lane(), lane(6)}, kBudget).place(newcomer(90), here), Optional(0));
}

TEST_F(PlacementTest, TheFasterGroupGetsMore) {
  const StepCostModel slow = costs(300), fast = costs(100);
  std::vector<Placement::Lane> lanes = {lane(), lane()};
  lanes[0].costs = &slow;
  lanes[1].costs = &fast;
  Placement placement(lanes, 10000);
  std::vector<int> got(2, 0);
  for (int i = 0; i < 8; ++i) {
    const auto at = placement.place(newcomer(200, 1), nothing_);
    ASSERT_TRUE(at.has_value());
    ++got[static_cast<std::size_t>(*at)];
  }
  EXPECT_GE(got[1], 5);
  EXPECT_GE(got[0], 1) << "it is not left idle";
}

TEST_F(PlacementTest, NobodyTakesMoreThanAStepsWorthBeforeItsTurn) {
  Placement placement({lane(), lane()}, kBudget);
  EXPECT_THAT(placement.place(newcomer(150), nothing_), Optional(0));
  EXPECT_THAT(placement.place(newcomer(150), nothing_), Optional(1));
  EXPECT_FALSE(placement.has_turns());
  EXPECT_EQ(placement.place(newcomer(5), nothing_), std::nullopt);
}

TEST_F(PlacementTest, WhoWaitsForAGroupsTurnKeepsItsPlaceThere) {
  std::vector<Placement::Lane> lanes = {lane(1), lane(1)};
  lanes[0].load.waiting_tokens = lanes[0].load.prompt_tokens = 120;  // no turn now
  Placement placement(lanes, kBudget);
  const std::vector<Cached> here = {{.num_tokens = 900, .num_blocks = 2}, {}};
  EXPECT_EQ(placement.place(newcomer(1000), here), std::nullopt) << "sooner there than elsewhere";
  EXPECT_THAT(placement.place(newcomer(20), nothing_), Optional(1)) << "who is behind it may go";
}

TEST_F(PlacementTest, OneThatFindsNoRoomHoldsBackWhoIsBehindIt) {
  std::vector<Placement::Lane> lanes = {lane(1), lane(1)};
  lanes[0].load.free_blocks = lanes[1].load.free_blocks = 5;
  Placement placement(lanes, kBudget);
  EXPECT_EQ(placement.place(newcomer(20, 6), nothing_), std::nullopt);
  EXPECT_EQ(placement.place(newcomer(20, 1), nothing_), std::nullopt)
      << "it would take the blocks that the first one waits for";
}

TEST_F(PlacementTest, BlocksThatOthersHoldTakeNoRoom) {
  std::vector<Placement::Lane> lanes = {lane(1), lane(1)};
  lanes[0].load.free_blocks = lanes[1].load.free_blocks = 5;
  Placement placement(lanes, kBudget);
  EXPECT_THAT(placement.place(newcomer(20, 9), std::vector<Cached>{{}, {8, 4}}), Optional(1));
}

TEST_F(PlacementTest, GroupsMayDifferInWhatTheyCanHold) {
  std::vector<Placement::Lane> lanes = {lane(1), lane(1)};
  lanes[0].total_blocks = 10;
  lanes[1].load.free_seqs = 0;
  Placement placement(lanes, kBudget);
  EXPECT_EQ(placement.place(newcomer(200, 20), nothing_), std::nullopt);
  EXPECT_THAT(placement.place(newcomer(20, 2), nothing_), Optional(0))
      << "the large one waits for the other group only";
}

TEST_F(PlacementTest, AnIdleGroupTakesWhateverItCanHold) {
  std::vector<Placement::Lane> lanes = {lane()};
  lanes[0].load.free_blocks = 99;  // less the watermark
  EXPECT_THAT(Placement(lanes, kBudget).place(newcomer(1600, 98), nothing_), Optional(0));
  Placement alone(lanes, kBudget);
  EXPECT_EQ(alone.place(newcomer(1600, 99), nothing_), std::nullopt) << "101 at its end";
}

TEST_F(PlacementTest, AGroupThatIsKeptForOneTakesNobodyElse) {
  std::vector<Placement::Lane> lanes = {lane(3), lane(1)};
  lanes[1].load.free_seqs = 0;  // those that run there give way
  Placement placement(lanes, kBudget);
  EXPECT_THAT(placement.place_alone(newcomer(20), nothing_), Optional(1));
  EXPECT_THAT(placement.place(newcomer(20), nothing_), Optional(0));
  EXPECT_THAT(placement.place_alone(newcomer(20), nothing_), Optional(0));
  EXPECT_EQ(placement.place_alone(newcomer(20), nothing_), std::nullopt);
}

TEST_F(PlacementTest, AGroupThatIsNotThereGetsNothing) {
  std::vector<Placement::Lane> lanes = {lane(), lane(7)};
  lanes[0].open = false;
  Placement placement(lanes, kBudget);
  EXPECT_THAT(placement.place(newcomer(20), nothing_), Optional(1));
}

}  // namespace
}  // namespace quire
