// Ranks as threads, each on an emulated device and a stream of its own, over the fake NCCL. Streams
// are deferred: work is done when somebody waits, as on a GPU.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/collective/nccl_collective.h"
#include "tests/cuda_emulation/control.h"
#include "tests/fakes/fake_nccl.h"

namespace quire::cuda {

inline constexpr int kPatienceMs = 20000;

// A rank: a thread with a device and a stream of its own.
struct Place {
  int rank = 0;
  cudaStream_t stream = nullptr;
  CollectiveOptions options;
};

class CollectiveFixture : public testing::Test {
 protected:
  void SetUp() override { cuda_emulation::set_stream_mode(cuda_emulation::StreamMode::kDeferred); }
  void TearDown() override {
    cuda_emulation::set_stream_mode(cuda_emulation::StreamMode::kEager);
    EXPECT_EQ(test::fake_nccl_communicators(), 0);
    test::set_fake_nccl({});
  }

  // Runs `body` for the first `present` of `world` ranks at once.
  static void on_ranks(int world, int deadline_ms, const std::function<void(const Place&)>& body,
                       int present = -1) {
    const absl::StatusOr<std::string> id = make_nccl_id(test::fake_nccl());
    if (!id.ok()) {
      EXPECT_EQ(id.status().code(), absl::StatusCode::kResourceExhausted);
      return;
    }
    std::vector<std::thread> threads;
    for (int rank = 0; rank < (present < 0 ? world : present); ++rank) {
      threads.emplace_back([&, rank] {
        Place place{rank, nullptr, {rank, world, *id, deadline_ms}};
        ASSERT_EQ(cudaSetDevice(rank), cudaSuccess);
        ASSERT_EQ(cudaStreamCreateWithFlags(&place.stream, cudaStreamNonBlocking), cudaSuccess);
        body(place);
        ASSERT_EQ(cudaStreamDestroy(place.stream), cudaSuccess);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
};

inline std::string piece_of(int rank, int round, std::size_t bytes) {
  std::string piece(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) {
    piece[i] = static_cast<char>(31 * rank + 7 * round + static_cast<int>(i));
  }
  return piece;
}

// One round of gather and one of broadcast; what a rank of a working group must see.
inline absl::Status exchange_and_check(Collective& collective, const Place& place,
                                       std::byte* memory, int round, std::size_t bytes,
                                       const std::function<absl::Status()>& wait) {
  const auto world = static_cast<std::size_t>(place.options.world);
  const std::string mine = piece_of(place.rank, round, bytes);
  std::byte* own = memory + static_cast<std::size_t>(place.rank) * bytes;
  std::string all(world * bytes, '\0'), sent(bytes, '\0');
  EXPECT_EQ(cudaMemcpyAsync(own, mine.data(), bytes, cudaMemcpyDefault, place.stream), cudaSuccess);
  collective.all_gather(own, memory, bytes);
  EXPECT_EQ(cudaMemcpyAsync(all.data(), memory, all.size(), cudaMemcpyDefault, place.stream),
            cudaSuccess);
  const int root = round % place.options.world;
  collective.broadcast(own, bytes, root);
  EXPECT_EQ(cudaMemcpyAsync(sent.data(), own, bytes, cudaMemcpyDefault, place.stream), cudaSuccess);
  if (absl::Status status = wait(); !status.ok()) return status;
  for (std::size_t r = 0; r < world; ++r) {
    EXPECT_EQ(all.substr(r * bytes, bytes), piece_of(static_cast<int>(r), round, bytes));
  }
  EXPECT_EQ(sent, piece_of(root, round, bytes));
  return absl::OkStatus();
}

}  // namespace quire::cuda
