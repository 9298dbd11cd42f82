// What is wrong in a kernel must show: each wrong kernel is caught, its right twin is not. Some are
// caught by a sanitizer first where the build has one.
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/device_array.h"
#include "tests/cuda_emulation/sample_kernels.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace quire {
namespace {

using cuda_emulation::DeviceArray;
using samples::Divergence;
using samples::Place;

class Hazards : public testing::Test {
 protected:
  void SetUp() override {
    cuda_emulation::set_seed(1);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_set_report_path("stderr");  // where a death test looks, whatever log_path says
#endif
  }
};
using HazardsDeathTest = Hazards;

// The threads that read what nobody had written yet.
std::vector<int> wrong_elements(int threads, bool barrier, uint64_t seed) {
  cuda_emulation::set_seed(seed);
  std::vector<int> in(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) in[i] = i;
  DeviceArray<int> from(in);
  DeviceArray<int> to(in.size());
  EXPECT_EQ(samples::reverse(from.data(), to.data(), threads, barrier, nullptr), cudaSuccess);
  const std::vector<int> got = to.get();
  std::vector<int> wrong;
  for (int i = 0; i < threads; ++i) {
    if (got[i] != threads - 1 - i) wrong.push_back(i);
  }
  return wrong;
}

TEST_F(Hazards, AMissingBarrierShowsUnderEverySeed) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    EXPECT_FALSE(wrong_elements(128, false, seed).empty()) << "seed " << seed;
    EXPECT_TRUE(wrong_elements(128, true, seed).empty()) << "seed " << seed;
  }
}

TEST_F(Hazards, AMissingWarpBarrierShowsUnderEverySeed) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    EXPECT_FALSE(wrong_elements(32, false, seed).empty()) << "seed " << seed;
    EXPECT_TRUE(wrong_elements(32, true, seed).empty()) << "seed " << seed;
  }
}

TEST_F(Hazards, OrdersDifferBetweenSeedsAndRepeatWithOne) {
  std::set<std::vector<int>> seen;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<int> wrong = wrong_elements(32, false, seed);
    EXPECT_EQ(wrong_elements(32, false, seed), wrong);
    seen.insert(wrong);
  }
  EXPECT_GE(seen.size(), 15u);
}

TEST_F(Hazards, AMissingWaitForACopyGivesNan) {
  const std::vector<uint16_t> ones(16 * 16, 0x3f80);
  DeviceArray<uint16_t> a(ones);
  DeviceArray<uint16_t> b(std::vector<uint16_t>(8 * 16, 0x3f80));
  DeviceArray<float> c(128);
  ASSERT_EQ(samples::product_bf16(a.data(), b.data(), c.data(), 16, true, nullptr), cudaSuccess);
  for (const float x : c.get()) EXPECT_EQ(x, 16.0f);
  ASSERT_EQ(samples::product_bf16(a.data(), b.data(), c.data(), 16, false, nullptr), cudaSuccess);
  for (const float x : c.get()) EXPECT_TRUE(std::isnan(x));
}

TEST_F(Hazards, ACopyOverWhatIsStillReadGivesNan) {
  constexpr int kStages = 5;
  DeviceArray<float> from(std::vector<float>(kStages * 128, 2.0f));
  DeviceArray<float> out(128);
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    cuda_emulation::set_seed(seed);
    ASSERT_EQ(samples::staged_sum(from.data(), out.data(), kStages, false, nullptr), cudaSuccess);
    for (const float x : out.get()) ASSERT_EQ(x, 2.0f * kStages);
    ASSERT_EQ(samples::staged_sum(from.data(), out.data(), kStages, true, nullptr), cudaSuccess);
    int broken = 0;
    for (const float x : out.get()) broken += std::isnan(x);
    EXPECT_GT(broken, 0) << "seed " << seed;
  }
}

TEST_F(Hazards, UnwrittenMemoryIsNan) {
  DeviceArray<float> out(32);
  for (const float x : out.get()) EXPECT_TRUE(std::isnan(x));
  out.set(std::vector<float>(32, 0.0f));
  for (int run = 0; run < 2; ++run) {  // the second run does not see the first one's values
    ASSERT_EQ(samples::read_unwritten(out.data(), nullptr), cudaSuccess);
    for (const float x : out.get()) EXPECT_TRUE(std::isnan(x));
  }
}

TEST_F(HazardsDeathTest, DivergentBarriersEndWithASentence) {
  EXPECT_DEATH(static_cast<void>(samples::diverge(Divergence::kReturnsEarly, nullptr)),
               "block \\([01],0,0\\) thread \\([0-9]+,0,0\\) .*returned.*divergent barrier");
  EXPECT_DEATH(static_cast<void>(samples::diverge(Divergence::kTwoPlaces, nullptr)),
               "block \\([01],0,0\\) thread .*wrong_kernels.cu:[0-9]+, but thread "
               "\\([0-9]+,0,0\\) waits at .*wrong_kernels.cu:[0-9]+: divergent barrier");
  EXPECT_DEATH(static_cast<void>(samples::diverge(Divergence::kHalfShuffles, nullptr)),
               "block .*waits in __shfl_xor_sync and cannot go on, while thread .* waits at "
               "__syncthreads in .*: divergent barrier");
}

