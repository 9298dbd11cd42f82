// Fake ranks attach over gRPC to a real Fleet with a real Engine behind it: tokens must be exactly
// the oracle's through two steps in flight, losses, faults and standbys.
#include <gmock/gmock.h>

#include "tests/coordinator/fleet/serving_fixture.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;

class FleetTest : public ServingFixture {};

TEST_F(FleetTest, StreamsManyRequestsThroughTwoStepsInFlight) {
  FakeGroup group(address_, kWorld, "A");
  ASSERT_TRUE(wait_ready());
  EXPECT_THAT(fleet_->describe(), HasSubstr("epoch 1: 2 ranks on host0"));

  std::vector<std::shared_ptr<Collector>> running;
  for (int i = 0; i < 40; ++i) {
    running.push_back(submit({i % 7, 3, i}, 20 + i % 13, static_cast<std::uint64_t>(i), 2));
  }
  for (int i = 0; i < 40; ++i) {
    SCOPED_TRACE(i);
    ASSERT_TRUE(running[static_cast<std::size_t>(i)]->wait_done());
    for (int choice = 0; choice < 2; ++choice) {
      EXPECT_EQ(running[static_cast<std::size_t>(i)]->tokens(choice),
                expected_tokens({i % 7, 3, i}, 20 + i % 13, static_cast<std::uint64_t>(i), choice));
    }
  }
  EXPECT_EQ(group.rank(0).broken(), "");
  EXPECT_EQ(group.rank(1).broken(), "");
}

TEST_F(FleetTest, NoTokenIsLostWhenARankDiesAndANewGroupComes) {
  auto first = std::make_unique<FakeGroup>(address_, kWorld, "A");
  ASSERT_TRUE(wait_ready());
  std::vector<std::shared_ptr<Collector>> running;
  for (int i = 0; i < 8; ++i) running.push_back(submit({i, 1, 2}, 300, 5));
  ASSERT_TRUE(running[0]->wait_tokens(10));
  first->rank(1).kill();
  // The rank that lives is told why its stream ends.
  EXPECT_EQ(first->rank(0).wait().error_code(), grpc::StatusCode::ABORTED);
  first.reset();

  FakeGroup second(address_, kWorld, "B");
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(running[static_cast<std::size_t>(i)]->wait_done());
    EXPECT_EQ(running[static_cast<std::size_t>(i)]->tokens(), expected_tokens({i, 1, 2}, 300, 5));
  }
  EXPECT_EQ(engine_->stats().group_losses, 1u);
  EXPECT_THAT(fleet_->describe(), HasSubstr("epoch 2"));
}

TEST_F(FleetTest, AStandbyGroupTakesOver) {
  FakeGroup first(address_, kWorld, "A");
  ASSERT_TRUE(wait_ready());
  FakeGroup standby(address_, kWorld, "B");
  ASSERT_TRUE(wait_until(
      [&] { return fleet_->describe().find("2 of 2 ranks of B wait") != std::string::npos; }));
  auto running = submit({4, 5}, 400, 9);
  ASSERT_TRUE(running->wait_tokens(5));
  first.rank(0).kill();
  ASSERT_TRUE(running->wait_done());
  EXPECT_EQ(running->tokens(), expected_tokens({4, 5}, 400, 9));
}

TEST_F(FleetTest, AWrongDigestEndsTheEpoch) {
  FakeWorkerScript wrong;
  wrong.wrong_digest_at = 12;
  FakeWorker good(address_, 0, kWorld, "A");
  FakeWorker bad(address_, 1, kWorld, "A", wrong);
  ASSERT_TRUE(wait_ready());
  auto running = submit({4, 5}, 100, 9);
  for (FakeWorker* worker : {&good, &bad}) {
    const grpc::Status status = worker->wait();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
    EXPECT_THAT(status.error_message(), HasSubstr("rank 1 on host0 was given other plans"));
  }
  FakeGroup second(address_, kWorld, "B");
  ASSERT_TRUE(running->wait_done());
  EXPECT_EQ(running->tokens(), expected_tokens({4, 5}, 100, 9));
}

