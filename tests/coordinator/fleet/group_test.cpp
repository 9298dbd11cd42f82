// The life of one seat's epoch: ready, steps, and what ends it.
#include "coordinator/fleet/group.h"

#include "common/hash.h"
#include "tests/coordinator/fleet/groups_fixture.h"

namespace quire::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Two ranks of one instance and what their offload stores hold; what becomes of it.
struct StoreCase {
  const char* name;
  std::uint64_t known;
  std::int64_t blocks[2];
  std::uint64_t saved[2];
  int want_blocks;
  std::uint64_t want_saved;
};
class Stores : public GroupTest, public ::testing::WithParamInterface<StoreCase> {};

TEST_P(Stores, TheEpochHasWhatEveryRankHas) {
  const StoreCase& c = GetParam();
  GroupRules with = rules();
  with.known_saved_prefixes = c.known;
  group_ = Groups(with);
  GroupActions all;
  for (int rank = 0; rank < kWorld; ++rank) {
    RankHello h = hello(rank);
    h.host_blocks = c.blocks[rank];
    h.saved_prefixes = c.saved[rank];
    append(group_.hello(static_cast<LinkId>(rank) + 1, h, now_), &all);
  }
  const auto welcome = only<action::Welcome>(all);
  ASSERT_THAT(welcome, SizeIs(1));
  EXPECT_EQ(welcome[0].num_host_blocks, c.want_blocks);
  EXPECT_EQ(welcome[0].keep_saved, c.want_saved != 0);
  EXPECT_THAT(group_.ready_links(), IsEmpty());
  mirror_ = {};
  mirror_.take(all);
  const auto ready = only<action::Ready>(prove(1));
  ASSERT_THAT(ready, SizeIs(1));
  EXPECT_EQ(ready[0].group.num_host_blocks, c.want_blocks);
  EXPECT_EQ(ready[0].group.saved_prefixes, c.want_saved);
  EXPECT_EQ(ready[0].group.numerics, hash64(0, "avx512"));
  EXPECT_THAT(group_.ready_links(), ElementsAre(1, 2));
}

constexpr std::uint64_t kId = 0x8000000000000001;  // all of its bits count
INSTANTIATE_TEST_SUITE_P(
    Group, Stores,
    ::testing::Values(
        StoreCase{"none", 0, {0, 0}, {0, 0}, 0, 0},
        StoreCase{"smallest", 0, {70, 30}, {0, 0}, 30, 0},
        StoreCase{"one_has_none", kId, {70, 0}, {0, 0}, 0, 0},
        StoreCase{"more_than_plans_can_name", 0, {1ll << 40, 1ll << 41}, {0, 0}, 1 << 30, 0},
        StoreCase{"kept", kId, {70, 70}, {kId, kId}, 70, kId},
        StoreCase{"unknown", 5, {70, 70}, {kId, kId}, 70, 0},
        StoreCase{"nothing_is_known", 0, {70, 70}, {kId, kId}, 70, 0},
        StoreCase{"one_lost_it", kId, {70, 70}, {kId, 0}, 70, 0},
        StoreCase{"the_other_lost_it", kId, {70, 70}, {0, kId}, 70, 0},
        StoreCase{"two_different", kId, {70, 70}, {kId, kId + 1}, 70, 0},
        StoreCase{"all_lost_it", kId, {70, 70}, {0, 0}, 70, 0}),
    [](const auto& each) { return std::string(each.param.name); });

