// The row-wise CUDA kernels against the reference on the shapes of tests/kernels/cases.h and larger
// ones, at addresses that allow wide accesses and at others, in several orders of threads.
#include "kernels/cuda/row/row.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels/formats/half.h"
#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/device_array.h"
#include "tests/kernels/cases.h"

namespace quire::test {
namespace {

using cuda_emulation::DeviceArray;

constexpr ActivationLayout kLayouts[] = {ActivationLayout::kF32, ActivationLayout::kBf16};
constexpr std::uint64_t kSeeds[] = {1, 20261123, 77};

std::vector<RowCase> all_row_cases() {
  std::vector<RowCase> cases = row_cases();
  for (const RowCase& c :
       {RowCase{2, 1}, RowCase{3, 6}, RowCase{2, 1022}, RowCase{1, 1028}, RowCase{2, 5000},
        RowCase{1, 8192}, RowCase{1, 9001}, RowCase{1, 32768}, RowCase{40, 128}}) {
    cases.push_back(c);
  }
  return cases;
}

std::string name_of(const RowCase& c) {
  return std::to_string(c.rows) + "x" + std::to_string(c.columns);
}

// `shift` elements into an allocation that ends where the values end.
template <typename T>
class Shifted {
 public:
  Shifted(std::size_t count, int shift) : shift_(shift), array_(count + shift_) {}
  Shifted(const std::vector<T>& values, int shift) : Shifted(values.size(), shift) {
    std::vector<T> shifted(shift_);
    shifted.insert(shifted.end(), values.begin(), values.end());
    array_.set(shifted);
  }
  T* data() { return array_.data() + shift_; }
  std::vector<T> get() const {
    const std::vector<T> all = array_.get();
    return {all.begin() + static_cast<std::ptrdiff_t>(shift_), all.end()};
  }

 private:
  std::size_t shift_;
  DeviceArray<T> array_;
};

// A kF32 or kBf16 output of NaN bytes, read back as floats.
class Output {
 public:
  Output(ActivationLayout layout, int rows, int columns, int shift)
      : layout_(layout),
        floats_(layout == ActivationLayout::kF32 ? size(rows, columns) : 0, shift),
        halves_(layout == ActivationLayout::kBf16 ? size(rows, columns) : 0, shift) {
    void* data = layout == ActivationLayout::kF32 ? static_cast<void*>(floats_.data())
                                                  : static_cast<void*>(halves_.data());
    activation_ = {data, layout, rows, columns};
  }
  const Activation& get() const { return activation_; }
  std::vector<float> floats() const {
    if (layout_ == ActivationLayout::kF32) return floats_.get();
    std::vector<float> values;
    for (const std::uint16_t bits : halves_.get()) values.push_back(to_float(Bf16{bits}));
    return values;
  }

