// Real processes that die, stop or are told to: the server comes back, and nothing is left behind.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/e2e/reading.h"
#include "tests/e2e/server.h"
#include "tests/test_data.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

int parent_of(int pid) {  // the fourth field of /proc/PID/stat; our programs' names have no blanks
  std::ifstream stat(absl::StrCat("/proc/", pid, "/stat"));
  std::string word;
  int parent = 0;
  stat >> word >> word >> word >> parent;
  return parent;
}

bool ends_within(Process& process, int seconds) {
  pollfd p{process.pidfd(), POLLIN, 0};
  return poll(&p, 1, seconds * 1000) > 0;
}

class RecoveryTest : public testing::Test {
 protected:
  void start(const std::vector<std::string>& options = {}) {
    QUIRE_NEED_DATA(demo_model());
    auto started = Server::start(demo_model(), 2, options);
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }
  bool ready_again(int other_than) {
    return server_->eventually([&] {
      const int pid = server_->coordinator();
      return pid != 0 && pid != other_than && server_->status_of("/ready") == 200;
    });
  }

  std::unique_ptr<Server> server_;
};

TEST_F(RecoveryTest, ADeadCoordinatorIsReplacedOnItsPortsAndTheWorkersStay) {
  start();
  const auto before = generate(*server_, request_of(20));
  ASSERT_TRUE(before.ok()) << before.status();
  const std::vector<int> workers = server_->workers();
  for (int life = 0; life < 6; ++life) {  // more often than the budget, but each life does a step
    const int coordinator = server_->coordinator();
    ASSERT_NE(coordinator, 0);
    kill(coordinator, SIGKILL);
    ASSERT_TRUE(ready_again(coordinator)) << life;
    auto after = generate(*server_, request_of(20));
    // The channel may find its old connection broken first.
    server_->eventually(
        [&] { return after.ok() || (after = generate(*server_, request_of(20))).ok(); });
    ASSERT_TRUE(after.ok()) << after.status();
    EXPECT_EQ(after->tokens, before->tokens);
  }
  EXPECT_EQ(server_->workers(), workers) << "the model was not loaded again";
  EXPECT_EQ(server_->metric("quire_epoch"), 7) << "epochs go on where the first life's ended";
}

TEST_F(RecoveryTest, BothDieAtOnce) {
  start();
  const int coordinator = server_->coordinator();
  kill(server_->workers().at(0), SIGKILL);
  kill(coordinator, SIGKILL);
  ASSERT_TRUE(ready_again(coordinator));
  EXPECT_TRUE(generate(*server_, request_of(5)).ok());
}

// The next coordinator has never heard of them, so it cannot say that they are lost.
TEST_F(RecoveryTest, RanksThatHangWhenTheCoordinatorDiesAreReplaced) {
  start();
  const std::vector<int> workers = server_->workers();
  const int coordinator = server_->coordinator();
  for (const int worker : workers) kill(worker, SIGSTOP);
  kill(coordinator, SIGKILL);
  EXPECT_TRUE(server_->eventually(
      [&] {
        const std::vector<int> now = server_->workers();
        return now.size() == 2 && now != workers && server_->status_of("/ready") == 200;
      },
      40));
  EXPECT_TRUE(generate(*server_, request_of(5)).ok());
}

// Nothing ends by itself then: only a deadline tells, and only a kill helps.
TEST_F(RecoveryTest, AStoppedRankIsKilledAndReplacedWithinItsDeadline) {
  start();
  const auto undisturbed = generate(*server_, request_of(600));
  ASSERT_TRUE(undisturbed.ok()) << undisturbed.status();
  for (const int rank : {0, 1}) {
    Reading open(*server_, request_of(600));
    ASSERT_TRUE(open.read(30));
    const std::vector<int> workers = server_->workers();
    kill(workers.at(static_cast<std::size_t>(rank)), SIGSTOP);
    EXPECT_TRUE(open.finish().ok());
    EXPECT_EQ(open.tokens(), undisturbed->tokens);
    EXPECT_NE(server_->workers(), workers);
  }
  EXPECT_EQ(server_->metric("quire_group_losses_total"), 2);
  EXPECT_EQ(server_->metric("quire_requests_recovered_total"), 2);
  EXPECT_GE(server_->metric("quire_tokens_recomputed_total"), 60);
  EXPECT_THAT(server_->get("/metrics"),
              testing::ContainsRegex("quire_group_restarts_total\\{.*step_deadline.*\\} 2"));
}

// For less than the lease: nothing but a pause.
TEST_F(RecoveryTest, AStoppedCoordinatorGoesOnWhereItWas) {
  start();
  const auto undisturbed = generate(*server_, request_of(300));
  ASSERT_TRUE(undisturbed.ok()) << undisturbed.status();
  Reading open(*server_, request_of(300));
  ASSERT_TRUE(open.read(30));
  kill(server_->coordinator(), SIGSTOP);
  std::this_thread::sleep_for(std::chrono::milliseconds(3000));  // longer than a step's deadline
  kill(server_->coordinator(), SIGCONT);
  EXPECT_TRUE(open.finish().ok());
  EXPECT_EQ(open.tokens(), undisturbed->tokens);
  EXPECT_EQ(server_->metric("quire_group_losses_total"), 0);
}

