// Row-wise ops on every backend against the reference, in every layout, and bit for bit against
// themselves: a row alone, in a batch, on other threads.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/activation.h"
#include "kernels/formats/table.h"
#include "tests/kernels/cases.h"

namespace quire::test {
namespace {

constexpr ActivationLayout kLayouts[] = {ActivationLayout::kF32, ActivationLayout::kBf16,
                                         ActivationLayout::kQ8};

// Tolerances against the fp32 reference. kF32: order of sums, exp within 2 ulp. kBf16: half a step.
// kQ8: half a step of a block's largest value, which is at most that of the row.
void expect_row_op_near(const std::vector<float>& actual, const std::vector<float>& expected,
                        ActivationLayout layout) {
  float largest = 0.0f;
  for (const float x : expected) largest = std::max(largest, std::fabs(x));
  switch (layout) {
    case ActivationLayout::kF32:
      return expect_near(actual, expected, 1e-6f, 4e-6f);
    case ActivationLayout::kBf16:
      return expect_near(actual, expected, 1e-6f, 0x1.02p-8f);
    case ActivationLayout::kQ8:
      return expect_near(actual, expected,
                         1e-6f + largest / static_cast<float>(-cpu::kSmallestQ8) * 0.501f, 0.0f);
  }
}

std::vector<float> run_norm(Device& device, ActivationLayout layout, int columns,
                            const std::vector<float>& x, const std::vector<std::int32_t>& rows,
                            std::vector<std::vector<std::byte>>* bytes = nullptr) {
  Buffer<float> in(device, x);
  Buffer<float> weight(device, random_floats(static_cast<std::size_t>(columns), 2));
  ActivationBuffer out(device, layout, static_cast<int>(rows.size()), columns);
  device.ops().rms_norm(in.data(), rows.data(), static_cast<int>(rows.size()), columns,
                        weight.data(), 1e-5f, out.get());
  EXPECT_TRUE(device.wait().ok());
  if (device.numerics_id().starts_with("cpu")) out.check_padding();
  for (int r = 0; bytes != nullptr && r < out.get().rows; ++r) bytes->push_back(out.row_bytes(r));
  return out.floats();
}

// Blocks: of both signs; of which the largest is negative; all negative; equal either way; zero.
TEST(RowOps, Q8TurnsTheLargestOfEachBlockPositive) {
  constexpr int kBlocks = 5, kColumns = 32 * kBlocks;
  std::vector<float> x = random_floats(kColumns, 21);
  for (int k = 0; k < 32; ++k) {
    x[static_cast<std::size_t>(64 + k)] = -1.0f - 0.1f * static_cast<float>(k);
    x[static_cast<std::size_t>(96 + k)] = k % 2 == 0 ? 2.0f : -2.0f;
    x[static_cast<std::size_t>(128 + k)] = 0.0f;
  }
  x[5] = 4.0f;
  x[40] = -4.0f;
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name);
    Buffer<float> in(*device, x);
    Buffer<float> weight(*device, std::vector<float>(kColumns, 1.0f));
    ActivationBuffer out(*device, ActivationLayout::kQ8, 1, kColumns);
    const std::int32_t row = 0;
    device->ops().rms_norm(in.data(), &row, 1, kColumns, weight.data(), 1e-5f, out.get());
    ASSERT_TRUE(device->wait().ok());
    const cpu::Q8Row q = cpu::q8_row(out.get(), 0);
    double squares = 0;
    for (const float value : x) squares += value * value;
    const double norm = 1 / std::sqrt(squares / kColumns + 1e-5);
    for (int b = 0; b < kBlocks - 1; ++b) {
      const float* block = x.data() + 32 * b;
      const double up = norm * *std::max_element(block, block + 32);
      const double down = -norm * *std::min_element(block, block + 32);
      const double scale =
          std::max(std::max(up, down) / 127, std::min(up, down) / 113) * (up < down ? -1 : 1);
      EXPECT_NEAR(q.scales[b] / scale, 1, 1e-5) << name << ' ' << b;
      for (int k = 0; k < 32; ++k) {
        EXPECT_NEAR(q.values[32 * b + k], norm * block[k] / scale, 0.501) << name << ' ' << b;
      }
    }
    EXPECT_EQ(q.scales[kBlocks - 1], 0.0f);
  }
}

