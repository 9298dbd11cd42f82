// The id of a group's collective: who makes it, who gets it, and when.
#include "coordinator/fleet/group.h"
#include "tests/coordinator/fleet/groups_fixture.h"

namespace quire::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class CollectiveGroupTest : public GroupTest {
 protected:
  RankHello over(const std::string& collective, int rank, const std::string& instance = "A") {
    RankHello h = hello(rank, instance);
    h.collective = collective;
    return h;
  }
  GroupActions welcome_both() {
    group_.hello(1, over("nccl", 0), now_);
    GroupActions out = group_.hello(2, over("nccl", 1), now_);
    mirror_.take(out);
    return out;
  }
};

TEST_F(CollectiveGroupTest, TheIdGoesToEveryRankBeforeTheFirstStep) {
  const GroupActions welcomed = welcome_both();
  ASSERT_THAT(only<action::Welcome>(welcomed), SizeIs(1));
  EXPECT_THAT(only<action::Broadcast>(welcomed), IsEmpty());
  const std::string id("any\0bytes", 9);
  const GroupActions out = group_.collective_id(1, epoch(), id, now_);
  ASSERT_EQ(out.size(), 2u);
  const auto& relay = std::get<action::Relay>(out[0]);
  EXPECT_THAT(relay.links, ElementsAre(1, 2));
  EXPECT_EQ(relay.epoch, 1u);
  EXPECT_EQ(relay.id, id);
  ASSERT_TRUE(std::holds_alternative<action::Broadcast>(out[1]));
  mirror_.take(out);
  EXPECT_THAT(only<action::Ready>(prove(1)), SizeIs(1));
}

TEST_F(CollectiveGroupTest, EveryEpochNeedsAnIdOfItsOwn) {
  welcome_both();
  mirror_.take(group_.collective_id(1, 1, "first", now_));
  prove(1);
  ASSERT_TRUE(group_.seat(0).ready());
  group_.hello(3, over("nccl", 0, "B"), now_);
  group_.hello(4, over("nccl", 1, "B"), now_);
  GroupActions out = group_.gone(2, "its stream ended", now_);
  EXPECT_THAT(only<action::Welcome>(out), SizeIs(1));
  EXPECT_THAT(only<action::Broadcast>(out), IsEmpty());
  // The old epoch's rank 0, and the new one's naming the old epoch.
  EXPECT_THAT(group_.collective_id(1, 1, "late", now_), IsEmpty());
  EXPECT_THAT(group_.collective_id(3, 1, "late", now_), IsEmpty());
  EXPECT_EQ(group_.stale_dropped(), 2u);
  out = group_.collective_id(3, 2, "second", now_);
  ASSERT_THAT(only<action::Relay>(out), SizeIs(1));
  EXPECT_THAT(only<action::Relay>(out)[0].links, ElementsAre(3, 4));
}

TEST_F(CollectiveGroupTest, AnIdThatDoesNotComeEndsTheEpoch) {
  welcome_both();
  const auto beat = [&] {
    for (const LinkId link : {1, 2}) group_.heartbeat(link, 1, 0, mirror_.digest, now_);
    return group_.tick(now_);
  };
  for (int i = 0; i < 10; ++i) {
    now_ += absl::Seconds(3);
    ASSERT_THAT(beat(), IsEmpty());
  }
  now_ += absl::Seconds(1);
  const auto closed = only<action::Close>(beat());
  ASSERT_THAT(closed, SizeIs(1));
  EXPECT_THAT(closed[0].links, ElementsAre(1, 2));
  EXPECT_THAT(closed[0].why, HasSubstr("rank 0 on host0 made no id for the group's collective"));
  EXPECT_EQ(epoch(), 0u);
  // The instance is not tried again.
  EXPECT_THAT(only<action::Refuse>(group_.hello(5, over("nccl", 0), now_)), SizeIs(1));
}

TEST_F(CollectiveGroupTest, OnlyRankZeroSendsItAndOnce) {
  struct Case {
    LinkId link;
    std::string id;
    int before;  // good ids sent first
    const char* says;
  };
  const Case cases[] = {{2, "x", 0, "rank 0 makes"},
                        {1, "x", 1, "was not asked for"},
                        {1, "", 0, "an id of 0 bytes"},
                        {1, std::string(wire::kMaxCollectiveIdBytes + 1, 'x'), 0, "4097 bytes"}};
  for (const Case& each : cases) {
    SCOPED_TRACE(each.says);
    group_ = Groups(rules());
    welcome_both();
    for (int i = 0; i < each.before; ++i) group_.collective_id(1, 1, "good", now_);
    const auto closed = only<action::Close>(group_.collective_id(each.link, 1, each.id, now_));
    ASSERT_THAT(closed, SizeIs(1));
    EXPECT_THAT(closed[0].why, HasSubstr(each.says));
  }
}

TEST_F(CollectiveGroupTest, AGroupInHostMemoryIsAskedForNone) {
  group_.hello(1, hello(0), now_);
  EXPECT_THAT(only<action::Broadcast>(group_.hello(2, hello(1), now_)), SizeIs(1));
  const auto closed = only<action::Close>(group_.collective_id(1, 1, "x", now_));
  ASSERT_THAT(closed, SizeIs(1));
  EXPECT_THAT(closed[0].why, HasSubstr("was not asked for"));
}

TEST_F(CollectiveGroupTest, RanksThatDisagreeAreRefused) {
  group_.hello(1, over("nccl", 0), now_);
  const auto refused = only<action::Refuse>(group_.hello(2, hello(1), now_));
  ASSERT_THAT(refused, SizeIs(2));
  EXPECT_THAT(refused[0].reason,
              HasSubstr("rank 1 on host0 has ranks meeting over host memory, but "
                        "rank 0 on host0 has nccl"));
}

}  // namespace
}  // namespace quire::test
