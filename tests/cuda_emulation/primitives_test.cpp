// Every primitive of the device header against a scalar definition, over several orders of lanes.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/device_array.h"
#include "tests/cuda_emulation/sample_kernels.h"

namespace quire {
namespace {

using cuda_emulation::DeviceArray;

class Primitives : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { cuda_emulation::set_seed(static_cast<uint64_t>(GetParam())); }
  std::mt19937 random_{static_cast<unsigned>(GetParam())};
};
INSTANTIATE_TEST_SUITE_P(Seeds, Primitives, testing::Values(1, 2, 3, 77, 1234567));

TEST_P(Primitives, WarpOperationsAreWhatCudaDefines) {
  std::vector<int> v(32);
  for (int& x : v) x = static_cast<int>(random_() % 11) - 5;
  DeviceArray<int> values(v);
  DeviceArray<samples::WarpResults> out(1);
  ASSERT_EQ(samples::warp_primitives(values.data(), out.data(), nullptr), cudaSuccess);
  const samples::WarpResults r = out.get()[0];

  unsigned positive = 0;
  int sum = 0;
  int most = v[0];
  bool any = false;
  bool all = true;
  for (int lane = 0; lane < 32; ++lane) {
    positive |= unsigned{v[lane] > 0} << lane;
    sum += v[lane];
    most = std::max(most, v[lane]);
    any |= v[lane] == v[7];
    all &= v[lane] == v[7];
  }
  // The butterfly's order of a float sum, lane by lane.
  std::vector<float> tree(32);
  for (int lane = 0; lane < 32; ++lane) tree[lane] = static_cast<float>(v[lane]) * 0.1f;
  for (int distance = 16; distance > 0; distance /= 2) {
    const std::vector<float> before = tree;
    for (int lane = 0; lane < 32; ++lane) tree[lane] = before[lane] + before[lane ^ distance];
  }
  for (int lane = 0; lane < 32; ++lane) {
    SCOPED_TRACE(lane);
    EXPECT_EQ(r.by_xor[lane], v[lane ^ 5]);
    EXPECT_EQ(r.down[lane], v[lane + 3 < 32 ? lane + 3 : lane]);
    EXPECT_EQ(r.up[lane], v[lane >= 3 ? lane - 3 : lane]);
    EXPECT_EQ(r.from[lane], v[31 - lane]);
    int group = 0;
    unsigned same = 0;
    for (int i = 0; i < 8; ++i) group += v[lane / 8 * 8 + i];
    for (int i = 0; i < 32; ++i) same |= unsigned{v[i] == v[lane]} << i;
    EXPECT_EQ(r.in_groups_of_8[lane], group);
    EXPECT_EQ(r.ballot[lane], positive);
    EXPECT_EQ(r.lower_half_ballot[lane], positive & (lane < 16 ? 0xffffu : 0xffff0000u));
    EXPECT_EQ(r.match[lane], same);
    EXPECT_EQ(r.any[lane], any);
    EXPECT_EQ(r.all[lane], all);
    EXPECT_EQ(r.sum[lane], sum);
    EXPECT_EQ(r.most[lane], most);
    EXPECT_EQ(r.float_sum[lane], tree[lane]);
    EXPECT_EQ(r.float_sum[lane], r.float_sum[0]);
    EXPECT_EQ(r.float_max[lane], static_cast<float>(most) * 0.1f);
    EXPECT_EQ(r.wide[lane], v[lane ^ 1] + 0.5);
  }
}

TEST_P(Primitives, BlockReductionsAreTheSameOnAllThreads) {
  for (const int threads : {32, 64, 192, 1024}) {
    SCOPED_TRACE(threads);
    std::vector<float> v(static_cast<size_t>(threads));
    for (float& x : v) x = std::uniform_real_distribution<float>(-1, 1)(random_);
    DeviceArray<float> values(v);
    DeviceArray<float> out(2 * v.size());
    ASSERT_EQ(samples::block_reductions(values.data(), out.data(), threads, nullptr), cudaSuccess);
    const std::vector<float> got = out.get();
    double sum = 0;
    for (const float x : v) sum += x;
    EXPECT_NEAR(got[0], sum, 1e-4);
    for (size_t i = 0; i < v.size(); ++i) {
      ASSERT_EQ(got[i], got[0]);
      ASSERT_EQ(got[v.size() + i], *std::max_element(v.begin(), v.end()));
    }
  }
}

TEST_P(Primitives, RmsNormOfManyRows) {
  constexpr int kRows = 21;
  constexpr int kWidth = 100;  // less than the block's threads in the second half of a stride
  std::vector<float> x(kRows * kWidth);
  for (float& value : x) value = std::normal_distribution<float>()(random_);
  DeviceArray<float> in(x);
  DeviceArray<float> out(x.size());
  ASSERT_EQ(samples::rms_norm(in.data(), out.data(), kRows, kWidth, 64, nullptr), cudaSuccess);
  const std::vector<float> got = out.get();
  for (int row = 0; row < kRows; ++row) {
    double squares = 0;
    for (int i = 0; i < kWidth; ++i) squares += std::pow(x[row * kWidth + i], 2);
    const double scale = 1 / std::sqrt(squares / kWidth + 1e-5);
    for (int i = 0; i < kWidth; ++i) {
      ASSERT_NEAR(got[row * kWidth + i], x[row * kWidth + i] * scale, 1e-5);
    }
  }
}

// Elements are small integers: products and sums are exact whatever the order.
template <typename T, typename Launch>
void check_product(std::mt19937& random, int k, Launch launch) {
  std::vector<uint16_t> a(16 * k);
  std::vector<uint16_t> b(8 * k);
  const auto fill = [&](std::vector<uint16_t>& to) {
    for (uint16_t& bits : to) {
      const T value(static_cast<float>(static_cast<int>(random() % 17) - 8));
      std::memcpy(&bits, &value, sizeof(bits));
    }
  };
  fill(a);
  fill(b);
  const auto at = [](const std::vector<uint16_t>& from, int i) {
    T value;
    std::memcpy(static_cast<void*>(&value), &from[static_cast<size_t>(i)], sizeof(value));
    return static_cast<float>(value);
  };
  DeviceArray<uint16_t> device_a(a);
  DeviceArray<uint16_t> device_b(b);
  DeviceArray<float> c(128);
  ASSERT_EQ(launch(device_a.data(), device_b.data(), c.data()), cudaSuccess);
  const std::vector<float> got = c.get();
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      float sum = 0;
      for (int i = 0; i < k; ++i) sum += at(a, m * k + i) * at(b, i * 8 + n);
      ASSERT_EQ(got[m * 8 + n], sum) << "row " << m << " column " << n;
    }
  }
}