// Where four blocks are reduced side by side and where one is after the other, numbers, scales and
// sums are the same bytes; also with blocks among the four that are zero or nearly so.
TEST(RowOps, Q8BlocksAreTheSameBytesOnAllInstructionSets) {
  for (const int columns : {32, 96, 128, 160, 576, 1536, 1540}) {
    const int rows = columns / 32 + 1;  // row r has a zero block r
    std::vector<float> x = random_floats(static_cast<std::size_t>(rows * columns), 22);
    std::vector<std::int32_t> all;
    for (int r = 0; r < rows; ++r) {
      all.push_back(r);
      const std::size_t row = static_cast<std::size_t>(r * columns);
      for (int i = 0; i < columns; ++i) {
        float& value = x[row + static_cast<std::size_t>(i)];
        const int block = i / 32;
        if (block % 7 == 3) value = -std::fabs(value);
        if (block % 5 == r % 5) value *= std::ldexp(1.0f, 10 * (r % 9) - 40);
        if (block == r) value = r % 3 == 0 ? 0x1p-140f * value : 0.0f;
      }
    }
    std::vector<std::vector<std::byte>> first;
    for (const std::string& name : cpu_backends()) {
      const auto device = open_backend(name);
      std::vector<std::vector<std::byte>> bytes;
      run_norm(*device, ActivationLayout::kQ8, columns, x, all, &bytes);
      if (first.empty()) first = bytes;
      EXPECT_EQ(bytes, first) << name << ", " << columns << " columns";
    }
  }
}

std::vector<std::int32_t> rows_in_order(int n) {
  std::vector<std::int32_t> rows(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) rows[static_cast<std::size_t>(i)] = i;
  return rows;
}

TEST(RowOps, RmsNormMatchesTheReference) {
  const auto reference = open_backend("reference");
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name);
    for (const RowCase& c : row_cases()) {
      for (const ActivationLayout layout : kLayouts) {
        SCOPED_TRACE(name + " " + std::to_string(c.rows) + "x" + std::to_string(c.columns));
        const auto x = random_floats(static_cast<std::size_t>(c.rows * c.columns), 1, 3.0f);
        expect_row_op_near(
            run_norm(*device, layout, c.columns, x, rows_in_order(c.rows)),
            run_norm(*reference, ActivationLayout::kF32, c.columns, x, rows_in_order(c.rows)),
            layout);
      }
    }
  }
}

TEST(RowOps, RmsNormOfARowIsTheSameBitsInAnyBatchAndOnAnyThread) {
  constexpr int kRows = 33, kColumns = 576;
  const auto x = random_floats(kRows * kColumns, 9);
  for (const std::string& name : cpu_backends()) {
    for (const ActivationLayout layout : kLayouts) {
      std::vector<std::vector<std::byte>> batch;
      run_norm(*open_backend(name, 1), layout, kColumns, x, rows_in_order(kRows), &batch);
      for (const int threads : {2, 3}) {
        std::vector<std::vector<std::byte>> other;
        run_norm(*open_backend(name, threads), layout, kColumns, x, rows_in_order(kRows), &other);
        EXPECT_EQ(batch, other) << name << " " << threads;
      }
      std::vector<std::vector<std::byte>> alone;
      run_norm(*open_backend(name, 2), layout, kColumns, x, {17}, &alone);
      EXPECT_EQ(alone[0], batch[17]) << name;
    }
  }
}

constexpr Gate kGates[] = {Gate::kSilu, Gate::kGeluTanh};

double exact_gate(Gate gate, double x) {
  if (gate == Gate::kSilu) return x < -700 ? 0.0 : x / (1.0 + std::exp(-x));
  return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
}

std::vector<float> run_gated(Device& device, Gate gate, ActivationLayout layout, int rows, int ffn,
                             const std::vector<float>& gate_up) {
  Buffer<float> in(device, gate_up);
  ActivationBuffer out(device, layout, rows, ffn);
  device.ops().gated(gate, in.data(), rows, ffn, out.get());
  EXPECT_TRUE(device.wait().ok());
  if (device.numerics_id().starts_with("cpu")) out.check_padding();
  return out.floats();
}

TEST(RowOps, CopiedBlocksAreCopiesInEveryLayer) {
  for (const std::string& name : cpu_backends()) check_block_copies(*open_backend(name, 3));
  check_block_copies(*open_backend("reference"));
}

