// Matrix products of the CUDA backend against double precision, over the emulation.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/cuda/linear/dense_gemm.h"
#include "kernels/cuda/linear/kernels.h"
#include "kernels/cuda/linear/layout.h"
#include "kernels/formats/half.h"
#include "tests/cuda_emulation/control.h"
#include "tests/kernels/cuda/linear_harness.h"
#include "tests/kernels/stored_matrix.h"

namespace quire::test {
namespace {

using cuda::TileShape;

constexpr ActivationLayout kF32 = ActivationLayout::kF32;
constexpr ActivationLayout kBf16 = ActivationLayout::kBf16;
constexpr int kAllTokens[] = {1, 2, 3, 5, 8, 16, 17, 33, 64, 130};

struct Kind {
  Format format;
  ActivationLayout layout;
};

std::vector<Kind> all_kinds() {
  std::vector<Kind> kinds;
  for (const Format format : all_formats()) {
    kinds.push_back({format, kF32});
    if (format != Format::kF32) kinds.push_back({format, kBf16});
  }
  return kinds;
}

std::string kind_name(const testing::TestParamInfo<Kind>& info) {
  return std::string(traits(info.param.format).name) +
         (info.param.layout == kF32 ? "_by_f32" : "_by_bf16");
}

LinearCase make_case(const Kind& kind, int rows, int columns, int tokens,
                     std::vector<cuda::Columns> outputs = {}) {
  LinearCase c;
  c.format = kind.format;
  c.layout = kind.layout;
  c.rows = rows;
  c.columns = columns;
  c.tokens = tokens;
  c.outputs = std::move(outputs);
  return c;
}

// The products are exact in fp32, so what remains is the rounding of sums. A stream of 4 to 6 bits
// sums numbers + 128 and subtracts 128 times (or so) the input's sum again.
double tolerance(const Kind& kind) {
  const bool offset = cuda::is_block(kind.format) && kind.format != Format::kQ8_0;
  return offset && kind.layout == kBf16 ? 2e-5 : 1e-6;
}

// Many tokens: the weights of block formats are rounded to bf16 on their way to the tensor cores.
bool rounds_weights(const Kind& kind, const std::string& kernel) {
  return cuda::is_block(kind.format) && kernel.starts_with("tile_mma");
}

void check(const LinearCase& c, cuda::Linear& linear) {
  const Kind kind{c.format, c.layout};
  const LinearProblem problem(c, 7);
  const std::string kernel = linear.describe(problem.matrix(), c.tokens);
  const std::vector<float> result = problem.run(linear);
  const bool rounded = rounds_weights(kind, kernel);
  EXPECT_LT(problem.worst_error(result, rounded), tolerance(kind)) << c.name() << ": " << kernel;
  if (rounded) {
    EXPECT_LT(problem.worst_error(result), 0x1p-8) << c.name() << ": " << kernel;
  }
}

class CudaLinearTest : public testing::TestWithParam<Kind> {
 protected:
  // Every kind of kernel is met with several orders of lanes, warps and blocks.
  void SetUp() override { cuda_emulation::set_seed(11); }

