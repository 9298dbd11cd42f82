// What a worker and its coordinator tell each other about the offload store, from life to life.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/wire.h"
#include "tests/worker/session/session_fixture.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kId = 0xfedcba9876543210;
constexpr int kSlots = 9;

class SessionStoreTest : public SessionTest {
 protected:
  SessionOptions with_store(Rank& rank, const std::string& coordinator, bool in_file) {
    SessionOptions with = options(coordinator);
    with.kv_offload_bytes =
        static_cast<std::int64_t>(rank.kv_block_bytes(with.block_size)) * kSlots;
    if (in_file) with.kv_offload_path = scratch_ / "store";
    return with;
  }
  absl::Status live(Script script, bool in_file = true) {
    FakeCoordinator coordinator(std::move(script));
    const auto rank = load();
    return run_session(*rank, with_store(*rank, coordinator.address(), in_file));
  }
  // A life that saves block 0 and is then told to keep it.
  absl::Status live_and_seal() {
    return live([](const v1::Hello&, AttachStream& stream) {
      send_welcome_with_store(stream, kSlots, false);
      StepPlan plan = next_plan(2, 3);
      plan.saves = {{0, 4}};
      send_plan(stream, first_plan());
      send_plan(stream, plan);
      send_drain(stream, kId);
      read_to_end(stream);
      return grpc::Status::OK;
    });
  }
  // What the next Hello says; the worker is drained at once.
  v1::Hello next_hello(bool in_file = true) {
    v1::Hello seen;
    const absl::Status status = live(
        [&](const v1::Hello& hello, AttachStream& stream) {
          seen = hello;
          send_drain(stream);
          read_to_end(stream);
          return grpc::Status::OK;
        },
        in_file);
    EXPECT_TRUE(status.ok()) << status;
    return seen;
  }
};

TEST_F(SessionStoreTest, NoStoreIsZeroBlocks) {
  v1::Hello seen;
  const absl::Status status = run([&](const v1::Hello& hello, AttachStream& stream) {
    seen = hello;
    send_drain(stream);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen.host_blocks(), 0u);
  EXPECT_EQ(seen.saved_prefixes(), 0u);
}

TEST_F(SessionStoreTest, MemoryIsOfferedAndKeepsNothing) {
  const absl::Status status = live(
      [](const v1::Hello& hello, AttachStream& stream) {
        EXPECT_EQ(hello.host_blocks(), static_cast<std::uint64_t>(kSlots));
        send_welcome_with_store(stream, kSlots, false);
        send_drain(stream, kId);
        read_to_end(stream);
        return grpc::Status::OK;
      },
      /*in_file=*/false);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(next_hello(/*in_file=*/false).saved_prefixes(), 0u);
}

TEST_F(SessionStoreTest, DrainWithAnIdIsFoundByTheNextLife) {
  const absl::Status status = live_and_seal();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(next_hello().host_blocks(), static_cast<std::uint64_t>(kSlots));
  EXPECT_EQ(next_hello().saved_prefixes(), kId);  // a Drain without a Welcome changes nothing
  bool loaded = false;
  const absl::Status second = live([&](const v1::Hello& hello, AttachStream& stream) {
    EXPECT_EQ(hello.saved_prefixes(), kId);
    send_welcome_with_store(stream, kSlots - 2, true);
    StepPlan plan;
    plan.epoch = kEpoch;
    plan.step = 1;
    plan.loads = {{5, 4}};
    send_plan(stream, plan);
    v1::Up up;
    loaded = await(stream, v1::Up::kResult, &up) && up.result().rows_size() == 0;
    send_drain(stream, kId + 1);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  ASSERT_TRUE(second.ok()) << second;
  EXPECT_TRUE(loaded);
  EXPECT_EQ(next_hello().saved_prefixes(), kId + 1);
}

TEST_F(SessionStoreTest, DrainWithoutAnIdLeavesNothing) {
  ASSERT_TRUE(live_and_seal().ok());
  const absl::Status status = live([](const v1::Hello&, AttachStream& stream) {
    send_welcome_with_store(stream, kSlots, true);
    send_drain(stream);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(next_hello().saved_prefixes(), 0u);
}

// The mark leaves the disk with the Welcome, before the first plan: whatever happens then.
TEST_F(SessionStoreTest, ALostCoordinatorLosesWhatWasSaved) {
  ASSERT_TRUE(live_and_seal().ok());
  const absl::Status status = live([](const v1::Hello&, AttachStream& stream) {
    send_welcome_with_store(stream, kSlots, true);
    send_plan(stream, first_plan());
    v1::Up up;
    await(stream, v1::Up::kResult, &up);
    return grpc::Status(grpc::StatusCode::ABORTED, "gone");
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(next_hello().saved_prefixes(), 0u);
}

// The rank lives on and attaches again with the store that it has.
TEST_F(SessionStoreTest, AnotherEpochOfTheSameProcessBeginsEmpty) {
  const auto rank = load();
  std::string reported;
  {
    FakeCoordinator coordinator([](const v1::Hello&, AttachStream& stream) {
      send_welcome_with_store(stream, kSlots, false);
      StepPlan plan = next_plan(2, 3);
      plan.saves = {{0, 4}};
      send_plan(stream, first_plan());
      send_plan(stream, plan);
      v1::Up up;
      await(stream, v1::Up::kResult, &up);
      await(stream, v1::Up::kResult, &up);
      return grpc::Status(grpc::StatusCode::ABORTED, "gone");
    });
    const absl::Status status =
        run_session(*rank, with_store(*rank, coordinator.address(), /*in_file=*/true));
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
  }
  const HostStore* store = rank->store();
  FakeCoordinator coordinator([&](const v1::Hello& hello, AttachStream& stream) {
    EXPECT_EQ(hello.host_blocks(), static_cast<std::uint64_t>(kSlots));
    EXPECT_EQ(hello.saved_prefixes(), 0u);
    send_welcome_with_store(stream, kSlots, false);
    StepPlan plan;
    plan.epoch = kEpoch;
    plan.step = 1;
    plan.loads = {{0, 4}};
    send_plan(stream, plan);
    v1::Up up;
    if (await(stream, v1::Up::kError, &up)) reported = up.error().message();
    read_to_end(stream);
    return grpc::Status::OK;
  });
  const absl::Status status =
      run_session(*rank, with_store(*rank, coordinator.address(), /*in_file=*/true));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(reported, HasSubstr("in which nothing was saved"));
  EXPECT_EQ(rank->store(), store);
}

TEST_F(SessionStoreTest, MoreOfItThanOfferedIsRefused) {
  const absl::Status status = live([](const v1::Hello&, AttachStream& stream) {
    send_welcome_with_store(stream, kSlots + 1, false);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("10 blocks of the offload store"));
}

TEST_F(SessionStoreTest, AStoreThatCannotBeIsRefusedBeforeAnyCoordinatorIsAsked) {
  const auto rank = load();
  SessionOptions with = with_store(*rank, "127.0.0.1:1", /*in_file=*/true);
  with.kv_offload_bytes = std::int64_t{1} << 46;
  absl::Status status = run_session(*rank, with);
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the disk has"));
  with.kv_offload_path = "";
  status = run_session(*rank, with);
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()), HasSubstr("bytes of memory on every rank"));
}

}  // namespace
}  // namespace quire::test