TEST_F(GroupTest, IsReadyOnlyAfterTheDummyStepsPassedOnAllRanks) {
  group_.hello(1, hello(0), now_);
  GroupActions out = group_.hello(2, hello(1), now_);
  auto sent = only<action::Broadcast>(out);
  ASSERT_THAT(sent, SizeIs(1));
  const StepPlan first = wire::decode_plan(sent[0].plan).value();
  EXPECT_EQ(first.step, 1u);
  ASSERT_THAT(first.admits, SizeIs(1));
  ASSERT_THAT(first.rows, SizeIs(1));
  EXPECT_TRUE(first.rows[0].samples);
  mirror_.take(out);

  out = group_.result(1, answer(1), now_);
  sent = only<action::Broadcast>(out);
  ASSERT_THAT(sent, SizeIs(1));
  EXPECT_THAT(wire::decode_plan(sent[0].plan).value().releases, ElementsAre(0));
  mirror_.take(out);

  EXPECT_THAT(group_.result(1, answer(2, 0), now_), IsEmpty());  // rank 1 has not confirmed yet
  EXPECT_FALSE(group_.seat(0).ready());
  const auto ready =
      only<action::Ready>(group_.heartbeat(2, 1, mirror_.step, mirror_.digest, now_));
  ASSERT_THAT(ready, SizeIs(1));
  EXPECT_EQ(ready[0].group.epoch, 1u);
  EXPECT_EQ(ready[0].group.next_step, 3u);
  EXPECT_EQ(ready[0].group.num_blocks, 40);
  EXPECT_EQ(ready[0].group.world, 2);
}

// The plan that saves what is left has no rows; its result is passed on as any other's.
TEST_F(GroupTest, APlanOfSavesAloneIsAnswered) {
  make_ready(1);
  StepPlan flush = plan(3);
  flush.saves = {{4, 0}, {9, 1}};
  const auto sent = only<action::Broadcast>(group_.plan(flush, now_));
  ASSERT_THAT(sent, SizeIs(1));
  EXPECT_EQ(wire::decode_plan(sent[0].plan)->saves, flush.saves);
  const auto results = only<action::Result>(group_.result(1, answer(3, 0), now_));
  ASSERT_THAT(results, SizeIs(1));
  EXPECT_EQ(results[0].result.step, 3u);
  EXPECT_THAT(results[0].result.rows, IsEmpty());
}

TEST_F(GroupTest, ADigestMismatchEndsTheEpoch) {
  make_ready(1);
  mirror_.take(group_.plan(plan(3), now_));
  const auto lost =
      only<action::Lost>(group_.heartbeat(2, 1, mirror_.step, mirror_.digest + 1, now_));
  ASSERT_THAT(lost, SizeIs(1));
  EXPECT_THAT(lost[0].why, HasSubstr("rank 1 on host0 was given other plans"));
}

// The same epoch number and the same plans, but of another life of the coordinator.
TEST_F(GroupTest, WhoWasNotToldTheNonceCannotConfirmAStep) {
  group_.hello(1, hello(0), now_);
  mirror_.take(group_.hello(2, hello(1), now_));
  Mirror stranger;
  GroupActions sent = group_.result(1, answer(1), now_);
  mirror_.take(sent);
  for (const auto& plan : only<action::Broadcast>(sent)) {
    stranger.digest = wire::plan_digest(stranger.digest, plan.plan);
  }
  EXPECT_NE(stranger.digest, mirror_.digest);
  EXPECT_THAT(only<action::Close>(group_.heartbeat(2, 1, mirror_.step, stranger.digest, now_)),
              SizeIs(1));
  EXPECT_FALSE(group_.seat(0).ready());
}

TEST_F(GroupTest, HeartbeatsMayConfirmLateAndOutOfStep) {
  make_ready(1);
  std::vector<Mirror> after(1, mirror_);  // after[i]: when 2 + i steps are done
  for (StepId step = 3; step <= 40; ++step) {
    mirror_.take(group_.plan(plan(step), now_));
    after.push_back(mirror_);
    EXPECT_THAT(only<action::Result>(group_.result(1, answer(step), now_)), SizeIs(1));
    const Mirror& own = after.back();
    EXPECT_THAT(group_.heartbeat(1, 1, own.step, own.digest, now_), IsEmpty());
    const Mirror& late = after[after.size() / 2];  // the other rank is far behind
    EXPECT_THAT(group_.heartbeat(2, 1, late.step, late.digest, now_), IsEmpty());
  }
  EXPECT_TRUE(group_.seat(0).ready());
  const Mirror& back = after[3];
  EXPECT_THAT(only<action::Lost>(group_.heartbeat(2, 1, back.step, back.digest, now_)), SizeIs(1));
}

TEST_F(GroupTest, AHeartbeatOfAFutureStepEndsTheEpoch) {
  make_ready(1);
  EXPECT_THAT(only<action::Lost>(group_.heartbeat(2, 1, 99, 0, now_)), SizeIs(1));
}

