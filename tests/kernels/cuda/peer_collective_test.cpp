// Ranks that read each other's memory after a barrier kernel, as threads over the emulation.
#include "kernels/cuda/collective/peer_collective.h"

#include <latch>

#include "absl/strings/str_cat.h"
#include "tests/kernels/cuda/collective_harness.h"

namespace quire::cuda {
namespace {

class PeerTest : public CollectiveFixture {
 protected:
  static absl::StatusOr<OpenedCollective> open(const Place& place, bool share_memory = true) {
    return open_collective(test::fake_nccl(), place.options, place.stream, share_memory);
  }
  static absl::Status wait(const OpenedCollective& opened, const Place& place) {
    const WatchedWait watched(*opened.watchdog);
    EXPECT_EQ(cudaStreamSynchronize(place.stream), cudaSuccess);
    return opened.watchdog->status();
  }
};

// Round after round each rank writes its memory, meets, and copies what it finds in every peer's.
TEST_F(PeerTest, ReadAfterMeetingWhatPeersWroteBefore) {
  for (int world = 1; world <= 4; ++world) {
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
      SCOPED_TRACE(absl::StrCat("world ", world, " seed ", seed));
      cuda_emulation::set_seed(seed);
      on_ranks(world, kPatienceMs, [](const Place& place) {
        const auto opened = open(place);
        ASSERT_TRUE(opened.ok()) << opened.status();
        Collective& collective = *opened->collective;
        EXPECT_EQ(collective.description(), "nccl 2.34.56, peers in place");
        constexpr std::size_t kBytes = 100;
        // Two halves, as DeviceComm has them: one meeting a round is enough.
        std::vector<std::byte*> halves;
        for (int half = 0; half < 2; ++half) {
          const auto memory = collective.allocate(kBytes, "a half");
          ASSERT_TRUE(memory.ok()) << memory.status();
          halves.push_back(static_cast<std::byte*>(*memory));
        }
        constexpr int kRounds = 12;
        std::vector<std::string> mine, seen;
        for (int round = 0; round < kRounds; ++round) {
          mine.push_back(piece_of(place.rank, round, kBytes));
          for (int r = 0; r < place.options.world; ++r) seen.emplace_back(kBytes, '\0');
        }
        for (int round = 0; round < kRounds; ++round) {
          const auto n = static_cast<std::size_t>(round);
          std::byte* const half = halves[n % 2];
          ASSERT_EQ(cudaMemcpyAsync(half, mine[n].data(), kBytes, cudaMemcpyDefault, place.stream),
                    cudaSuccess);
          collective.meet();
          for (int r = 0; r < place.options.world; ++r) {
            const void* const theirs = collective.peer(half + 3, r);
            ASSERT_NE(theirs, nullptr);
            std::string& to = seen[n * static_cast<std::size_t>(place.options.world) +
                                   static_cast<std::size_t>(r)];
            ASSERT_EQ(
                cudaMemcpyAsync(to.data() + 3, theirs, kBytes - 3, cudaMemcpyDefault, place.stream),
                cudaSuccess);
          }
        }
        collective.meet();  // all have read
        const absl::Status status = wait(*opened, place);
        ASSERT_TRUE(status.ok()) << status;
        for (std::size_t i = 0; i < seen.size(); ++i) {
          const int round = static_cast<int>(i) / place.options.world;
          const int rank = static_cast<int>(i) % place.options.world;
          EXPECT_EQ(seen[i].substr(3), piece_of(rank, round, kBytes).substr(3));
        }
        EXPECT_EQ(collective.peer(mine[0].data(), 0), nullptr);  // no memory of the collective
      });
    }
  }
  cuda_emulation::set_seed(1);
}

TEST_F(PeerTest, APeerThatDoesNotMeetIsADeadline) {
  std::latch gone(2);
  on_ranks(3, 300, [&](const Place& place) {
    const auto opened = open(place);
    ASSERT_TRUE(opened.ok()) << opened.status();
    opened->collective->meet();
    ASSERT_TRUE(wait(*opened, place).ok());
    if (place.rank == 2) {
      gone.wait();
      return;
    }
    opened->collective->meet();
    EXPECT_EQ(wait(*opened, place).code(), absl::StatusCode::kDeadlineExceeded);
    gone.count_down();
  });
}

TEST_F(PeerTest, AbortFreesARankThatMeets) {
  std::latch aborted(1);
  on_ranks(2, kPatienceMs, [&](const Place& place) {
    const auto opened = open(place);
    ASSERT_TRUE(opened.ok()) << opened.status();
    if (place.rank == 1) {
      aborted.wait();
      opened->collective->abort();
      return;
    }
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      opened->collective->abort();
      aborted.count_down();
    });
    opened->collective->meet();
    EXPECT_EQ(wait(*opened, place).code(), absl::StatusCode::kAborted);
    other.join();
  });
}

// All of them gather, and the collective works.
TEST_F(PeerTest, WhereOneRankDoesNotShareNobodyReadsInPlace) {
  on_ranks(3, kPatienceMs, [](const Place& place) {
    const auto opened = open(place, place.rank != 2);
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(opened->collective->description(), "nccl 2.34.56");
    const auto memory = opened->collective->allocate(48 * 3, "parts");
    ASSERT_TRUE(memory.ok());
    EXPECT_EQ(opened->collective->peer(*memory, 0), nullptr);
    const absl::Status status =
        exchange_and_check(*opened->collective, place, static_cast<std::byte*>(*memory), 1, 48,
                           [&] { return wait(*opened, place); });
    EXPECT_TRUE(status.ok()) << status;
  });
}

}  // namespace
}  // namespace quire::cuda