TEST_F(HazardsDeathTest, ShufflesWithLanesThatCannotComeEndWithASentence) {
  EXPECT_DEATH(static_cast<void>(samples::diverge(Divergence::kDeadLane, nullptr)),
               "thread \\(3,0,0\\).* has returned");
  EXPECT_DEATH(static_cast<void>(samples::diverge(Divergence::kForeignMask, nullptr)),
               "mask that does not name the caller");
}

TEST_F(HazardsDeathTest, AccessesOutsideOfABufferNameIt) {
  DeviceArray<float> buffer(100);
  cuda_emulation::name_allocation(buffer.data(), "weights");
  EXPECT_EQ(samples::touch(Place::kGlobalRead, buffer.data(), 99, nullptr), cudaSuccess);
  EXPECT_DEATH(static_cast<void>(samples::touch(Place::kGlobalRead, buffer.data(), 100, nullptr)),
               "thread \\(5,0,0\\) reads 0 bytes behind the end of allocation 'weights' #[0-9]+ of "
               "400 bytes on device 0");
  EXPECT_DEATH(static_cast<void>(samples::touch(Place::kGlobalWrite, buffer.data(), 4100, nullptr)),
               "writes 16000 bytes behind the end of allocation 'weights'");
  EXPECT_DEATH(
      static_cast<void>(samples::touch(Place::kGlobalWrite, buffer.data(), -2000, nullptr)),
      "before the start of allocation 'weights'");
}

TEST_F(HazardsDeathTest, WritesIntoTheRoundingAreFoundAtTheNextWait) {
  DeviceArray<float> buffer(101);  // 404 bytes: 12 more up to the pages
  EXPECT_DEATH(
      {
        static_cast<void>(samples::touch(Place::kGlobalWrite, buffer.data(), 102, nullptr));
        cudaDeviceSynchronize();
      },
      "allocation #[0-9]+ of 404 bytes .* was written behind its end|use-after-poison");
}

TEST_F(HazardsDeathTest, FreedMemoryIsGone) {
  void* pointer = nullptr;
  ASSERT_EQ(cudaMalloc(&pointer, 4096), cudaSuccess);
  auto* floats = static_cast<float*>(pointer);
  ASSERT_EQ(cudaFree(pointer), cudaSuccess);
  EXPECT_DEATH(static_cast<void>(samples::touch(Place::kGlobalRead, floats, 1, nullptr)),
               "points to no memory of a device");
}

TEST_F(HazardsDeathTest, SharedMemoryEndsWhereItsArraysEnd) {
  DeviceArray<float> buffer(1);
  EXPECT_EQ(samples::touch(Place::kDynamicShared, buffer.data(), 99, nullptr), cudaSuccess);
  EXPECT_DEATH(
      static_cast<void>(samples::touch(Place::kDynamicShared, buffer.data(), 100, nullptr)),
      "outside of shared array 'dynamic shared memory'");
  EXPECT_EQ(samples::touch(Place::kStaticShared, buffer.data(), 9, nullptr), cudaSuccess);
  EXPECT_DEATH(static_cast<void>(samples::touch(Place::kStaticShared, buffer.data(), 12, nullptr)),
               "outside of shared array 'ten'|out of bounds");
  EXPECT_DEATH(static_cast<void>(samples::touch(Place::kStaticShared, buffer.data(), 10, nullptr)),
               "shared array 'ten' of 40 bytes was written behind its end|out of bounds");
}

TEST_F(HazardsDeathTest, MisalignedVectorAccess) {
  DeviceArray<float> buffer(16);
  EXPECT_DEATH(static_cast<void>(samples::touch(Place::kMisaligned, buffer.data(), 1, nullptr)),
               "load16 with address .*not a multiple of 16");
}

TEST_F(HazardsDeathTest, AHostPointerAsArgument) {
  float on_host[4] = {};
  EXPECT_DEATH(static_cast<void>(samples::scale(on_host, 4, 1.0f, nullptr)),
               "argument 1 is .*no memory of a device");
}

TEST_F(HazardsDeathTest, ADeepStack) {
  DeviceArray<int> out(1);
  EXPECT_EQ(samples::recurse(50, out.data(), nullptr), cudaSuccess);
  EXPECT_DEATH(static_cast<void>(samples::recurse(4000, out.data(), nullptr)),
               "has used up its stack");
}

}  // namespace
}  // namespace quire