TEST(RowOps, GatedMatchesTheReference) {
  const auto reference = open_backend("reference");
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name, 3);
    for (const RowCase& c : row_cases()) {
      const auto x = random_floats(static_cast<std::size_t>(2 * c.rows * c.columns), 3, 4.0f);
      for (const Gate gate : kGates) {
        const auto want = run_gated(*reference, gate, ActivationLayout::kF32, c.rows, c.columns, x);
        for (const ActivationLayout layout : kLayouts) {
          SCOPED_TRACE(name + " " + std::to_string(c.rows) + "x" + std::to_string(c.columns));
          expect_row_op_near(run_gated(*device, gate, layout, c.rows, c.columns, x), want, layout);
        }
      }
    }
  }
}

TEST(RowOps, GatedAtTheEndsOfTheRange) {
  // Gates tend to 0 below and to x above; nothing may become NaN on the way.
  const std::vector<float> gates = {-1e30f, -200.0f, -88.0f, -1.0f, 0.0f, 0.5f, 89.0f, 1e30f};
  std::vector<float> gate_up = gates;
  gate_up.insert(gate_up.end(), gates.size(), 1.0f);
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name);
    for (const Gate gate : kGates) {
      const auto y = run_gated(*device, gate, ActivationLayout::kF32, 1, 8, gate_up);
      for (std::size_t i = 0; i < gates.size(); ++i) {
        const double exact = exact_gate(gate, gates[i]);
        EXPECT_NEAR(y[i], exact, 2e-6 * std::fabs(exact) + 1e-7) << name << " " << gates[i];
      }
    }
  }
}

struct CombineResult {
  std::vector<float> residual, normed;
};
CombineResult run_combine(Device& device, ActivationLayout layout, const RowCase& c,
                          const std::vector<int>& program, int num_partials, bool bias, bool norm) {
  const auto size = static_cast<std::size_t>(c.rows * c.columns);
  const auto columns = static_cast<std::size_t>(c.columns);
  std::vector<std::unique_ptr<Buffer<float>>> parts;
  std::vector<const float*> pointers;
  for (int p = 0; p < num_partials; ++p) {
    parts.push_back(std::make_unique<Buffer<float>>(
        device, random_floats(size, 20 + static_cast<std::uint32_t>(p))));
    pointers.push_back(parts.back()->data());
  }
  Buffer<float> residual(device, random_floats(size, 30));
  Buffer<float> bias_values(device, random_floats(columns, 31));
  Buffer<float> weight(device, random_floats(columns, 32));
  ActivationBuffer out(device, layout, c.rows, c.columns);
  CombineArgs args;
  args.program = program;
  args.partials = pointers;
  args.rows = c.rows;
  args.columns = c.columns;
  args.bias = bias ? bias_values.data() : nullptr;
  args.residual = residual.data();
  args.norm_weight = norm ? weight.data() : nullptr;
  args.out = out.get();
  device.ops().combine(args);
  EXPECT_TRUE(device.wait().ok());
  return {residual.read(), norm ? out.floats() : std::vector<float>{}};
}

TEST(RowOps, CombineMatchesTheReferenceForEveryProgram) {
  const std::vector<std::pair<std::vector<int>, int>> programs = {
      {{0}, 1}, {{0, 1, -1}, 2}, {{0, 1, -1, 2, -1}, 3}, {{2, 0, 1, -1, -1, 3, 4, -1, -1}, 5}};
  const auto reference = open_backend("reference");
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name);
    for (const RowCase& c : row_cases()) {
      for (const auto& [program, parts] : programs) {
        for (const bool bias : {false, true}) {
          const auto want =
              run_combine(*reference, ActivationLayout::kF32, c, program, parts, bias, true);
          for (const ActivationLayout layout : kLayouts) {
            SCOPED_TRACE(name + " " + std::to_string(c.rows) + "x" + std::to_string(c.columns));
            const auto got = run_combine(*device, layout, c, program, parts, bias, true);
            EXPECT_EQ(got.residual, want.residual);  // the same additions in the same order
            expect_row_op_near(got.normed, want.normed, layout);
          }
          const auto bare =
              run_combine(*device, ActivationLayout::kF32, c, program, parts, bias, false);
          EXPECT_EQ(bare.residual, want.residual);
        }
      }
    }
  }
}

