// The team of threads under thousands of tiny commands, failing host tasks and empty lists.
#include "kernels/cpu/team.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <utility>
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

Command by_rows(const std::shared_ptr<const RowShares>& shares,
                std::function<void(Range run, int thread)> fn) {
  return {.by_rows = std::move(fn), .shares = shares};
}

// Between commands that divide their rows alike nobody waits: thread 0 does both of them while
// thread 1 is in the first. Commands of other shares, or of none, begin when all have ended.
TEST(Team, AThreadGoesOnWithItsOwnRows) {
  Team team(2);
  const auto shares = std::make_shared<RowShares>(30, 2, 6);
  for (const bool by_other_shares : {false, true}) {
    std::atomic<bool> second{false}, first_of_1{false};
    std::atomic<int> ended{0};
    bool waited_for = false;
    const auto last = [&](auto, int) {
      if (ended != 2) ended = -100;
    };
    const auto others = std::make_shared<RowShares>(30, 2, 6);
    const std::vector<Command> list = {
        by_rows(shares,
                [&](Range, int thread) {
                  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
                  while (thread == 1 && !second && std::chrono::steady_clock::now() < deadline) {
                    std::this_thread::yield();
                  }
                  if (thread == 1) first_of_1 = true;
                }),
        by_rows(shares,
                [&](Range run, int thread) {
                  EXPECT_EQ(run.size(), 15);
                  if (thread == 0) waited_for = first_of_1;
                  if (thread == 0) second = true;
                  ++ended;
                }),
        by_other_shares ? by_rows(others, last) : Command{.compute = last}};
    EXPECT_TRUE(team.run(list).ok());
    EXPECT_FALSE(waited_for);
    EXPECT_EQ(ended, 2);
  }
}

// From a command that begins groups on, a thread does those that are in them with one group of its
// rows after the other.
TEST(Team, GroupsOfRowsGoOneAfterTheOther) {
  const auto shares = std::make_shared<RowShares>(20, 2, 4);
  std::vector<std::vector<std::pair<char, int>>> seen(2);  // command and first row, by thread
  const auto note = [&](char name) {
    return by_rows(shares, [&seen, name](Range run, int thread) {
      seen[static_cast<std::size_t>(thread)].emplace_back(name, run.begin);
    });
  };
  std::vector<Command> list = {note('a'), note('b'), note('c'), note('d'), note('e'), note('f')};
  list[1].begins_groups = list[4].begins_groups = true;
  list[2].may_be_grouped = list[5].may_be_grouped = true;
  Team team(2);
  EXPECT_TRUE(team.run(list).ok());
  for (int thread = 0; thread < 2; ++thread) {
    const int at = 10 * thread;  // groups of 3, 3 and 4 rows
    const std::vector<std::pair<char, int>> expected = {
        {'a', at},     {'b', at},     {'c', at},     {'b', at + 3}, {'c', at + 3},
        {'b', at + 6}, {'c', at + 6}, {'d', at},     {'e', at},     {'f', at},
        {'e', at + 3}, {'f', at + 3}, {'e', at + 6}, {'f', at + 6}};
    EXPECT_EQ(seen[static_cast<std::size_t>(thread)], expected);
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

// Every row is in one share and one group of it, and none is parted from those it belongs to.
TEST(Team, SharesAndTheirGroupsKeepSequencesTogether) {
  std::mt19937 random(20261130);
  for (const int threads : {1, 2, 3, 7}) {
    for (int round = 0; round < 200; ++round) {
      std::vector<std::int32_t> begin = {0};
      const auto longest = 1 + random() % 9;
      for (auto n = random() % 40; n > 0; --n) {
        begin.push_back(begin.back() + 1 + static_cast<std::int32_t>(random() % longest));
      }
      RowShares shares(begin.back(), threads, 6);
      const auto check = [&](bool whole) {
        int end = 0;
        for (int thread = 0; thread < threads; ++thread) {
          ASSERT_EQ(shares.of(thread).begin, end);
          for (int g = 0; g < shares.num_groups(thread); ++g) {
            const Range group = shares.group(thread, g);
            ASSERT_EQ(group.begin, end);
            end = group.end;
            ASSERT_LE(group.size(), whole ? 6 + static_cast<int>(longest) : 6);
            if (!group.empty()) {
              EXPECT_EQ(shares.group_at(thread, group.begin).begin, group.begin);
            }
            ASSERT_TRUE(!whole || std::binary_search(begin.begin(), begin.end(), end));
          }
          ASSERT_EQ(shares.of(thread).end, end);
          ASSERT_LE(shares.of(thread).size(),
                    begin.back() / threads + 1 + (whole ? static_cast<int>(longest) : 0));
        }
        ASSERT_EQ(end, begin.back());
      };
      check(false);
      shares.keep_together(begin);
      check(true);
    }
  }
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
          list.push_back({nullptr,
                          [&hosted, fails] {
                            ++hosted;
                            return fails ? absl::UnavailableError("a peer left") : absl::OkStatus();
                          },
                          nullptr, nullptr});
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