TEST_P(Primitives, TensorCoreProductsOf16BitTypes) {
  for (const int k : {16, 64, 80}) {
    check_product<__nv_bfloat16>(random_, k, [&](const auto* a, const auto* b, float* c) {
      return samples::product_bf16(a, b, c, k, true, nullptr);
    });
    check_product<__half>(random_, k, [&](const auto* a, const auto* b, float* c) {
      return samples::product_f16(a, b, c, k, nullptr);
    });
  }
}

TEST_P(Primitives, TensorCoreProductsOfInt8) {
  constexpr int kK = 96;
  std::vector<int8_t> a(16 * kK);
  std::vector<int8_t> b(8 * kK);
  for (int8_t& x : a) x = static_cast<int8_t>(random_());
  for (int8_t& x : b) x = static_cast<int8_t>(random_());
  DeviceArray<int8_t> device_a(a);
  DeviceArray<int8_t> device_b(b);
  DeviceArray<int32_t> c(128);
  ASSERT_EQ(samples::product_s8(device_a.data(), device_b.data(), c.data(), kK, nullptr),
            cudaSuccess);
  const std::vector<int32_t> got = c.get();
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      int sum = 0;
      for (int k = 0; k < kK; ++k) sum += a[m * kK + k] * b[n * kK + k];
      ASSERT_EQ(got[m * 8 + n], sum);
    }
  }
}

TEST_P(Primitives, AsyncCopiesFillWithZerosAndReadNothingOutside) {
  for (const int count : {0, 4, 36, 128}) {
    std::vector<float> x(static_cast<size_t>(count));
    for (float& value : x) value = static_cast<float>(random_() % 1000 + 1);
    x.resize(std::max<size_t>(x.size(), 1), 5.0f);
    DeviceArray<float> from(x);
    DeviceArray<float> out(3 * 128);
    ASSERT_EQ(samples::copy_with_zeros(from.data(), out.data(), count, nullptr), cudaSuccess);
    const std::vector<float> got = out.get();
    for (int i = 0; i < 3 * 128; ++i) {
      ASSERT_EQ(got[i], i % 128 < count ? x[i % 128] : 0.0f) << i;
    }
  }
}

TEST_P(Primitives, AtomicsCountOverLanesAndBlocks) {
  std::vector<int> v(1000);
  std::vector<unsigned> expected(16);
  for (int& x : v) ++expected[(x = static_cast<int>(random_() % 4096)) % 16];
  DeviceArray<int> values(v);
  DeviceArray<unsigned> bins(std::vector<unsigned>(16, 0));
  ASSERT_EQ(samples::histogram(values.data(), 1000, bins.data(), nullptr), cudaSuccess);
  EXPECT_EQ(bins.get(), expected);
}

TEST_P(Primitives, ThreadsOfEveryShapeRunOnceWithTheirNumbers) {
  const unsigned shapes[][6] = {{1, 1, 1, 1, 1, 1},
                                {7, 1, 1, 33, 1, 1},
                                {3, 4, 5, 5, 3, 2},
                                {1, 2, 3, 1, 1, 64},
                                {20, 1, 1, 1024, 1, 1}};
  for (const auto& s : shapes) {
    const size_t threads = size_t{s[0]} * s[1] * s[2] * s[3] * s[4] * s[5];
    SCOPED_TRACE(threads);
    DeviceArray<unsigned> out(std::vector<unsigned>(threads, 0));
    ASSERT_EQ(samples::number_threads(out.data(), {s[0], s[1], s[2]}, {s[3], s[4], s[5]}, nullptr),
              cudaSuccess);
    const std::vector<unsigned> got = out.get();
    for (size_t i = 0; i < threads; ++i) ASSERT_EQ(got[i], i + 1);
  }
}

