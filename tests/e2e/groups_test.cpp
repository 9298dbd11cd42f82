// Several worker groups behind one server, as real processes: the tokens of every request are those
// of one group; a group that dies hands its streams to the other at once and comes back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "tests/e2e/reading.h"
#include "tests/e2e/server.h"
#include "tests/test_data.h"

namespace quire::test {
namespace {

constexpr int kStreams = 8;
constexpr int kTokens = 150;

v1::GenerateRequest request_number(int i) {
  v1::GenerateRequest request = request_of(
      kTokens, absl::StrCat("Chapter ", i + 1, ". It was a day in", i % 3 == 0 ? " a" : ""));
  if (i % 2 == 1) {
    request.set_temperature(1);
    request.set_seed(static_cast<std::uint64_t>(100 + i));
  }
  return request;
}

using Tokens = std::vector<std::vector<int>>;  // [request]

// Of one group of one rank, one request after the other.
const Tokens& reference() {
  static const Tokens tokens = [] {
    Tokens answers;
    auto server = Server::start(demo_model(), 1);
    EXPECT_TRUE(server.ok()) << server.status();
    if (!server.ok()) return answers;
    for (int i = 0; i < kStreams; ++i) {
      auto got = generate(**server, request_number(i));
      EXPECT_TRUE(got.ok()) << got.status();
      answers.push_back(got.ok() ? got->tokens : std::vector<int>());
    }
    return answers;
  }();
  return tokens;
}

class GroupsTest : public testing::Test {
 protected:
  void start(int num_ranks, const std::vector<std::string>& options) {
    auto started = Server::start(demo_model(), num_ranks, options);
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }
  bool are_ready(int count) {
    return server_->eventually([&] { return server_->metric("quire_groups_ready") == count; }, 60);
  }
  // Every request at once; `in_the_middle` when each has some tokens.
  template <typename Event>
  void expect_answers(Event in_the_middle) {
    std::vector<std::unique_ptr<Reading>> open;
    for (int i = 0; i < kStreams; ++i) {
      open.push_back(std::make_unique<Reading>(*server_, request_number(i)));
    }
    for (auto& stream : open) ASSERT_TRUE(stream->read(5));
    in_the_middle();
    for (int i = 0; i < kStreams; ++i) {
      const auto at = static_cast<std::size_t>(i);
      EXPECT_TRUE(open[at]->finish().ok()) << i;
      EXPECT_EQ(open[at]->tokens(), reference().at(at)) << i;
    }
  }

  std::unique_ptr<Server> server_;
};

TEST_F(GroupsTest, TwoGroupsAnswerAsOneAndOneThatDiesComesBack) {
  QUIRE_NEED_DATA(demo_model());
  start(1, {"--data-parallel-size", "2"});
  ASSERT_TRUE(are_ready(2));
  ASSERT_EQ(server_->workers().size(), 2u);
  expect_answers([] {});
  const std::string metrics = server_->get("/metrics");
  for (const char* group : {"0", "1"}) {
    EXPECT_THAT(metrics,
                testing::ContainsRegex(absl::StrCat("quire_group_steps_total\\{[^}]*group=\"",
                                                    group, "\"[^}]*\\} [1-9]")));
  }
  // One that was much slower than the other may have nothing to do: then the other's turn comes.
  int num_kills = 0;
  while (num_kills < 4 && server_->metric("quire_requests_recovered_total") == 0) {
    const std::vector<int> before = server_->workers();
    ASSERT_EQ(before.size(), 2u);
    const auto dies = static_cast<std::size_t>(num_kills++ % 2);
    expect_answers([&] { kill(before[dies], SIGKILL); });
    EXPECT_EQ(server_->metric("quire_group_losses_total"), num_kills);
    ASSERT_TRUE(are_ready(2)) << "the dead one has come back";
    const std::vector<int> after = server_->workers();
    EXPECT_EQ(std::count(after.begin(), after.end(), before[1 - dies]), 1)
        << "the other was left alone";
  }
  EXPECT_GE(server_->metric("quire_requests_recovered_total"), 1);
  expect_answers([] {});
  EXPECT_THAT(server_->get("/health"), testing::HasSubstr("\"groups\":2,\"groups_ready\":2"));
}

// A group that simply attaches, of another size, and is not started again: what it had goes on
// although nobody takes its place.
TEST_F(GroupsTest, AGroupOfOneRankServesBesideOneOfTwo) {
  QUIRE_NEED_DATA(demo_model());
  start(2, {"--data-parallel-size", "2", "--data-parallel-size-local", "1"});
  EXPECT_EQ(server_->metric("quire_groups_ready"), 1);
  auto attached = Process::start({bin("quire-worker"), demo_model(), "--coordinator",
                                  server_->grpc(), "--rank", "0", "--world-size", "1"},
                                 {}, /*read_output=*/false);
  ASSERT_TRUE(attached.ok()) << attached.status();
  ASSERT_TRUE(are_ready(2));
  expect_answers([&] { attached->signal(SIGKILL); });
  EXPECT_EQ(server_->metric("quire_group_losses_total"), 1);
  EXPECT_EQ(server_->metric("quire_groups_ready"), 1);
}

}  // namespace
}  // namespace quire::test
