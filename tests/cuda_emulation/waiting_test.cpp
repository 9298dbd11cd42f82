// Kernels that wait for each other: blocks of a grid, devices of one process, processes.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <thread>
#include <vector>

#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/device_array.h"
#include "tests/cuda_emulation/sample_kernels.h"

namespace quire {
namespace {

using cuda_emulation::DeviceArray;

TEST(Waiting, ABlockWaitsForAnother) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    cuda_emulation::set_seed(seed);
    DeviceArray<uint32_t> flag(std::vector<uint32_t>{0});
    DeviceArray<int> out(1);
    ASSERT_EQ(samples::wait_for_block(flag.data(), out.data(), false, nullptr), cudaSuccess);
    EXPECT_EQ(out.get()[0], 42);
  }
}

TEST(Waiting, ALockIsHeldByOneThread) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    cuda_emulation::set_seed(seed);
    DeviceArray<unsigned> lock(std::vector<unsigned>{0});
    DeviceArray<int> sum(std::vector<int>{0});
    ASSERT_EQ(samples::locked_sum(lock.data(), sum.data(), 12, nullptr), cudaSuccess);
    EXPECT_EQ(sum.get()[0], 12 * 33);
  }
}

TEST(WaitingDeathTest, AFlagThatNobodySets) {
  cuda_emulation::set_spin_limit_seconds(1);
  DeviceArray<uint32_t> flag(std::vector<uint32_t>{0});
  DeviceArray<int> out(1);
  EXPECT_DEATH(static_cast<void>(samples::wait_for_block(flag.data(), out.data(), true, nullptr)),
               "have waited for 1 s, and nothing came");
  cuda_emulation::set_spin_limit_seconds(30);
}

TEST(Waiting, AllResidentBlocksMeet) {
  int per_multiprocessor = 0;
  ASSERT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, nullptr, 64, 0),
            cudaSuccess);
  cudaDeviceProp properties;
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  const int blocks = per_multiprocessor * properties.multiProcessorCount;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    cuda_emulation::set_seed(seed);
    DeviceArray<unsigned> counter(std::vector<unsigned>{0});
    DeviceArray<unsigned> sum(std::vector<unsigned>{0});
    DeviceArray<unsigned> out(static_cast<size_t>(blocks));
    ASSERT_EQ(samples::grid_barrier(counter.data(), sum.data(), out.data(), blocks, nullptr),
              cudaSuccess);
    for (const unsigned x : out.get()) {
      EXPECT_EQ(x, static_cast<unsigned>(blocks * (blocks + 1) / 2));
    }
  }
}

TEST(WaitingDeathTest, MoreBlocksThanTheDeviceHoldsCannotMeet) {
  cuda_emulation::set_spin_limit_seconds(1);
  DeviceArray<unsigned> counter(std::vector<unsigned>{0});
  DeviceArray<unsigned> sum(std::vector<unsigned>{0});
  DeviceArray<unsigned> out(9);
  EXPECT_DEATH(
      static_cast<void>(samples::grid_barrier(counter.data(), sum.data(), out.data(), 9, nullptr)),
      "all other blocks under way \\(8 of 9\\) have waited");
  cuda_emulation::set_spin_limit_seconds(30);
}

constexpr int kCount = 1000;

float value_of(int rank, int i) {
  return static_cast<float>(rank + 1) / static_cast<float>(i + 3);
}

std::vector<float> data_of(int rank) {
  std::vector<float> data(kCount);
  for (int i = 0; i < kCount; ++i) data[static_cast<size_t>(i)] = value_of(rank, i);
  return data;
}

float expected_sum(int ranks, int i) {
  float sum = 0.0f;
  for (int rank = 0; rank < ranks; ++rank) sum += value_of(rank, i);
  return sum;
}

