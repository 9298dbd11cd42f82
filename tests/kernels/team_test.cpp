// The team of threads under thousands of tiny commands, failing host tasks and empty lists.
#include "kernels/cpu/team.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "kernels/cpu/share.h"
#include "tests/kernels/harness.h"

namespace quire::cpu {
namespace {

TEST(Team, EveryThreadRunsEveryCommandInOrder) {
  for (const int threads : {1, 2, 3, 4}) {
    Team team(threads);
    constexpr int kCommands = 500;
    // Before command i starts, every thread must have finished command i - 1.
    std::vector<std::vector<int>> finished(static_cast<std::size_t>(threads),
                                           std::vector<int>(kCommands, 0));
    std::atomic<int> violations{0};
    std::vector<Command> list;
    for (int i = 0; i < kCommands; ++i) {
      list.push_back(
          {[&, i](int thread, int num_threads) {
             for (int t = 0; i > 0 && t < num_threads; ++t) {
               if (finished[static_cast<std::size_t>(t)][static_cast<std::size_t>(i - 1)] != 1)
                 ++violations;
             }
             ++finished[static_cast<std::size_t>(thread)][static_cast<std::size_t>(i)];
           },
           nullptr});
    }
    EXPECT_TRUE(team.run(list).ok());
    EXPECT_EQ(violations, 0);
    for (const std::vector<int>& own : finished) {
      EXPECT_EQ(std::accumulate(own.begin(), own.end(), 0), kCommands);
    }
  }
}

// Between commands of the same rows nobody waits: thread 0 does both of them while thread 1 is in
// the first. Commands of other rows, or of none, begin when all have ended.
TEST(Team, AThreadGoesOnWithItsOwnRows) {
  Team team(2);
  for (const int next_rows : {0, 7}) {
    std::atomic<bool> second{false}, first_of_1{false};
    std::atomic<int> ended{0};
    bool waited_for = false;
    const auto last = [&](int, int) {
      if (ended != 2) ended = -100;
    };
    const std::vector<Command> list = {
        {.compute =
             [&](int thread, int) {
               const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
               while (thread == 1 && !second && std::chrono::steady_clock::now() < deadline) {
                 std::this_thread::yield();
               }
               if (thread == 1) first_of_1 = true;
             },
         .host = nullptr,
         .rows = 30},
        {.compute =
             [&](int thread, int) {
               if (thread == 0) waited_for = first_of_1;
               if (thread == 0) second = true;
               ++ended;
             },
         .host = nullptr,
         .rows = 30},
        {.compute = last, .host = nullptr, .rows = next_rows}};
    EXPECT_TRUE(team.run(list).ok());
    EXPECT_FALSE(waited_for);
    EXPECT_EQ(ended, 2);
  }
}

TEST(Team, EveryRowIsDividedOnce) {
  for (const int n : {0, 1, 5, 24, 77}) {
    for (const int threads : {1, 2, 3, 16}) {
      int end = 0;
      for (int thread = 0; thread < threads; ++thread) {
        const Range share = share_of(n, thread, threads);
        EXPECT_EQ(share.begin, end);
        EXPECT_LE(share.size(), n / threads + 1);
        end = share.end;
      }
      EXPECT_EQ(end, n);
    }
  }
  EXPECT_FALSE(divides_rows(1, 2));
  EXPECT_TRUE(divides_rows(64, 2));
  EXPECT_FALSE(divides_rows(64, 16));
}

TEST(Team, RandomListsWithFailingHostTasks) {
  constexpr std::uint32_t kSeed = 20261123;
  RecordProperty("seed", kSeed);
  std::mt19937 random(kSeed);
  for (const int threads : {1, 2, 3}) {
    Team team(threads);
    for (int round = 0; round < 600; ++round) {
      const int size = static_cast<int>(random() % 12);
      const int fails_at = random() % 3 == 0 ? static_cast<int>(random() % 12) : -1;
      std::atomic<int> computed{0};
      int hosted = 0;
      int expected_computed = 0, expected_hosted = 0;
      bool failing = false;
      std::vector<Command> list;
      for (int i = 0; i < size; ++i) {
        const bool host = i == fails_at || random() % 4 == 0;
        const bool fails = i == fails_at;
        if (!failing) (host ? expected_hosted : expected_computed) += host ? 1 : threads;
        failing = failing || fails;
        if (host) {
          list.push_back({nullptr, [&hosted, fails] {
                            ++hosted;
                            return fails ? absl::UnavailableError("a peer left") : absl::OkStatus();
                          }});
        } else {
          list.push_back({[&computed](int, int) { ++computed; }, nullptr});
        }
      }
      const absl::Status status = team.run(list);
      ASSERT_EQ(status.ok(), !failing) << "round " << round;
      ASSERT_EQ(computed, expected_computed) << "round " << round;
      ASSERT_EQ(hosted, expected_hosted) << "round " << round;
    }
  }
}

TEST(Device, AnErrorOfAHostTaskDropsTheRestAndTheDeviceGoesOn) {
  for (const char* name : {"reference", "avx512", "avx2"}) {
    const auto device = test::open_backend(name);
    if (device == nullptr) continue;
    int ran = 0;
    device->host_task([&ran] {
      ++ran;
      return absl::OkStatus();
    });
    device->host_task([] { return absl::DeadlineExceededError("rank 1 did not arrive"); });
    device->host_task([&ran] {
      ran += 100;
      return absl::OkStatus();
    });
    EXPECT_EQ(device->wait(), absl::DeadlineExceededError("rank 1 did not arrive")) << name;
    EXPECT_EQ(ran, 1);
    EXPECT_TRUE(device->wait().ok());  // nothing left over
    device->host_task([&ran] {
      ++ran;
      return absl::OkStatus();
    });
    EXPECT_TRUE(device->wait().ok());
    EXPECT_EQ(ran, 2);
  }
}

TEST(Device, MemoryIsAlignedZeroedAndBounded) {
  for (const char* name : {"reference", "avx512", "avx2"}) {
    const auto device = test::open_backend(name);
    if (device == nullptr) continue;
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{5} << 20}) {
      const auto memory = device->allocate(bytes, "a test");
      ASSERT_TRUE(memory.ok());
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(*memory) % 64, 0u);
      const auto* p = static_cast<const unsigned char*>(*memory);
      for (std::size_t i = 0; i < bytes; i += 997) ASSERT_EQ(p[i], 0);
      device->free(*memory);
    }
    for (const std::size_t bytes : {std::size_t{1} << 60, ~std::size_t{0}}) {
      const auto memory = device->allocate(bytes, "the KV arena");
      EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
      EXPECT_NE(memory.status().message().find("the KV arena"), absl::string_view::npos);
    }
  }
}

