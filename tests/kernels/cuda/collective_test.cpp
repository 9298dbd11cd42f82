// The collective over NCCL: its protocol over a fake library that delays, fails and forgets by
// seed, with ranks as threads on emulated devices; and the real library's table, where there is
// one.
#include <gmock/gmock.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "tests/kernels/cuda/collective_harness.h"
#include "worker/session/exit_code.h"

namespace quire::cuda {
namespace {

using test::FakeNcclScript;
using testing::HasSubstr;

class CollectiveTest : public CollectiveFixture {
 protected:
  static absl::StatusOr<std::unique_ptr<NcclCollective>> open(const Place& place) {
    return open_nccl(test::fake_nccl(), place.options, place.stream);
  }
  // As Device::wait() does it.
  static absl::Status wait(NcclCollective& collective, const Place& place) {
    const auto watchdog = collective.watchdog();
    const WatchedWait watched(*watchdog);
    EXPECT_EQ(cudaStreamSynchronize(place.stream), cudaSuccess);
    return watchdog->status();
  }
};

// What a session does with a collective, in short. The first error.
absl::Status live(const Place& place, int rounds,
                  const std::function<absl::StatusOr<std::unique_ptr<NcclCollective>>()>& open,
                  const std::function<absl::Status(NcclCollective&)>& wait) {
  auto collective = open();
  if (!collective.ok()) return collective.status();
  constexpr std::size_t kBytes = 48;
  const auto memory =
      (*collective)->allocate(kBytes * static_cast<std::size_t>(place.options.world), "parts");
  if (!memory.ok()) return memory.status();
  for (int round = 0; round < rounds; ++round) {
    absl::Status status = exchange_and_check(**collective, place, static_cast<std::byte*>(*memory),
                                             round, kBytes, [&] { return wait(**collective); });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

TEST_F(CollectiveTest, MovesBytesInEveryOrderOfArrival) {
  for (int world = 1; world <= 4; ++world) {
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
      SCOPED_TRACE(absl::StrCat("world ", world, " seed ", seed));
      FakeNcclScript script;
      script.seed = seed;
      script.max_delay_us = 300;
      script.max_polls = 3;
      test::set_fake_nccl(script);
      on_ranks(world, kPatienceMs, [](const Place& place) {
        const absl::Status status = live(
            place, 5, [&] { return open(place); },
            [&](NcclCollective& collective) { return wait(collective, place); });
        EXPECT_TRUE(status.ok()) << status;
      });
      EXPECT_EQ(test::fake_nccl_disagreement(), "");
    }
  }
}

TEST_F(CollectiveTest, ExchangesHostBytes) {
  on_ranks(3, kPatienceMs, [](const Place& place) {
    auto collective = open(place);
    ASSERT_TRUE(collective.ok()) << collective.status();
    EXPECT_EQ((*collective)->description(), "nccl 2.34.56");
    for (int round = 0; round < 3; ++round) {
      const auto all = (*collective)->exchange(piece_of(place.rank, round, 19));
      ASSERT_TRUE(all.ok()) << all.status();
      ASSERT_EQ(all->size(), 3u);
      for (int r = 0; r < 3; ++r) {
        EXPECT_EQ((*all)[static_cast<std::size_t>(r)], piece_of(r, round, 19));
      }
    }
  });
}

TEST_F(CollectiveTest, ARankThatNeverJoinsIsADeadline) {
  on_ranks(
      3, 200,
      [](const Place& place) {
        const auto collective = open(place);
        EXPECT_EQ(collective.status().code(), absl::StatusCode::kDeadlineExceeded);
        EXPECT_THAT(
            std::string(collective.status().message()),
            HasSubstr("not all 3 ranks joined the group's NCCL communicator within 200 ms"));
      },
      2);
}

TEST_F(CollectiveTest, APeerThatDoesNotArriveIsADeadline) {
  FakeNcclScript script;
  script.missing_rank = 1;
  script.missing_exchange = 4;
  test::set_fake_nccl(script);
  on_ranks(3, 300, [](const Place& place) {
    int rounds = 0;
    const absl::Status status = live(
        place, 5, [&] { return open(place); },
        [&](NcclCollective& collective) {
          ++rounds;
          return wait(collective, place);
        });
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("did not arrive"));
    EXPECT_EQ(rounds, 2);  // two exchanges a round
    EXPECT_EQ(exit_code(Stage::kServing, status), kExitTemporary);
  });
}

TEST_F(CollectiveTest, AbortFreesARankThatWaits) {
  FakeNcclScript script;
  script.missing_rank = 1;
  script.missing_exchange = 1;
  test::set_fake_nccl(script);
  on_ranks(2, kPatienceMs, [](const Place& place) {
    auto collective = open(place);
    ASSERT_TRUE(collective.ok()) << collective.status();
    EXPECT_EQ(*(*collective)->abort_word(), 0u);
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      (*collective)->abort();
    });
    const auto memory = (*collective)->allocate(64, "a part");
    ASSERT_TRUE(memory.ok());
    (*collective)->broadcast(*memory, 64, 0);
    const absl::Status status = wait(**collective, place);
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
    EXPECT_EQ(*(*collective)->abort_word(), 1u);
    other.join();
    // From here on nothing happens, and nothing waits.
    (*collective)->broadcast(*memory, 64, 1);
    EXPECT_EQ(wait(**collective, place).code(), absl::StatusCode::kAborted);
    EXPECT_EQ((*collective)->exchange("mine").status().code(), absl::StatusCode::kAborted);
  });
}