TEST_F(RecoveryTest, AllRanksStoppedAreReplacedToo) {
  start();
  const std::vector<int> workers = server_->workers();
  for (const int worker : workers) kill(worker, SIGSTOP);
  EXPECT_TRUE(server_->eventually([&] {
    const std::vector<int> now = server_->workers();
    return now.size() == 2 && now != workers && server_->status_of("/ready") == 200;
  }));
}

// Where a rank dies while it starts, mpirun was seen to wait for ever; nobody has told of a loss.
TEST_F(RecoveryTest, AnMpirunThatHangsOverADeadRankIsKilled) {
  start();
  const std::vector<int> workers = server_->workers();
  const int mpirun = parent_of(workers.at(0));
  const int coordinator = server_->coordinator();
  kill(coordinator, SIGSTOP);  // it cannot say that the group is lost
  kill(mpirun, SIGSTOP);
  kill(workers.at(0), SIGKILL);
  EXPECT_TRUE(server_->eventually([&] { return kill(mpirun, 0) != 0; }));
  kill(coordinator, SIGCONT);
  EXPECT_TRUE(server_->eventually([&] {
    const std::vector<int> now = server_->workers();
    return now.size() == 2 && now != workers && server_->status_of("/ready") == 200;
  }));
}

TEST_F(RecoveryTest, NothingOutlivesTheSupervisor) {
  start();
  Reading open(*server_, request_of(2000));
  ASSERT_TRUE(open.read(3));
  const std::string grpc = server_->grpc();
  const int coordinator = server_->coordinator();
  kill(server_->workers().at(0), SIGSTOP);  // also one that is stopped
  server_->supervisor().signal(SIGKILL);
  EXPECT_TRUE(server_->eventually(
      [&] { return running("quire-worker", grpc).empty() && kill(coordinator, 0) != 0; }));
  EXPECT_FALSE(open.finish().ok());
  server_->supervisor().exit_code();
}

TEST_F(RecoveryTest, ADrainFinishesWhatRunsAndRefusesWhatComes) {
  start();
  const auto undisturbed = generate(*server_, request_of(400));
  ASSERT_TRUE(undisturbed.ok()) << undisturbed.status();
  Reading open(*server_, request_of(400));
  ASSERT_TRUE(open.read(5));
  server_->supervisor().signal(SIGTERM);
  ASSERT_TRUE(server_->eventually([&] { return server_->status_of("/ready") != 200; }));
  EXPECT_EQ(generate(*server_, request_of(5)).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(open.finish().ok());
  EXPECT_EQ(open.tokens(), undisturbed->tokens);
  ASSERT_TRUE(ends_within(server_->supervisor(), 20));
  EXPECT_EQ(server_->supervisor().exit_code(), 0);
}

TEST_F(RecoveryTest, ARankThatDiesInADrainIsReplaced) {
  start();
  const auto undisturbed = generate(*server_, request_of(400));
  ASSERT_TRUE(undisturbed.ok()) << undisturbed.status();
  Reading open(*server_, request_of(400));
  ASSERT_TRUE(open.read(5));
  server_->supervisor().signal(SIGTERM);
  kill(server_->workers().at(1), SIGKILL);
  EXPECT_TRUE(open.finish().ok());
  EXPECT_EQ(open.tokens(), undisturbed->tokens);
  ASSERT_TRUE(ends_within(server_->supervisor(), 20));
  EXPECT_EQ(server_->supervisor().exit_code(), 0);
}

TEST_F(RecoveryTest, ASecondSignalEndsWhatRunsWithAnError) {
  start();
  Reading open(*server_, request_of(4000));
  ASSERT_TRUE(open.read(5));
  server_->supervisor().signal(SIGTERM);
  ASSERT_TRUE(server_->eventually([&] { return server_->status_of("/ready") != 200; }));
  ASSERT_TRUE(open.read(open.tokens().size() + 1)) << "it runs on";
  server_->supervisor().signal(SIGTERM);
  const grpc::Status status = open.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("stopping"));
  ASSERT_TRUE(ends_within(server_->supervisor(), 10));
  EXPECT_EQ(server_->supervisor().exit_code(), 0);
}

TEST_F(RecoveryTest, WhatADrainCannotFinishIsToldSo) {
  start({"--drain-timeout", "1"});
  Reading open(*server_, request_of(8000));
  ASSERT_TRUE(open.read(5));
  server_->supervisor().signal(SIGTERM);
  const grpc::Status status = open.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  ASSERT_TRUE(ends_within(server_->supervisor(), 20));
  EXPECT_EQ(server_->supervisor().exit_code(), 0);
}

// A group that dies again and again without a step: 503, and a code that a supervisor of ours sees.
TEST_F(RecoveryTest, ASpentBudgetEndsTheServerAfterAnAnswer) {
  start();
  for (int life = 0; life < 5; ++life) {
    ASSERT_TRUE(server_->eventually([&] { return server_->workers().size() == 2; })) << life;
    kill(server_->workers().at(0), SIGKILL);
    if (life < 4) {
      ASSERT_TRUE(server_->eventually([&] { return server_->workers().empty(); })) << life;
    }
  }
  ASSERT_TRUE(ends_within(server_->supervisor(), 20));
  EXPECT_NE(server_->supervisor().exit_code(), 0);
}

}  // namespace
}  // namespace quire::test