TEST_F(GroupTest, ResultsMustBeContiguous) {
  for (const StepId wrong : {StepId{2}, StepId{4}, StepId{5}}) {
    SCOPED_TRACE(wrong);
    group_ = Groups(rules());
    make_ready(1);
    group_.plan(plan(3), now_);
    group_.plan(plan(4), now_);
    EXPECT_THAT(only<action::Lost>(group_.result(1, answer(wrong), now_)), SizeIs(1));
  }
}

TEST_F(GroupTest, OnlyTheSamplingRankAnswers) {
  make_ready(1);
  group_.plan(plan(3), now_);
  const auto lost = only<action::Lost>(group_.result(2, answer(3), now_));
  ASSERT_THAT(lost, SizeIs(1));
  EXPECT_THAT(lost[0].why, HasSubstr("rank 1 sent the result"));
}

TEST_F(GroupTest, MessagesOfAnotherEpochAreDroppedAndCounted) {
  make_ready(1);
  group_.plan(plan(3), now_);
  StepResult old = answer(3);
  old.epoch = 7;
  EXPECT_THAT(group_.result(1, old, now_), IsEmpty());
  EXPECT_THAT(group_.heartbeat(2, 7, 3, 0, now_), IsEmpty());
  EXPECT_EQ(group_.stale_dropped(), 2u);
  StepPlan late = plan(9);
  late.epoch = 7;
  EXPECT_THAT(group_.plan(late, now_), IsEmpty());
  EXPECT_TRUE(group_.seat(0).ready());
  EXPECT_THAT(only<action::Result>(group_.result(1, answer(3), now_)), SizeIs(1));
}

TEST_F(GroupTest, ASilentRankLosesItsLease) {
  make_ready(1);
  now_ += absl::Seconds(4);
  group_.heartbeat(1, 1, mirror_.step, mirror_.digest, now_);
  EXPECT_THAT(group_.tick(now_), IsEmpty());
  now_ += absl::Seconds(2);
  const auto lost = only<action::Lost>(group_.tick(now_));
  ASSERT_THAT(lost, SizeIs(1));
  EXPECT_THAT(lost[0].why, HasSubstr("rank 1 on host0 was silent for 6s"));
}

TEST_F(GroupTest, AnUnansweredStepEndsTheEpoch) {
  make_ready(1);
  const auto alive = [&] {
    for (const LinkId link : {1, 2}) group_.heartbeat(link, 1, 2, mirror_.digest, now_);
    return group_.tick(now_);
  };
  for (int i = 0; i < 10; ++i) {  // idle for long is fine
    now_ += absl::Minutes(1);
    EXPECT_THAT(alive(), IsEmpty());
  }
  group_.plan(plan(3), now_);
  now_ += absl::Minutes(4);
  EXPECT_THAT(alive(), IsEmpty());
  now_ += absl::Minutes(2);
  const auto lost = only<action::Lost>(alive());
  ASSERT_THAT(lost, SizeIs(1));
  EXPECT_THAT(lost[0].why, HasSubstr("step 3 was not answered"));
}

// Its heart beats and rank 0 answers for all, but a rank never gets through the first steps.
TEST_F(GroupTest, AFirstStepThatARankDoesNotConfirmEndsTheEpoch) {
  group_.hello(1, hello(0), now_);
  const std::uint64_t nonce = only<action::Welcome>(group_.hello(2, hello(1), now_)).at(0).nonce;
  group_.result(1, answer(1), now_);
  group_.result(1, answer(2, 0), now_);
  const auto alive = [&] {
    group_.heartbeat(1, 1, 0, nonce, now_);
    group_.heartbeat(2, 1, 0, nonce, now_);
    return group_.tick(now_);
  };
  now_ += absl::Minutes(4);
  EXPECT_THAT(alive(), IsEmpty());
  now_ += absl::Minutes(2);
  const auto closed = only<action::Close>(alive());
  ASSERT_THAT(closed, SizeIs(1));
  EXPECT_THAT(closed[0].why, HasSubstr("confirmed the first steps"));
}

}  // namespace
}  // namespace quire::test