TEST_F(FleetTest, RefusesAWorkerOfAnotherWorldAndSaysWhy) {
  FakeWorker stranger(address_, 0, 3, "A");
  EXPECT_EQ(stranger.wait().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(stranger.refusal(), HasSubstr("--tensor-parallel-size 2"));
  FakeWorker other(address_, 0, kWorld, "B", {}, [](v1::Hello& h) { h.set_model_hash(1); });
  other.wait();
  EXPECT_THAT(other.refusal(), HasSubstr("another model"));
  EXPECT_FALSE(engine_->stats().ready);
}

TEST_F(FleetTest, RelaysTheIdOfACollectiveToEveryRank) {
  FakeWorkerScript script;
  script.collective = "nccl";
  script.collective_id = std::string("\0\xff id", 5);
  FakeGroup group(address_, kWorld, "A", script);
  ASSERT_TRUE(wait_ready());
  for (int r = 0; r < kWorld; ++r) {
    EXPECT_EQ(group.rank(r).collective_id(), script.collective_id);
    EXPECT_EQ(group.rank(r).broken(), "");
  }
  auto running = submit({4, 5}, 20, 9);
  ASSERT_TRUE(running->wait_done());
  EXPECT_EQ(running->tokens(), expected_tokens({4, 5}, 20, 9));
}

TEST_F(FleetTest, SendsNoStepWithoutTheId) {
  FakeWorkerScript script;
  script.collective = "nccl";
  FakeGroup silent(address_, kWorld, "A", script);
  ASSERT_TRUE(
      wait_until([&] { return fleet_->describe().find("epoch 1: 2 ranks") != std::string::npos; }));
  absl::SleepFor(absl::Milliseconds(200));
  for (int r = 0; r < kWorld; ++r) EXPECT_EQ(silent.rank(r).last_step(), 0u);
  EXPECT_FALSE(engine_->stats().ready);
}

TEST_F(FleetTest, APartialGroupWaits) {
  FakeWorker half(address_, 0, kWorld, "A");
  ASSERT_TRUE(wait_until(
      [&] { return fleet_->describe().find("1 of 2 ranks of A wait") != std::string::npos; }));
  FakeGroup whole(address_, kWorld, "B");
  ASSERT_TRUE(wait_ready());
  EXPECT_THAT(fleet_->describe(), HasSubstr("epoch 1: 2 ranks"));
  half.kill();
  ASSERT_TRUE(wait_until([&] { return fleet_->describe().find("wait") == std::string::npos; }));
  EXPECT_TRUE(engine_->stats().ready);
}

TEST_F(FleetTest, ShutdownDrainsEveryRank) {
  FakeGroup group(address_, kWorld, "A");
  ASSERT_TRUE(wait_ready());
  fleet_->shutdown(absl::Seconds(20), 0);
  for (int r = 0; r < kWorld; ++r) {
    EXPECT_TRUE(group.rank(r).wait().ok());
    EXPECT_TRUE(group.rank(r).drained());
  }
  FakeWorker late(address_, 0, kWorld, "B");
  late.wait();
  EXPECT_THAT(late.refusal(), HasSubstr("stopping"));
}

class SavedPrefixesTest : public FleetTest {
 protected:
  static constexpr std::uint64_t kKnown = 0xfeedbeef12345678;
  FleetOptions make_fleet_options() override {
    FleetOptions options = FleetTest::make_fleet_options();
    options.known_saved_prefixes = kKnown;
    return options;
  }
  static FakeWorkerScript with_store(std::uint64_t blocks, std::uint64_t saved) {
    FakeWorkerScript script;
    script.host_blocks = blocks;
    script.saved_prefixes = saved;
    return script;
  }
};

TEST_F(SavedPrefixesTest, AStoreThatIsKnownIsKeptAndSealedAgain) {
  FakeGroup group(address_, kWorld, "A", with_store(12, kKnown));
  ASSERT_TRUE(wait_ready());
  fleet_->shutdown(absl::Seconds(20), 99);
  for (int r = 0; r < kWorld; ++r) {
    ASSERT_TRUE(group.rank(r).wait().ok());
    EXPECT_EQ(group.rank(r).welcome().host_blocks(), 12u);
    EXPECT_TRUE(group.rank(r).welcome().keep_saved());
    EXPECT_EQ(group.rank(r).sealed(), 99u);
  }
}

TEST_F(SavedPrefixesTest, OneRankWithAnotherStoreLosesThemForAll) {
  FakeWorker zero(address_, 0, kWorld, "A", with_store(12, kKnown));
  FakeWorker one(address_, 1, kWorld, "A", with_store(5, kKnown + 1));
  ASSERT_TRUE(wait_ready());
  fleet_->shutdown(absl::Seconds(20), 0);
  for (FakeWorker* worker : {&zero, &one}) {
    ASSERT_TRUE(worker->wait().ok());
    EXPECT_EQ(worker->welcome().host_blocks(), 5u);
    EXPECT_FALSE(worker->welcome().keep_saved());
    EXPECT_EQ(worker->sealed(), 0u);
  }
}

TEST_F(SavedPrefixesTest, AStandbySealsNothing) {
  FakeGroup group(address_, kWorld, "A", with_store(12, 0));
  ASSERT_TRUE(wait_ready());
  FakeGroup standby(address_, kWorld, "B", with_store(12, 0));
  ASSERT_TRUE(wait_until(
      [&] { return fleet_->describe().find("2 of 2 ranks of B wait") != std::string::npos; }));
  fleet_->shutdown(absl::Seconds(20), 99);
  for (int r = 0; r < kWorld; ++r) {
    ASSERT_TRUE(group.rank(r).wait().ok());
    ASSERT_TRUE(standby.rank(r).wait().ok());
    EXPECT_EQ(group.rank(r).sealed(), 99u);
    EXPECT_TRUE(standby.rank(r).drained());
    EXPECT_EQ(standby.rank(r).sealed(), 0u);
  }
}

class ShortLeaseTest : public FleetTest {
 protected:
  FleetOptions make_fleet_options() override {
    FleetOptions options = FleetTest::make_fleet_options();
    options.lease = absl::Milliseconds(300);
    return options;
  }
};

TEST_F(ShortLeaseTest, ASilentRankEndsTheEpoch) {
  FakeWorkerScript silent;
  silent.silent_from = 3;  // after the dummy steps it never speaks again
  FakeGroup group(address_, kWorld, "A", silent);
  const grpc::Status status = group.rank(1).wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(status.error_message(), HasSubstr("was silent for"));
}

TEST_F(ShortLeaseTest, AStreamWithoutHelloIsClosed) {
  auto stub = v1::Fleet::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  auto stream = stub->Attach(&context);
  v1::Down down;
  while (stream->Read(&down)) {
  }
  EXPECT_THAT(stream->Finish().error_message(), HasSubstr("no Hello came"));
}

}  // namespace
}  // namespace quire::test