TEST_P(Primitives, VotesOfABlock) {
  for (const int positive : {0, 1, 50, 99, 100}) {
    std::vector<int> v(100, -1);
    for (int i = 0; i < positive; ++i) v[static_cast<size_t>(i * 37 % 100)] = 5;
    DeviceArray<int> values(v);
    DeviceArray<int> out(100);
    ASSERT_EQ(samples::count_in_block(values.data(), out.data(), 100, nullptr), cudaSuccess);
    const int expected = positive + (positive > 0 ? 1000 : 0) + (positive == 100 ? 2000 : 0);
    for (const int x : out.get()) ASSERT_EQ(x, expected);
  }
}

TEST_P(Primitives, MoreSharedMemoryWhereAskedFor) {
  constexpr size_t kBytes = 100 * 1024;
  DeviceArray<int> out(32);
  ASSERT_EQ(samples::fill_shared(out.data(), kBytes, true, nullptr), cudaSuccess);
  int expected = 0;
  for (int i = 0; i < static_cast<int>(kBytes / 4); ++i) expected += i % 7;
  for (const int x : out.get()) ASSERT_EQ(x, expected);
  EXPECT_EQ(samples::fill_shared(out.data(), 228 * 1024, true, nullptr), cudaErrorInvalidValue);
}

TEST_P(Primitives, ConversionsRoundAsTheHostTypesDo) {
  constexpr int kN = 128;
  std::vector<float> x(kN);
  for (float& value : x) value = std::normal_distribution<float>(0, 30)(random_);
  x[0] = 1e9f;  // fp8 saturates, f16 does not
  x[1] = 0.0f;
  x[2] = -1e-9f;
  DeviceArray<float> in(x);
  DeviceArray<float> out(4 * kN);
  ASSERT_EQ(samples::convert(in.data(), out.data(), kN, nullptr), cudaSuccess);
  const std::vector<float> got = out.get();
  for (int i = 0; i < kN; ++i) {
    EXPECT_EQ(got[0 * kN + i], __bfloat162float(__float2bfloat16_rn(x[i])));
    EXPECT_EQ(got[1 * kN + i], __half2float(__float2half_rn(x[i])));
    EXPECT_EQ(got[2 * kN + i], static_cast<float>(__nv_fp8_e4m3(x[i])));
    EXPECT_EQ(got[3 * kN + i], static_cast<float>(__nv_fp8_e5m2(x[i])));
  }
  EXPECT_EQ(got[2 * kN], 448.0f);
  EXPECT_TRUE(std::isinf(got[1 * kN]));
}

TEST_P(Primitives, BitFunctions) {
  constexpr int kN = 64;
  std::vector<uint32_t> x(kN);
  for (uint32_t& value : x) value = static_cast<uint32_t>(random_());
  x[0] = 0;
  x[1] = 0xffffffffu;
  x[2] = 0x80000000u;
  DeviceArray<uint32_t> in(x);
  DeviceArray<uint32_t> out(8 * kN);
  ASSERT_EQ(samples::bit_functions(in.data(), out.data(), kN, nullptr), cudaSuccess);
  const std::vector<uint32_t> got = out.get();
  for (int i = 0; i < kN; ++i) {
    SCOPED_TRACE(testing::Message() << std::hex << x[i]);
    const auto byte = [](uint32_t word, int n) { return word >> (8 * n) & 0xff; };
    int first = 0;
    uint32_t reversed = 0;
    int dot = -3;
    for (int bit = 31; bit >= 0; --bit) {
      if (x[i] >> bit & 1) first = bit + 1;
      reversed |= (x[i] >> bit & 1) << (31 - bit);
    }
    for (int n = 0; n < 4; ++n) {
      dot += static_cast<int8_t>(byte(x[i], n)) * static_cast<int8_t>(byte(x[i] ^ 0x80ff017fu, n));
    }
    EXPECT_EQ(got[0 * kN + i], static_cast<uint32_t>(std::popcount(x[i])));
    EXPECT_EQ(got[1 * kN + i], static_cast<uint32_t>(std::countl_zero(x[i])));
    EXPECT_EQ(got[2 * kN + i], static_cast<uint32_t>(first));
    EXPECT_EQ(got[3 * kN + i], reversed);
    EXPECT_EQ(got[4 * kN + i],
              byte(~x[i], 0) | byte(x[i], 0) << 8 | byte(~x[i], 2) << 16 | byte(x[i], 1) << 24);
    EXPECT_EQ(got[5 * kN + i], static_cast<uint32_t>(dot));
    EXPECT_EQ(got[6 * kN + i], static_cast<uint32_t>(static_cast<int8_t>(byte(x[i], 2)) +
                                                     static_cast<int>(x[i] >> 20 & 0xf)));
    EXPECT_EQ(got[7 * kN + i], std::bit_cast<uint32_t>(static_cast<float>(x[i] >> 8)));
  }
}

}  // namespace
}  // namespace quire