TEST(Device, OptionsAreChecked) {
  DeviceOptions options;
  options.kind = "cuda";
  EXPECT_EQ(open_device(options).status().code(), absl::StatusCode::kNotFound);
  options.kind = "cpu";
  options.isa = "sse9";
  EXPECT_EQ(open_device(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.isa = "auto";
  options.dtype = "float64";
  EXPECT_EQ(open_device(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.dtype = "auto";
  options.num_threads = -1;
  EXPECT_EQ(open_device(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.kind = "auto";
  options.num_threads = 1;
  ASSERT_TRUE(open_device(options).ok());
}

TEST(Device, NumericsIdsTellPathsApart) {
  std::vector<std::string> ids;
  for (const char* name : {"reference", "avx512", "avx2"}) {
    for (const char* dtype : {"auto", "float32"}) {
      const auto device = test::open_backend(name, 1, dtype);
      if (device == nullptr) continue;
      // The number of threads is no part of it, the dtype is (the reference knows only one).
      EXPECT_EQ(device->numerics_id(), test::open_backend(name, 2, dtype)->numerics_id());
      if (std::string(name) != "reference") ids.push_back(device->numerics_id());
    }
  }
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(std::adjacent_find(ids.begin(), ids.end()), ids.end());
}

}  // namespace
}  // namespace quire::cpu