// Joining is bounded by the stream's fate too: abort() before anyone else came.
TEST_F(CollectiveTest, WhatFailedOutlivesTheCollective) {
  on_ranks(1, kPatienceMs, [](const Place& place) {
    auto collective = open(place);
    ASSERT_TRUE(collective.ok());
    const std::shared_ptr<Watchdog> watchdog = (*collective)->watchdog();
    (*collective)->abort();
    collective->reset();
    const WatchedWait watched(*watchdog);
    EXPECT_EQ(watchdog->status().code(), absl::StatusCode::kAborted);
  });
}

// Call after call of the table fails, at once or behind our back: the rank that it hits says so
// with exit code 71, its peers come out by their deadline, and nothing stays open.
class FailingCalls : public CollectiveTest, public testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(When, FailingCalls, testing::Bool(),
                         [](const auto& later) { return later.param ? "Later" : "AtOnce"; });

TEST_P(FailingCalls, EndInAnError) {
  constexpr int kWorld = 3, kRounds = 2;
  const auto run = [&](int deadline_ms) {
    std::vector<absl::Status> statuses(kWorld);
    on_ranks(kWorld, deadline_ms, [&](const Place& place) {
      statuses[static_cast<std::size_t>(place.rank)] = live(
          place, kRounds, [&] { return open(place); },
          [&](NcclCollective& collective) { return wait(collective, place); });
    });
    return statuses;
  };
  FakeNcclScript script;
  test::set_fake_nccl(script);
  for (const absl::Status& status : run(kPatienceMs)) ASSERT_TRUE(status.ok()) << status;
  const int calls = test::fake_nccl_calls();
  // An id, then for each rank joining, two exchanges a round, finalizing.
  ASSERT_EQ(calls, 1 + kWorld * (1 + 2 * kRounds + 1));
  int failed_runs = 0;
  for (int call = 2; call <= calls; ++call) {
    SCOPED_TRACE(absl::StrCat("call ", call));
    script.seed = static_cast<std::uint64_t>(call);
    script.max_delay_us = 200;
    script.max_polls = 2;
    script.fail_call = call;
    script.fail_later = GetParam();
    test::set_fake_nccl(script);
    int hit = 0;
    int ended = 0;
    for (const absl::Status& status : run(150)) {
      if (status.ok()) continue;
      ++ended;
      if (absl::IsDeadlineExceeded(status)) continue;
      ++hit;
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("fake system error"));
      EXPECT_EQ(exit_code(Stage::kServing, status), kExitDevice);
    }
    EXPECT_LE(hit, 1);
    EXPECT_EQ(ended > 0, hit > 0);
    failed_runs += hit;
    EXPECT_EQ(test::fake_nccl_communicators(), 0);
  }
  // Only a failure of the finalizing, the last call of each rank, is nobody's loss.
  EXPECT_GE(failed_runs, calls - 1 - kWorld);
}

TEST_F(CollectiveTest, AFailingIdIsSaid) {
  FakeNcclScript script;
  script.fail_call = 1;
  test::set_fake_nccl(script);
  const auto id = make_nccl_id(test::fake_nccl());
  EXPECT_EQ(id.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(id.status().message()), HasSubstr("NCCL_SOCKET_IFNAME"));
}

TEST_F(CollectiveTest, ALostPeerIsToBeTriedAgain) {
  FakeNcclScript script;
  script.fail_call = 4;
  script.failure = ncclRemoteError;
  script.fail_later = true;
  test::set_fake_nccl(script);
  std::atomic<int> lost{0};
  on_ranks(2, 200, [&](const Place& place) {
    const absl::Status status = live(
        place, 1, [&] { return open(place); },
        [&](NcclCollective& collective) { return wait(collective, place); });
    EXPECT_EQ(exit_code(Stage::kServing, status), kExitTemporary) << status;
    if (absl::IsUnavailable(status)) ++lost;
  });
  EXPECT_EQ(lost, 1);
}

TEST_F(CollectiveTest, AnIdOfAnotherLengthIsRefused) {
  CollectiveOptions options;
  options.world = 2;
  options.id = "short";
  const auto collective = open_nccl(test::fake_nccl(), options, nullptr);
  EXPECT_EQ(collective.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(collective.status().message()), HasSubstr("5 bytes instead of 128"));
}

TEST_F(CollectiveTest, MemoryThatIsNotThereIsSaidWithBothNumbers) {
  on_ranks(1, kPatienceMs, [](const Place& place) {
    auto collective = open(place);
    ASSERT_TRUE(collective.ok());
    const auto memory = (*collective)->allocate(std::size_t{1} << 40, "the parts");
    EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(memory.status().message()),
                HasSubstr("the parts needs 1099511627776 bytes of device memory and"));
  });
}

TEST(NcclLibrary, RealTable) {
  const auto api = load_nccl();
  if (absl::IsNotFound(api.status())) GTEST_SKIP() << api.status().message();
  ASSERT_TRUE(api.ok()) << api.status();
  EXPECT_THAT(nccl_version(*api), testing::StartsWith("2."));
  const auto first = make_nccl_id(*api);
  const auto second = make_nccl_id(*api);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(first->size(), 128u);
  EXPECT_NE(*first, *second);
  EXPECT_THAT(api->get_error_string(ncclSystemError), HasSubstr("system"));
}

TEST(NcclLibrary, MissingOrOtherLibraryIsNamed) {
  const auto missing = load_nccl(std::vector<std::string>{"/nowhere/libnccl.so.2"});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("/nowhere/libnccl.so.2"));
  const auto other = load_nccl(std::vector<std::string>{"libm.so.6"});
  EXPECT_EQ(other.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("ncclGetVersion"));
}

}  // namespace
}  // namespace quire::cuda
