// Runs a case of linear_cases() on any device, through Ops alone, and compares it with the
// reference: the same for the CPU, the emulated GPU and a real one. The input is whole numbers up
// to kLargestQ8 with one of them in each block of 32, so that every layout of activations holds it
// exactly.
#pragma once

#include <cmath>
#include <cstring>
#include <random>

#include "kernels/cpu/activation.h"
#include "kernels/formats/half.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/stored_matrix.h"

namespace quire::test {

inline std::vector<float> exact_input(int tokens, int columns) {
  std::mt19937 random(99);
  std::vector<float> x;
  for (int t = 0; t < tokens; ++t) {
    for (int k = 0; k < columns; ++k) {
      const int number =
          static_cast<int>(random() % (cpu::kLargestQ8 - cpu::kSmallestQ8 + 1)) + cpu::kSmallestQ8;
      x.push_back(static_cast<float>(k % 32 == t % 32 % columns ? cpu::kLargestQ8 : number));
    }
  }
  return x;
}

// The bytes of an activation, as the ops of `device` would have written it.
inline std::vector<std::byte> stored_input(const Device& device, ActivationLayout layout,
                                           const std::vector<float>& x, int tokens, int columns) {
  const std::string id = device.numerics_id();
  const bool is_cpu = !id.starts_with("reference") && !id.starts_with("cuda");
  const std::size_t element = layout == ActivationLayout::kF32 ? 4 : 2;
  const std::size_t stride = is_cpu ? cpu::activation_stride(layout, columns)
                                    : element * static_cast<std::size_t>(columns);
  std::vector<std::byte> bytes(stride * static_cast<std::size_t>(tokens));
  for (int t = 0; t < tokens; ++t) {
    for (int k = 0; k < columns; ++k) {
      const float number = x[static_cast<std::size_t>(t * columns + k)];
      std::byte* row = bytes.data() + static_cast<std::size_t>(t) * stride;
      if (layout == ActivationLayout::kF32) {
        std::memcpy(row + 4 * k, &number, 4);
      } else if (layout == ActivationLayout::kBf16) {
        const Bf16 half = to_bf16(number);
        std::memcpy(row + 2 * k, &half.bits, 2);
      } else {
        const cpu::Q8Row q = cpu::q8_row({bytes.data(), layout, tokens, columns}, t);
        q.values[k] = static_cast<std::int8_t>(number);
        q.scales[k / 32] = 1.0f;
        q.sums[k / 32] += q.values[k];
      }
    }
  }
  return bytes;
}

// [output][token][row].
inline std::vector<float> run_linear(Device& device, const LinearOpCase& c,
                                     const StoredMatrix& matrix) {
  const auto weight = device.ops().pack(matrix.source(c.plan()));
  EXPECT_TRUE(weight.ok()) << weight.status();
  if (!weight.ok()) return {};
  Buffer<std::byte> input(
      device,
      stored_input(device, weight->input, exact_input(c.tokens, c.columns), c.tokens, c.columns));
  Buffer<float> bias(device, random_floats(static_cast<std::size_t>(c.rows), 8));
  const auto rows = static_cast<std::size_t>(c.rows);
  const auto tokens = static_cast<std::size_t>(c.tokens);
  const auto outputs = static_cast<std::size_t>(c.plan().num_outputs);
  Buffer<float> out(device, outputs * tokens * rows);
  out.poison();
  device.ops().linear(*weight, {input.data(), weight->input, c.tokens, c.columns},
                      c.bias ? bias.data() : nullptr, out.data(), rows, tokens * rows);
  std::vector<float> values = out.read();
  device.free(weight->data);
  return values;
}

// |actual - expected| in units of the sum of |weight * input| of the largest row: `tolerance`.
inline void expect_case(Device& device, Device& reference, const LinearOpCase& c, Format format,
                        double tolerance) {
  SCOPED_TRACE(testing::Message() << device.numerics_id() << ' ' << traits(format).name << ": "
                                  << c.name);
  const bool cut = traits(format).block != traits(format).cut;
  const StoredMatrix matrix(format, c.rows, c.columns, 21, cut ? c.first_column : 0);
  const std::vector<float> actual = run_linear(device, c, matrix);
  const std::vector<float> expected = run_linear(reference, c, matrix);
  const std::vector<float> x = exact_input(c.tokens, c.columns);
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const std::size_t n = i % static_cast<std::size_t>(c.rows);
    const std::size_t t = i / static_cast<std::size_t>(c.rows) % static_cast<std::size_t>(c.tokens);
    double size = 1.0;
    for (std::size_t k = 0; k < static_cast<std::size_t>(c.columns); ++k) {
      size += std::fabs(matrix.values[n * static_cast<std::size_t>(c.columns) + k] *
                        x[t * static_cast<std::size_t>(c.columns) + k]);
    }
    ASSERT_NEAR(actual[i], expected[i], tolerance * size) << "element " << i;
  }
}

// All rows of the matrix, as the embedding gives them.
inline std::vector<float> embedded_rows(Device& device, const StoredMatrix& matrix) {
  const auto weight = device.ops().pack(matrix.source(SumPlan::whole(matrix.columns)));
  EXPECT_TRUE(weight.ok()) << weight.status();
  if (!weight.ok()) return {};
  std::vector<TokenId> ids;
  for (int n = 0; n < matrix.rows; ++n) ids.push_back(100 + n);
  Buffer<TokenId> tokens(device, ids);
  Buffer<float> out(device, matrix.values.size());
  device.ops().embed(*weight, 100, tokens.data(), matrix.rows, out.data());
  std::vector<float> rows = out.read();
  device.free(weight->data);
  return rows;
}

// They are exactly what the format decodes to.
inline void expect_rows(Device& device, const StoredMatrix& matrix) {
  EXPECT_EQ(embedded_rows(device, matrix), matrix.values)
      << device.numerics_id() << ' ' << traits(matrix.format).name;
}

}  // namespace quire::test