TEST(Waiting, RanksOnThreadsOfOneProcessMeet) {
  constexpr int kRanks = 3;
  std::vector<std::unique_ptr<DeviceArray<float>>> data;
  std::vector<std::unique_ptr<DeviceArray<uint32_t>>> flags;
  std::vector<std::unique_ptr<DeviceArray<float>>> sums;
  samples::Ranks ranks = {};
  ranks.count = kRanks;
  for (int rank = 0; rank < kRanks; ++rank) {
    ASSERT_EQ(cudaSetDevice(rank), cudaSuccess);
    data.push_back(std::make_unique<DeviceArray<float>>(data_of(rank)));
    flags.push_back(std::make_unique<DeviceArray<uint32_t>>(std::vector<uint32_t>(2, 0)));
    sums.push_back(std::make_unique<DeviceArray<float>>(kCount));
    ranks.data[rank] = data.back()->data();
    ranks.flags[rank] = flags.back()->data();
  }
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      ASSERT_EQ(cudaSetDevice(rank), cudaSuccess);
      cudaStream_t stream = nullptr;
      ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
      samples::Ranks mine = ranks;
      mine.self = rank;
      for (uint32_t epoch = 1; epoch <= 20; ++epoch) {
        ASSERT_EQ(samples::sum_over_ranks(mine, sums[rank]->data(), kCount, epoch, stream),
                  cudaSuccess);
      }
      ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int rank = 0; rank < kRanks; ++rank) {
    const std::vector<float> got = sums[rank]->get();
    for (int i = 0; i < kCount; ++i) ASSERT_EQ(got[i], expected_sum(kRanks, i));
  }
}

struct SharedRank {
  cudaIpcMemHandle_t data, flags;
};

// One rank as a process: gives its handles through `to`, takes the other's from `from`.
bool run_process(int rank, int from, int to) {
  DeviceArray<float> data(data_of(rank));
  DeviceArray<uint32_t> flags(std::vector<uint32_t>(2, 0));
  DeviceArray<float> sum(kCount);
  SharedRank mine;
  SharedRank other;
  if (cudaIpcGetMemHandle(&mine.data, data.data()) != cudaSuccess ||
      cudaIpcGetMemHandle(&mine.flags, flags.data()) != cudaSuccess ||
      write(to, &mine, sizeof(mine)) != sizeof(mine) ||
      read(from, &other, sizeof(other)) != sizeof(other)) {
    return false;
  }
  void* opened[2] = {};
  if (cudaIpcOpenMemHandle(&opened[0], other.data, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess ||
      cudaIpcOpenMemHandle(&opened[1], other.flags, cudaIpcMemLazyEnablePeerAccess) !=
          cudaSuccess) {
    return false;
  }
  samples::Ranks ranks = {};
  ranks.count = 2;
  ranks.self = rank;
  ranks.data[rank] = data.data();
  ranks.flags[rank] = flags.data();
  ranks.data[1 - rank] = static_cast<const float*>(opened[0]);
  ranks.flags[1 - rank] = static_cast<uint32_t*>(opened[1]);
  for (uint32_t epoch = 1; epoch <= 5; ++epoch) {
    if (samples::sum_over_ranks(ranks, sum.data(), kCount, epoch, nullptr) != cudaSuccess) {
      return false;
    }
  }
  const std::vector<float> got = sum.get();
  for (int i = 0; i < kCount; ++i) {
    if (got[static_cast<size_t>(i)] != expected_sum(2, i)) return false;
  }
  // The other may still read: both say that they are done before either frees.
  char done = 1;
  if (write(to, &done, 1) != 1 || read(from, &done, 1) != 1) return false;
  return cudaIpcCloseMemHandle(opened[0]) == cudaSuccess &&
         cudaIpcCloseMemHandle(opened[1]) == cudaSuccess;
}

TEST(Waiting, RanksInTwoProcessesMeet) {
  int there[2];
  int back[2];
  ASSERT_EQ(pipe(there), 0);
  ASSERT_EQ(pipe(back), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);
    _exit(run_process(1, there[0], back[1]) ? 0 : 1);
  }
  close(there[0]);
  close(back[1]);
  EXPECT_TRUE(run_process(0, back[0], there[1]));
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  close(there[1]);
  close(back[0]);
}

}  // namespace
}  // namespace quire