 private:
  static std::size_t size(int rows, int columns) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  }
  ActivationLayout layout_;
  Shifted<float> floats_;
  Shifted<std::uint16_t> halves_;
  Activation activation_;
};

// As in tests/kernels/row_ops_test.cpp: the order of sums and exp; half a step of bf16.
void expect_row_op_near(const std::vector<float>& actual, const std::vector<float>& expected,
                        ActivationLayout layout) {
  const float relative = layout == ActivationLayout::kF32 ? 4e-6f : 0x1.02p-8f;
  expect_near(actual, expected, 1e-6f, relative);
}

// Calls fn(shift) under each order of threads, shifted by 0 to 1 elements.
template <typename Fn>
void in_all_ways(Fn fn) {
  for (const std::uint64_t seed : kSeeds) {
    cuda_emulation::set_seed(seed);
    for (const int shift : {0, 1}) {
      SCOPED_TRACE("seed " + std::to_string(seed) + ", shift " + std::to_string(shift));
      fn(shift);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

std::vector<float> run_norm(const RowCase& c, const std::vector<float>& x,
                            const std::vector<std::int32_t>& rows, ActivationLayout layout,
                            int shift) {
  Shifted<float> in(x, shift);
  Shifted<float> weight(random_floats(static_cast<std::size_t>(c.columns), 2), shift);
  const bool in_order = rows.empty();
  const int count = in_order ? c.rows : static_cast<int>(rows.size());
  DeviceArray<std::int32_t> picked(rows);
  Output out(layout, count, c.columns, shift);
  EXPECT_EQ(cuda::rms_norm(nullptr, in.data(), in_order ? nullptr : picked.data(), count, c.columns,
                           weight.data(), 1e-5f, out.get()),
            cudaSuccess);
  return out.floats();
}

TEST(CudaRow, RmsNormMatchesTheReference) {
  const auto reference = open_backend("reference");
  for (const RowCase& c : all_row_cases()) {
    const auto x = random_floats(static_cast<std::size_t>(c.rows * c.columns), 1, 3.0f);
    Buffer<float> in(*reference, x);
    Buffer<float> weight(*reference, random_floats(static_cast<std::size_t>(c.columns), 2));
    ActivationBuffer want(*reference, ActivationLayout::kF32, c.rows, c.columns);
    reference->ops().rms_norm(in.data(), nullptr, c.rows, c.columns, weight.data(), 1e-5f,
                              want.get());
    ASSERT_TRUE(reference->wait().ok());
    for (const ActivationLayout layout : kLayouts) {
      SCOPED_TRACE(name_of(c));
      in_all_ways([&](int shift) {
        expect_row_op_near(run_norm(c, x, {}, layout, shift), want.floats(), layout);
      });
    }
  }
}

TEST(CudaRow, RmsNormOfARowHasTheSameBitsInAnyBatchAtAnyAddress) {
  for (const int columns : {576, 577, 4096, 5120}) {
    const RowCase c = {9, columns};
    const auto x = random_floats(static_cast<std::size_t>(c.rows * c.columns), 9);
    const auto batch = run_norm(c, x, {}, ActivationLayout::kF32, 0);
    in_all_ways([&](int shift) {
      const auto got = run_norm(c, x, {7, 2, 7}, ActivationLayout::kF32, shift);
      for (int i = 0; i < columns; ++i) {
        const auto at = static_cast<std::size_t>(i), n = static_cast<std::size_t>(columns);
        ASSERT_EQ(got[at], batch[7 * n + at]);
        ASSERT_EQ(got[n + at], batch[2 * n + at]);
        ASSERT_EQ(got[2 * n + at], batch[7 * n + at]);
      }
    });
  }
}

std::vector<float> run_gated(Gate gate, const RowCase& c, const std::vector<float>& gate_up,
                             ActivationLayout layout, int shift) {
  Shifted<float> in(gate_up, shift);
  Output out(layout, c.rows, c.columns, shift);
  EXPECT_EQ(cuda::gated(nullptr, gate, in.data(), c.rows, c.columns, out.get()), cudaSuccess);
  return out.floats();
}

TEST(CudaRow, GatedMatchesTheReference) {
  const auto reference = open_backend("reference");
  for (const Gate gate : {Gate::kSilu, Gate::kGeluTanh}) {
    for (const RowCase& c : all_row_cases()) {
      const auto x = random_floats(static_cast<std::size_t>(2 * c.rows * c.columns), 3, 4.0f);
      Buffer<float> in(*reference, x);
      ActivationBuffer want(*reference, ActivationLayout::kF32, c.rows, c.columns);
      reference->ops().gated(gate, in.data(), c.rows, c.columns, want.get());
      ASSERT_TRUE(reference->wait().ok());
      for (const ActivationLayout layout : kLayouts) {
        SCOPED_TRACE(name_of(c));
        in_all_ways([&](int shift) {
          expect_row_op_near(run_gated(gate, c, x, layout, shift), want.floats(), layout);
        });
      }
    }
  }
}

TEST(CudaRow, GatedAtTheEndsOfTheRange) {
  const std::vector<float> gates = {-1e30f, -200.0f, -88.0f, -1.0f, 0.0f, 0.5f, 89.0f, 1e30f};
  std::vector<float> gate_up = gates;
  gate_up.insert(gate_up.end(), gates.size(), 1.0f);
  for (const Gate gate : {Gate::kSilu, Gate::kGeluTanh}) {
    const auto y = run_gated(gate, {1, 8}, gate_up, ActivationLayout::kF32, 0);
    for (std::size_t i = 0; i < gates.size(); ++i) {
      const double g = gates[i];
      const double inner = std::sqrt(2.0 / M_PI) * (g + 0.044715 * g * g * g);
      const double silu = g < -700 ? 0.0 : g / (1.0 + std::exp(-g));
      const double exact = gate == Gate::kSilu ? silu : 0.5 * g * (1.0 + std::tanh(inner));
      EXPECT_NEAR(y[i], exact, 2e-6 * std::fabs(exact) + 1e-7) << g;
    }
  }
}

// A post-order program that adds [begin, end) as a balanced tree.
void balanced(int begin, int end, std::vector<int>& program) {
  if (end - begin == 1) return program.push_back(begin);
  const int middle = begin + (end - begin + 1) / 2;
  balanced(begin, middle, program);
  balanced(middle, end, program);
  program.push_back(-1);
}

std::vector<std::pair<std::vector<int>, int>> programs() {
  std::vector<std::pair<std::vector<int>, int>> all = {
      {{0}, 1},
      {{1}, 2},
      {{0, 1, -1}, 2},
      {{0, 1, -1, 2, -1}, 3},
      {{0, 1, 2, -1, -1}, 3},
      {{2, 0, 1, -1, -1, 3, 4, -1, -1}, 5},
      {{0, 1, 2, 3, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1, -1}, 8}};  // a stack of 8
  for (const int partials : {7, 8, 64}) {
    all.emplace_back();
    balanced(0, partials, all.back().first);
    all.back().second = partials;
  }
  return all;
}

struct CombineCase {
  RowCase shape;
  std::vector<int> program;
  int num_partials;
  bool bias;
  bool norm;

  std::size_t size() const { return static_cast<std::size_t>(shape.rows * shape.columns); }
  std::vector<float> partial(int p) const {
    return random_floats(size(), 20 + static_cast<std::uint32_t>(p));
  }
  std::vector<float> residual() const { return random_floats(size(), 130); }
  std::vector<float> bias_values() const {
    return random_floats(static_cast<std::size_t>(shape.columns), 131);
  }
  std::vector<float> weight() const {
    return random_floats(static_cast<std::size_t>(shape.columns), 132);
  }
};

struct CombineResult {
  std::vector<float> residual, normed;
};

CombineResult reference_combine(Device& device, const CombineCase& c) {
  std::vector<std::unique_ptr<Buffer<float>>> parts;
  std::vector<const float*> pointers;
  for (int p = 0; p < c.num_partials; ++p) {
    parts.push_back(std::make_unique<Buffer<float>>(device, c.partial(p)));
    pointers.push_back(parts.back()->data());
  }
  Buffer<float> residual(device, c.residual()), bias(device, c.bias_values()),
      weight(device, c.weight());
  ActivationBuffer out(device, ActivationLayout::kF32, c.shape.rows, c.shape.columns);
  CombineArgs args;
  args.program = c.program;
  args.partials = pointers;
  args.rows = c.shape.rows;
  args.columns = c.shape.columns;
  args.bias = c.bias ? bias.data() : nullptr;
  args.residual = residual.data();
  args.norm_weight = c.norm ? weight.data() : nullptr;
  args.out = out.get();
  device.ops().combine(args);
  EXPECT_TRUE(device.wait().ok());
  return {residual.read(), c.norm ? out.floats() : std::vector<float>{}};
}

CombineResult cuda_combine(const CombineCase& c, ActivationLayout layout, int shift) {
  cuda::CombineJob job;
  std::vector<std::unique_ptr<Shifted<float>>> parts;
  for (int p = 0; p < c.num_partials; ++p) {
    parts.push_back(std::make_unique<Shifted<float>>(c.partial(p), shift));
    job.partials[p] = parts.back()->data();
  }
  Shifted<float> residual(c.residual(), shift), bias(c.bias_values(), shift),
      weight(c.weight(), shift);
  Output out(layout, c.shape.rows, c.shape.columns, shift);
  for (const int entry : c.program) job.program[job.program_size++] = static_cast<int8_t>(entry);
  job.rows = c.shape.rows;
  job.columns = c.shape.columns;
  job.bias = c.bias ? bias.data() : nullptr;
  job.residual = residual.data();
  job.norm_weight = c.norm ? weight.data() : nullptr;
  job.out = out.get();
  EXPECT_EQ(cuda::combine(nullptr, job), cudaSuccess);
  return {residual.get(), c.norm ? out.floats() : std::vector<float>{}};
}

void expect_combine_matches(Device& reference, const CombineCase& c) {
  SCOPED_TRACE(name_of(c.shape) + ", " + std::to_string(c.program.size()) + " entries");
  const CombineResult want = reference_combine(reference, c);
  for (const ActivationLayout layout : kLayouts) {
    in_all_ways([&](int shift) {
      const CombineResult got = cuda_combine(c, layout, shift);
      ASSERT_EQ(got.residual, want.residual);  // the same additions in the same order
      expect_row_op_near(got.normed, want.normed, layout);
    });
  }
}

TEST(CudaRow, CombineMatchesTheReferenceForEveryProgram) {
  const auto reference = open_backend("reference");
  for (const auto& [program, partials] : programs()) {
    expect_combine_matches(*reference, {{3, 40}, program, partials, true, true});
    expect_combine_matches(*reference, {{2, 17}, program, partials, false, true});
    expect_combine_matches(*reference, {{2, 40}, program, partials, true, false});
  }
}

TEST(CudaRow, CombineMatchesTheReferenceForEveryShape) {
  const auto reference = open_backend("reference");
  for (const RowCase& shape : all_row_cases()) {
    expect_combine_matches(*reference, {shape, {0, 1, -1}, 2, true, true});
    expect_combine_matches(*reference, {shape, {0, 1, -1, 2, -1}, 3, false, true});
  }
}

TEST(CudaRow, CombineOfNothingAddsTheBias) {
  CombineCase c = {{2, 64}, {}, 0, true, false};
  const std::vector<float> before = c.residual(), bias = c.bias_values();
  const std::vector<float> after = cuda_combine(c, ActivationLayout::kF32, 0).residual;
  for (std::size_t i = 0; i < after.size(); ++i) EXPECT_EQ(after[i], before[i] + bias[i % 64]);
}

TEST(CudaRow, ProgramsThatAreNoTreeAreRefused) {
  DeviceArray<float> values(std::vector<float>(64));
  for (const std::vector<int>& program :
       {std::vector<int>{-1}, {0, -1}, {0, 1}, {0, 1, -1, -1}, {0, 0, 0, 0, 0, 0, 0, 0, 0}}) {
    cuda::CombineJob job;
    for (const int entry : program) job.program[job.program_size++] = static_cast<int8_t>(entry);
    job.partials[0] = job.partials[1] = values.data();
    job.rows = 1;
    job.columns = 64;
    job.residual = values.data();
    EXPECT_EQ(cuda::combine(nullptr, job), cudaErrorInvalidValue);
  }
}

TEST(CudaRow, ShapesWithoutAKernelAreRefused) {
  DeviceArray<float> values(std::vector<float>(64));
  const Activation q8 = {values.data(), ActivationLayout::kQ8, 1, 8};
  EXPECT_EQ(cuda::rms_norm(nullptr, values.data(), nullptr, 1, 8, values.data(), 1e-5f, q8),
            cudaErrorInvalidValue);
  EXPECT_EQ(cuda::gated(nullptr, Gate::kSilu, values.data(), 1, 8, q8), cudaErrorInvalidValue);
  const Activation out = {values.data(), ActivationLayout::kF32, 1, 32769};
  EXPECT_EQ(cuda::rms_norm(nullptr, values.data(), nullptr, 1, 32769, values.data(), 1e-5f, out),
            cudaErrorInvalidValue);
}

TEST(CudaRow, SelectTakesEachRowFromItsOwner) {
  for (const int columns : {1, 6, 64, 576, 4096, 5003}) {
    const auto n = static_cast<std::size_t>(columns);
    const std::vector<std::int32_t> owners = {2, 0, 1, 1, 2};
    std::vector<std::vector<float>> values;
    for (std::uint32_t p = 0; p < 3; ++p) values.push_back(random_floats(5 * n, 50 + p));
    in_all_ways([&](int shift) {
      Shifted<float> a(values[0], shift), b(values[1], 0), c(values[2], shift);
      const std::array<const float*, 3> parts = {a.data(), b.data(), c.data()};
      const std::array<TokenId, 3> ends = {10, 20, 30};
      DeviceArray<TokenId> tokens(std::vector<TokenId>{20, 9, 10, 19, 29});
      Shifted<float> out(5 * n, shift);
      ASSERT_EQ(cuda::select(nullptr, parts.data(), ends.data(), 3, tokens.data(), 5, columns,
                             out.data()),
                cudaSuccess);
      const std::vector<float> got = out.get();
      for (std::size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i], values[static_cast<std::size_t>(owners[i / n])][i]);
      }
    });
  }
}

TEST(CudaRow, TakeRowsCopiesThem) {
  for (const int columns : {1, 6, 64, 576, 4096, 5003}) {
    const auto n = static_cast<std::size_t>(columns);
    const std::vector<std::int32_t> wanted = {3, 0, 4, 3};
    const std::vector<float> values = random_floats(5 * n, 60);
    in_all_ways([&](int shift) {
      Shifted<float> x(values, shift), out(wanted.size() * n, shift);
      DeviceArray<std::int32_t> rows(wanted);
      ASSERT_EQ(cuda::take_rows(nullptr, x.data(), rows.data(), 4, columns, out.data()),
                cudaSuccess);
      const std::vector<float> got = out.get();
      for (std::size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i], values[static_cast<std::size_t>(wanted[i / n]) * n + i % n]);
      }
    });
  }
}

