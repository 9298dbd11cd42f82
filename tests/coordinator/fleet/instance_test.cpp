// Who is refused, and in which words.
#include "coordinator/fleet/instance.h"

#include "tests/coordinator/fleet/groups_fixture.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

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

TEST_F(GroupTest, AnEpochThatCannotBeIsRefused) {
  RankHello wrong = hello(0);
  wrong.last_epoch = ~EpochId{0};
  const auto refused = only<action::Refuse>(group_.hello(1, wrong, now_));
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_THAT(refused[0].reason, HasSubstr("which there cannot be"));
}

}  // namespace
}  // namespace quire::test