  // A few columns: not a multiple of anything where the format allows it.
  int odd_columns() const { return !cuda::is_block(GetParam().format) ? 45 : 32; }
  std::vector<cuda::Columns> odd_outputs() const {
    if (cuda::is_block(GetParam().format)) return {{0, 32}, {32, 96}, {96, 128}};
    return {{0, 20}, {20, 51}, {51, 52}, {52, 128}};
  }
};

TEST_P(CudaLinearTest, MultipliesAnyNumberOfTokens) {
  const auto linear = cuda::make_linear(false);
  for (const int tokens : kAllTokens) {
    cuda_emulation::set_seed(static_cast<unsigned>(tokens));
    check(make_case(GetParam(), 40, 64, tokens), *linear);
    check(make_case(GetParam(), 3, odd_columns(), tokens), *linear);
  }
}

TEST_P(CudaLinearTest, MultipliesDeterministically) {
  const auto linear = cuda::make_linear(true);
  for (const int tokens : kAllTokens) {
    cuda_emulation::set_seed(static_cast<unsigned>(tokens) + 100);
    check(make_case(GetParam(), 33, odd_columns(), tokens), *linear);
  }
}

TEST_P(CudaLinearTest, SumsEachOutputsColumnsOnTheirOwn) {
  for (const bool deterministic : {false, true}) {
    const auto linear = cuda::make_linear(deterministic);
    for (const int tokens : {1, 5, 17}) {
      check(make_case(GetParam(), 37, 128, tokens, odd_outputs()), *linear);
      if (cuda::is_block(GetParam().format)) continue;
      // Whole pieces of 8 columns, cut inside a step of 32.
      check(make_case(GetParam(), 12, 120, tokens, {{0, 24}, {24, 72}, {72, 120}}), *linear);
    }
  }
}

TEST_P(CudaLinearTest, AddsABiasAndLeavesGapsAlone) {
  const auto linear = cuda::make_linear(false);
  for (const int tokens : {1, 4, 9, 19}) {
    LinearCase c = make_case(GetParam(), 70, 96, tokens);
    c.bias = true;
    c.gap = tokens % 2 == 0 ? 5 : 6;
    check(c, *linear);
  }
}

TEST_P(CudaLinearTest, MultipliesTheShapesOfSmolLM2) {
  const auto linear = cuda::make_linear(false);
  for (const int tokens : {1, 6, 16, 33}) {
    check(make_case(GetParam(), 64, 576, tokens), *linear);
    check(make_case(GetParam(), 24, 1536, tokens, {{0, 1024}, {1024, 1536}}), *linear);
  }
  check(make_case(GetParam(), 192, 576, 70), *linear);
}

// Alone and among others: no bit differs, whatever the order in which the device runs things.
TEST_P(CudaLinearTest, ATokenDoesNotSeeItsNeighbours) {
  constexpr int kTokens = 130;
  const LinearProblem problem(make_case(GetParam(), 66, 160, kTokens), 3);
  const auto row_of = [](const std::vector<float>& all, int t) {
    return std::vector<float>(all.begin() + t * 66, all.begin() + (t + 1) * 66);
  };
  const auto linear = cuda::make_linear(true);
  const std::vector<float> all = problem.run(*linear);
  for (const int t : {0, 15, 64, 129}) {
    cuda_emulation::set_seed(static_cast<unsigned>(t) + 5);
    EXPECT_EQ(problem.run(*linear, t, 1), row_of(all, t)) << t;
    const int count = std::min(20, kTokens - t);
    EXPECT_EQ(row_of(problem.run(*linear, t, count), 0), row_of(all, t)) << t;
  }
  const auto by_size = cuda::make_linear(false);
  const std::vector<float> few = problem.run(*by_size, 0, 16);
  const std::vector<float> many = problem.run(*by_size, 0, 130);
  for (const int t : {0, 3, 7, 15}) {
    EXPECT_EQ(problem.run(*by_size, t, 1), row_of(few, t)) << t;
    EXPECT_EQ(row_of(problem.run(*by_size, t, 6), 0), row_of(few, t)) << t;
    EXPECT_EQ(row_of(problem.run(*by_size, t, 17), 0), row_of(many, t)) << t;
  }
}

TEST_P(CudaLinearTest, OrdersOfExecutionChangeNoBit) {
  const LinearProblem problem(make_case(GetParam(), 70, 160, 40), 4);
  for (const int tokens : {3, 12, 40}) {
    const auto linear = cuda::make_linear(false);
    cuda_emulation::set_seed(1);
    const std::vector<float> first = problem.run(*linear, 0, tokens);
    for (const unsigned seed : {2u, 3u, 4u}) {
      cuda_emulation::set_seed(seed);
      EXPECT_EQ(problem.run(*linear, 0, tokens), first) << "seed " << seed;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, CudaLinearTest, testing::ValuesIn(all_kinds()), kind_name);

// A cut inside a superblock: the header is ours, some of its columns are not.
TEST(CudaSuperblockTest, BeginsAndEndsInsideOne) {
  for (const Kind& kind : all_kinds()) {
    if (!cuda::is_superblock(kind.format)) continue;
    for (const int first_column : {32, 96, 224}) {
      for (const int tokens : {1, 7, 18}) {
        LinearCase c = make_case(kind, 41, 352, tokens, {{0, 64}, {64, 256}, {256, 352}});
        c.first_column = first_column;
        cuda_emulation::set_seed(static_cast<unsigned>(first_column + tokens));
        check(c, *cuda::make_linear(tokens == 7));
      }
    }
  }
}

class CudaPackTest : public testing::TestWithParam<Format> {};

TEST_P(CudaPackTest, EmbedsExactlyTheRowsOfTheMatrix) {
  for (const int columns : {32, 288, !cuda::is_block(GetParam()) ? 37 : 64}) {
    LinearCase c = make_case({GetParam(), kF32}, 75, columns, 1);
    c.first_column = cuda::is_superblock(GetParam()) ? 7 * columns % 256 : 0;
    const LinearProblem problem(c, 5);
    const std::vector<TokenId> tokens = {100, 174, 99, 131, 175, 108, 100};
    const DeviceBytes ids(tokens.data(), tokens.size() * sizeof(TokenId));
    const DeviceBytes out(tokens.size() * static_cast<std::size_t>(columns) * sizeof(float));
    ASSERT_EQ(cuda::embed(nullptr, problem.matrix(), 100, static_cast<const TokenId*>(ids.data()),
                          static_cast<int>(tokens.size()), static_cast<float*>(out.data())),
              cudaSuccess);
    std::vector<float> got(tokens.size() * static_cast<std::size_t>(columns));
    out.read(got.data(), got.size() * sizeof(float));
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const auto first = got.begin() + static_cast<std::ptrdiff_t>(t) * columns;
      const std::vector<float> row(first, first + columns);
      if (tokens[t] < 100 || tokens[t] >= 175) {
        EXPECT_TRUE(std::isnan(row[0]) && std::isnan(row.back())) << "token " << t;
      } else {
        EXPECT_EQ(row, problem.row(tokens[t] - 100)) << "token " << t;
      }
    }
  }
}

TEST(CudaPackChoiceTest, SaysWhereANumberIsNone) {
  std::vector<std::byte> row(40, std::byte{0x7e});
  std::vector<std::byte> packed(cuda::packed_bytes(Format::kF8E4M3, 1, 40));
  const auto pack = [&](Format format) {
    return cuda::pack_rows(format, 40, 0, {row.data(), 40, 1}, 0, 1, packed.data());
  };
  EXPECT_TRUE(pack(Format::kF8E4M3));
  row[39] = std::byte{0xff};
  EXPECT_FALSE(pack(Format::kF8E4M3));
  EXPECT_TRUE(pack(Format::kI8)) << "-1";
}

// Of superblocks a little more: scales of 6 bits lie in bytes. Factors of rows are 4 bytes each.
TEST_P(CudaPackTest, KeepsTheSizeOfTheFormat) {
  const Format format = GetParam();
  const std::size_t factors = has_row_scales(format) ? 64 * 4 : 0;
  const bool small_scales = format == Format::kQ4_K || format == Format::kQ5_K;
  EXPECT_EQ(cuda::packed_bytes(format, 64, 768),
            64 * row_bytes(format, 768) + factors + (small_scales ? 64 * 3 * 4 : 0));
}

INSTANTIATE_TEST_SUITE_P(All, CudaPackTest, testing::ValuesIn(all_formats()),
                         [](const auto& format) { return traits(format.param).name; });

TEST(CudaTileTest, EveryShapeGivesTheSameBits) {
  for (const Kind& kind : all_kinds()) {
    if (kind.layout == kF32) continue;
    const LinearProblem problem(make_case(kind, 150, 160, 131), 6);
    const auto run = [&](TileShape shape) {
      const auto kernel = [&](const cuda::LinearJob& job) {
        return cuda::tile_mma(nullptr, kind.format, shape, job);
      };
      return problem.run(kernel, 0, 131);
    };
    const std::vector<float> large = run(TileShape::k128x128);
    EXPECT_LT(problem.worst_error(large, cuda::is_block(kind.format)), tolerance(kind));
    EXPECT_EQ(run(TileShape::k64x64), large) << traits(kind.format).name;
    EXPECT_EQ(run(TileShape::k16x32), large) << traits(kind.format).name;
  }
}

// f16 weights meet the input as f16: its largest number stands for what is beyond, NaN stays.
TEST(CudaLinearRangeTest, AnInputBeyondF16Saturates) {
  for (const int tokens : {2, 20}) {
    const auto linear = cuda::make_linear(false);
    LinearProblem problem(make_case({Format::kF16, kBf16}, 8, 32, tokens), 8);
    problem.set_input(0, 3, 0x1p20f);
    const std::vector<float> beyond = problem.run(*linear);
    problem.set_input(0, 3, 65280.0f);  // the largest bf16 that f16 has
    const std::vector<float> largest = problem.run(*linear);
    for (std::size_t n = 0; n < 8; ++n) {
      EXPECT_NEAR(beyond[n], largest[n], 0.01 * std::fabs(largest[n]) + 1) << tokens;
    }
    problem.set_input(0, 3, std::nanf(""));
    const std::vector<float> nan = problem.run(*linear);
    EXPECT_TRUE(std::isnan(nan[0]));
    EXPECT_FALSE(std::isnan(nan[8])) << "the other token";
  }
}

TEST(CudaLinearChoiceTest, SaysWhatItRuns) {
  const LinearProblem bf16(make_case({Format::kBf16, kBf16}, 8, 32, 1));
  const LinearProblem f16(make_case({Format::kF16, kBf16}, 8, 32, 1));
  const LinearProblem odd(make_case({Format::kBf16, kBf16}, 8, 33, 1));
  const LinearProblem q4(make_case({Format::kQ4_1, kBf16}, 8, 32, 1));
  const LinearProblem f32(make_case({Format::kF32, kF32}, 8, 32, 1));
  const auto linear = cuda::make_linear(false);
  EXPECT_EQ(linear->describe(bf16.matrix(), 16), "stream_mma bf16 n8 k32 m16");
  EXPECT_EQ(linear->describe(bf16.matrix(), 17), "dense_double bf16 n8 k32 m17");
  EXPECT_EQ(linear->describe(f16.matrix(), 17), "dense_double f16 n8 k32 m17");
  EXPECT_EQ(linear->describe(odd.matrix(), 17), "tile_mma bf16 64x64 n8 k33 m17");
  EXPECT_EQ(linear->describe(q4.matrix(), 17), "tile_mma q4_1 64x64 n8 k32 m17");
  EXPECT_EQ(linear->describe(f32.matrix(), 16), "stream_fma f32 n8 k32 m16");
  EXPECT_EQ(linear->describe(f32.matrix(), 17), "tile_simt f32 n8 k32 m17");
  const auto fixed = cuda::make_linear(true);
  EXPECT_EQ(fixed->describe(bf16.matrix(), 1), "tile_mma bf16 16x32 n8 k32 m1");
  EXPECT_EQ(fixed->describe(bf16.matrix(), 100), "tile_mma bf16 64x64 n8 k32 m100");
  EXPECT_EQ(fixed->describe(f32.matrix(), 100), "stream_fma f32 n8 k32 m100");
  cuda::PackedMatrix large = bf16.matrix();
  large.rows = 14336;
  EXPECT_EQ(fixed->describe(large, 512), "tile_mma bf16 128x128 n14336 k32 m512");
}

TEST(CudaLinearChoiceTest, TakesItsOwnKernelWhereTheLibraryRefuses) {
  const LinearCase c = make_case({Format::kBf16, kBf16}, 35, 64, 20);  // odd: the double refuses
  const LinearProblem problem(c, 9);
  const auto by_tile = [](const cuda::LinearJob& job) {
    return cuda::tile_mma(nullptr, Format::kBf16, TileShape::k64x64, job);
  };
  const auto linear = cuda::make_linear(false);
  EXPECT_EQ(problem.run(*linear), problem.run(by_tile, 0, 20));
}

TEST(CudaLinearChoiceTest, RefusesWhatNoKernelMeans) {
  const auto linear = cuda::make_linear(false);
  const auto run = [&](const LinearProblem& problem, const Activation& in, const float* bias) {
    return linear->run(nullptr, problem.matrix(), in, bias, nullptr, 8, 8);
  };
  const LinearProblem q8(make_case({Format::kQ8_0, kBf16}, 8, 64, 1, {{0, 32}, {32, 64}}));
  const DeviceBytes memory(1024);
  EXPECT_EQ(run(q8, {memory.data(), kF32, 1, 64}, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(run(q8, {memory.data(), kBf16, 1, 32}, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(run(q8, {memory.data(), kBf16, 1, 64}, static_cast<const float*>(memory.data())),
            cudaErrorInvalidValue);
  const LinearProblem split(make_case({Format::kQ8_0, kBf16}, 8, 64, 1, {{0, 16}, {16, 64}}));
  EXPECT_EQ(run(split, {memory.data(), kBf16, 1, 64}, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(run(q8, {memory.data(), kBf16, 0, 64}, nullptr), cudaSuccess) << "no tokens, no work";
  EXPECT_EQ(cuda::input_layout(Format::kF32, false), kF32);
  EXPECT_EQ(cuda::input_layout(Format::kQ4_1, true), kF32);
  EXPECT_EQ(cuda::input_layout(Format::kF16, false), kBf16);
}

TEST(CudaLinearChoiceTest, ConvertsTheInputOfF16Weights) {
  const std::vector<float> values = {1.5f,     -2.0f,    65280.0f, 0x1p20f, -0x1p20f, 0.0f,
                                     0x1p-24f, 0x1p-14f, 3.0f,     -1.0f,   0x1p-30f, 7.0f,
                                     8.0f,     9.0f,     10.0f,    1e30f};
  std::vector<Bf16> stored(values.size());
  std::transform(values.begin(), values.end(), stored.begin(), to_bf16);
  const DeviceBytes from(stored.data(), stored.size() * sizeof(Bf16));
  const DeviceBytes to(stored.size() * sizeof(Half));
  ASSERT_EQ(cuda::to_f16(nullptr, from.data(), values.size(), to.data()), cudaSuccess);
  std::vector<Half> got(values.size());
  to.read(got.data(), got.size() * sizeof(Half));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float within = std::clamp(to_float(stored[i]), -65504.0f, 65504.0f);
    EXPECT_EQ(got[i].bits, to_half(within).bits) << values[i];
  }
  EXPECT_EQ(cuda::to_f16(nullptr, from.data(), 12, to.data()), cudaErrorInvalidValue);
}

// An output without columns is zero, plus its bias.
TEST(CudaLinearChoiceTest, AnEmptyRangeSumsToZero) {
  for (const Kind& kind : all_kinds()) {
    for (const int tokens : {1, 18}) {
      const LinearProblem problem(make_case(kind, 6, 64, tokens, {{0, 64}, {64, 64}, {32, 32}}));
      const std::vector<float> result = problem.run(*cuda::make_linear(false));
      const std::size_t one = result.size() / 3;
      for (std::size_t i = one; i < result.size(); ++i) {
        ASSERT_EQ(result[i], 0.0f) << traits(kind.format).name << ' ' << tokens << ' ' << i;
      }
    }
  }
}

// Work on a stream happens when it is waited for, not when it is enqueued.
TEST(CudaLinearChoiceTest, OnlyEnqueues) {
  cuda_emulation::set_stream_mode(cuda_emulation::StreamMode::kDeferred);
  for (const Kind& kind : all_kinds()) {
    for (const int tokens : {2, 20})
      check(make_case(kind, 10, 32, tokens), *cuda::make_linear(false));
  }
  cuda_emulation::set_stream_mode(cuda_emulation::StreamMode::kEager);
}

}  // namespace
}  // namespace quire::test