TEST(RowOps, AddingUpTheTreeIsNotAddingFromLeftToRight) {
  // (a + b) + (c + d) with values for which the order shows.
  constexpr int kColumns = 32;
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name);
    std::vector<std::unique_ptr<Buffer<float>>> parts;
    std::vector<const float*> pointers;
    for (const float value : {1e8f, 1.0f, -1e8f, 1.0f}) {
      parts.push_back(
          std::make_unique<Buffer<float>>(*device, std::vector<float>(kColumns, value)));
      pointers.push_back(parts.back()->data());
    }
    Buffer<float> residual(*device, kColumns);
    const std::vector<int> program = {0, 1, -1, 2, 3, -1, -1};
    CombineArgs args;
    args.program = program;
    args.partials = pointers;
    args.rows = 1;
    args.columns = kColumns;
    args.residual = residual.data();
    device->ops().combine(args);
    ASSERT_TRUE(device->wait().ok());
    EXPECT_EQ(residual.read()[5], (1e8f + 1.0f) + (-1e8f + 1.0f));
  }
}

TEST(RowOps, EmbedLeavesForeignIdsAlone) {
  constexpr int kColumns = 64, kRows = 10;
  const auto values = random_floats(kRows * kColumns, 40);
  for (const char* name : {"reference", "avx512", "avx2"}) {
    const auto device = open_backend(name);
    if (device == nullptr) continue;
    for (const Format format :
         {Format::kF32, Format::kF16, Format::kBf16, Format::kQ8_0, Format::kQ4_0, Format::kQ4_1}) {
      std::vector<std::byte> stored(kRows * row_bytes(format, kColumns));
      std::vector<float> decoded(values.size());
      for (int n = 0; n < kRows; ++n) {
        std::byte* row = stored.data() + static_cast<std::size_t>(n) * row_bytes(format, kColumns);
        formats::encode_row(format, values.data() + n * kColumns, kColumns, row);
        formats::decode_row(format, row, kColumns, decoded.data() + n * kColumns);
      }
      MatrixSource source;
      source.format = format;
      source.columns = kColumns;
      source.parts = {{stored.data(), row_bytes(format, kColumns), kRows}};
      source.sum = SumPlan::whole(kColumns);
      const auto table = device->ops().pack(source);
      ASSERT_TRUE(table.ok()) << table.status();
      const std::vector<TokenId> tokens = {103, 99, 109, 110, 100};  // of 100..109
      Buffer<float> out(*device, std::vector<float>(tokens.size() * kColumns, -7.0f));
      device->ops().embed(*table, 100, tokens.data(), static_cast<int>(tokens.size()), out.data());
      ASSERT_TRUE(device->wait().ok());
      const std::vector<float> got = out.read();
      for (std::size_t t = 0; t < tokens.size(); ++t) {
        for (int k = 0; k < kColumns; ++k) {
          const int n = tokens[t] - 100;
          const bool own = n >= 0 && n < kRows;
          ASSERT_EQ(got[t * kColumns + static_cast<std::size_t>(k)],
                    own ? decoded[static_cast<std::size_t>(n * kColumns + k)] : -7.0f)
              << name << " " << traits(format).name << " row " << t << " column " << k;
        }
      }
    }
  }
}

TEST(RowOps, TakeRowsCopiesBits) {
  for (const char* name : {"reference", "avx512", "avx2"}) {
    const auto device = open_backend(name);
    if (device == nullptr) continue;
    Buffer<float> x(*device, std::vector<float>{1, 2, -0.0f, 4, 5, 6, 7, 8, 9});
    const std::vector<std::int32_t> rows = {2, 0, 2};
    Buffer<float> out(*device, 9);
    device->ops().take_rows(x.data(), rows.data(), 3, 3, out.data());
    ASSERT_TRUE(device->wait().ok());
    const std::vector<float> got = out.read();
    EXPECT_EQ(got, (std::vector<float>{7, 8, 9, 1, 2, -0.0f, 7, 8, 9})) << name;
    EXPECT_TRUE(std::signbit(got[5])) << name;
  }
}

TEST(RowOps, SelectTakesEachRowFromItsOwner) {
  for (const char* name : {"reference", "avx512", "avx2"}) {
    const auto device = open_backend(name);
    if (device == nullptr) continue;
    Buffer<float> a(*device, std::vector<float>{1, 2, 3, 4, 5, 6});
    Buffer<float> b(*device, std::vector<float>{10, 20, 30, 40, 50, 60});
    const std::vector<const float*> parts = {a.data(), b.data()};
    const std::vector<TokenId> ends = {10, 20};
    const std::vector<TokenId> tokens = {10, 9, 19};
    Buffer<float> out(*device, 6);
    device->ops().select(parts, ends, tokens.data(), 3, 2, out.data());
    ASSERT_TRUE(device->wait().ok());
    EXPECT_EQ(out.read(), (std::vector<float>{10, 20, 3, 4, 50, 60})) << name;
  }
}

}  // namespace
}  // namespace quire::test
