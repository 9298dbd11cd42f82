// The group's rules with scripted hellos, heartbeats and results; no stream and no real clock.
#include "coordinator/fleet/groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/hash.h"
#include "common/wire.h"

namespace quire {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

template <typename T>
std::vector<T> only(const GroupActions& actions) {
  std::vector<T> out;
  for (const GroupAction& action : actions) {
    if (const T* found = std::get_if<T>(&action)) out.push_back(*found);
  }
  return out;
}

// A scripted worker's mirror: what its heartbeat would say.
struct Mirror {
  StepId step = 0;
  std::uint64_t digest = 0;
  void take(const GroupActions& actions) {
    for (const auto& welcome : only<action::Welcome>(actions)) digest = welcome.nonce;
    for (const auto& sent : only<action::Broadcast>(actions)) {
      digest = wire::plan_digest(digest, sent.plan);
      step = wire::decode_plan(sent.plan).value().step;
    }
  }
};

class GroupTest : public ::testing::Test {
 protected:
  static constexpr int kWorld = 2;

  GroupRules rules() {
    GroupRules rules;
    rules.build = "b1";
    rules.world = kWorld;
    rules.model_hash = 77;
    rules.nonce = [this] { return ++nonce_; };
    return rules;
  }

  RankHello hello(int rank, const std::string& instance = "A") {
    RankHello h;
    h.protocol = wire::kProtocolVersion;
    h.instance = instance;
    h.rank = rank;
    h.world = kWorld;
    h.host = "host0";
    h.pid = 100 + static_cast<std::uint64_t>(rank) + 1000 * static_cast<unsigned char>(instance[0]);
    h.build = "b1";
    h.model_hash = 77;
    h.numerics_id = "avx512";
    h.layout_digest = "L";
    h.kv_capacity_blocks = 50 - 10 * rank;
    return h;
  }

  StepResult answer(StepId step, int rows = 1) {
    StepResult r;
    r.epoch = epoch();
    r.step = step;
    r.rows.resize(static_cast<std::size_t>(rows));
    return r;
  }

  // Brings instance `name` on links first, first + 1 to ready; returns every action on the way.
  GroupActions make_ready(LinkId first, const std::string& name = "A") {
    group_.hello(first, hello(0, name), now_);
    GroupActions all = group_.hello(first + 1, hello(1, name), now_);
    mirror_ = {};
    mirror_.take(all);
    for (GroupAction& action : prove(first)) all.push_back(std::move(action));
    return all;
  }

  GroupActions prove(LinkId first) {
    GroupActions all;
    const auto add = [&](GroupActions more) {
      mirror_.take(more);
      for (auto& action : more) all.push_back(std::move(action));
    };
    add(group_.result(first, answer(1), now_));
    add(group_.result(first, answer(2, 0), now_));
    add(group_.heartbeat(first + 1, epoch(), mirror_.step, mirror_.digest, now_));
    return all;
  }

  StepPlan plan(StepId step) {
    StepPlan p;
    p.epoch = epoch();
    p.step = step;
    return p;
  }

  EpochId epoch() const { return group_.seat(0).epoch(); }

  std::uint64_t nonce_ = 0;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  Groups group_{rules()};
  Mirror mirror_;
};

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
    for (auto& action : group_.hello(static_cast<LinkId>(rank) + 1, h, now_)) {
      all.push_back(std::move(action));
    }
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

TEST_F(GroupTest, RefusesByName) {
  const struct {
    const char* what;
    std::function<void(RankHello&)> spoil;
    const char* says;
  } cases[] = {
      {"protocol", [](RankHello& h) { h.protocol = 9; }, "speaks protocol 9"},
      {"build", [](RankHello& h) { h.build = "b2"; }, "its build is b2"},
      {"world", [](RankHello& h) { h.world = 3; }, "has 3 ranks"},
      {"rank", [](RankHello& h) { h.rank = 2; }, "outside [0, 1]"},
      {"negative rank", [](RankHello& h) { h.rank = -1; }, "outside [0, 1]"},
      {"model", [](RankHello& h) { h.model_hash = 78; }, "another model"},
      {"instance", [](RankHello& h) { h.instance.clear(); }, "names no instance"},
      {"blocks", [](RankHello& h) { h.kv_capacity_blocks = 0; }, "--kv-cache-memory-bytes"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    RankHello bad = hello(0);
    c.spoil(bad);
    const auto refused = only<action::Refuse>(group_.hello(5, bad, now_));
    ASSERT_THAT(refused, SizeIs(1));
    EXPECT_EQ(refused[0].link, 5u);
    EXPECT_THAT(refused[0].reason, HasSubstr(c.says));
    EXPECT_THAT(refused[0].reason, HasSubstr("on host0"));
  }
  // None of them left a trace: a good group still comes up.
  EXPECT_THAT(only<action::Ready>(make_ready(10)), SizeIs(1));
}

TEST_F(GroupTest, RefusesAWrongSecret) {
  GroupRules secret = rules();
  secret.secret = "open sesame";
  Groups group(secret);
  for (const char* given : {"", "open", "open sesamf", "open sesameopen sesame"}) {
    RankHello h = hello(0);
    h.secret = given;
    EXPECT_THAT(only<action::Refuse>(group.hello(1, h, now_)), SizeIs(1)) << given;
  }
  RankHello h = hello(0);
  h.secret = "open sesame";
  EXPECT_THAT(group.hello(1, h, now_), IsEmpty());
}

TEST_F(GroupTest, RefusesAGroupWhoseRanksDisagree) {
  group_.hello(1, hello(0), now_);
  RankHello other = hello(1);
  other.numerics_id = "avx2";
  auto refused = only<action::Refuse>(group_.hello(2, other, now_));
  ASSERT_THAT(refused, SizeIs(2));
  EXPECT_THAT(refused[0].reason, HasSubstr("rank 1 on host0 has numerics avx2"));

  group_.hello(3, hello(0), now_);
  other = hello(1);
  other.layout_digest = "M";
  refused = only<action::Refuse>(group_.hello(4, other, now_));
  ASSERT_THAT(refused, SizeIs(2));
  EXPECT_THAT(refused[0].reason, HasSubstr("layout M"));
  EXPECT_EQ(epoch(), 0u);
}

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

TEST_F(GroupTest, RefusesRanksThatAreNotContiguousPerHost) {
  GroupRules four = rules();
  four.world = 3;
  Groups group(four);
  const char* hosts[] = {"host0", "host1", "host0"};
  GroupActions last;
  for (int rank = 0; rank < 3; ++rank) {
    RankHello h = hello(rank);
    h.world = 3;
    h.host = hosts[rank];
    last = group.hello(static_cast<LinkId>(rank), h, now_);
  }
  const auto refused = only<action::Refuse>(last);
  ASSERT_THAT(refused, SizeIs(3));
  EXPECT_THAT(refused[0].reason, HasSubstr("the ranks of host host0 are not neighbours"));
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

TEST_F(GroupTest, AnEpochThatCannotBeIsRefused) {
  RankHello wrong = hello(0);
  wrong.last_epoch = ~EpochId{0};
  const auto refused = only<action::Refuse>(group_.hello(1, wrong, now_));
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_THAT(refused[0].reason, HasSubstr("which there cannot be"));
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
}  // namespace quire