TEST(CudaRow, FeedTakesPicksAndLeavesTheRest) {
  for (const int count : {1, 255, 256, 700}) {
    const auto n = static_cast<std::size_t>(count);
    std::vector<TokenId> tokens(n), ids(n);
    std::vector<std::int32_t> sources(n);
    for (std::size_t i = 0; i < n; ++i) {
      tokens[i] = static_cast<TokenId>(i);
      ids[i] = static_cast<TokenId>(1000 + i);
      sources[i] = i % 3 == 0 ? -1 : static_cast<std::int32_t>(n - 1 - i);
    }
    DeviceArray<TokenId> at(tokens), picked(ids);
    DeviceArray<std::int32_t> from(sources);
    ASSERT_EQ(cuda::feed(nullptr, at.data(), from.data(), picked.data(), count), cudaSuccess);
    const std::vector<TokenId> got = at.get();
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_EQ(got[i], i % 3 == 0 ? tokens[i] : static_cast<TokenId>(1000 + n - 1 - i));
    }
  }
}

TEST(CudaRow, CopiedBlocksAreCopiesAndNothingElseMoves) {
  for (const std::size_t bytes : {16, 4096, 40000, 36, 16400}) {
    constexpr std::size_t kBlocks = 7;
    std::vector<std::byte> before(kBlocks * bytes);
    for (std::size_t i = 0; i < before.size(); ++i) before[i] = std::byte(i * 2654435761u >> 7);
    const std::vector<BlockId> from = {1, 1, 5}, to = {6, 0, 2};
    std::vector<std::byte> want = before;
    for (std::size_t i = 0; i < from.size(); ++i) {
      std::copy_n(before.data() + static_cast<std::size_t>(from[i]) * bytes, bytes,
                  want.data() + static_cast<std::size_t>(to[i]) * bytes);
    }
    for (const std::uint64_t seed : kSeeds) {
      cuda_emulation::set_seed(seed);
      DeviceArray<std::byte> arena(before);
      DeviceArray<BlockId> sources(from), targets(to);
      ASSERT_EQ(cuda::copy_blocks(nullptr, arena.data(), bytes, sources.data(), targets.data(), 3),
                cudaSuccess);
      EXPECT_EQ(arena.get(), want) << bytes;
    }
  }
}

}  // namespace
}  // namespace quire::test
