// The shared cases of matrix products, on the CPU's instruction sets against the reference, and the
// reference against double precision; what the CPU's own formats cost the ones it has no panels of.
#include <gmock/gmock.h>

#include "tests/kernels/linear_cases.h"

namespace quire::test {
namespace {

// How far the CPU's value of a weight may be from the format's, as a share of the largest weight in
// its block: scales in f16, or the numbers of another format. Zero: none.
double cpu_rounding(Format format) {
  switch (format) {
    case Format::kI8:
      return 0x1p-11;
    case Format::kF8E4M3:
      return 0x1p-8;
    case Format::kQ4_Z:
    case Format::kQ4_K:  // of d * q and m, each within 2^-11 of itself
      return 0x1p-9;
    case Format::kQ5_K:
    case Format::kQ6_K:
      return 1.0 / 254 + 0x1p-11;  // q8_0: half a step, and its scale
    default:
      return 0.0;
  }
}

TEST(LinearOps, TheReferenceIsTheProductInDoublePrecision) {
  const auto reference = open_backend("reference");
  for (const Format format : all_formats()) {
    for (const LinearOpCase& c : linear_cases()) {
      if (!c.fits(format) || c.plan().num_outputs != 1 || c.tokens > 64) continue;
      const bool cut = traits(format).block != traits(format).cut;
      const StoredMatrix matrix(format, c.rows, c.columns, 5, cut ? c.first_column : 0);
      const std::vector<float> x = exact_input(c.tokens, c.columns);
      const std::vector<float> bias = random_floats(static_cast<std::size_t>(c.rows), 8);
      const std::vector<float> got = run_linear(*reference, c, matrix);
      for (std::size_t i = 0; i < got.size(); ++i) {
        const std::size_t n = i % static_cast<std::size_t>(c.rows);
        const auto columns = static_cast<std::size_t>(c.columns);
        double sum = c.bias ? bias[n] : 0.0, size = 1.0;
        for (std::size_t k = 0; k < columns; ++k) {
          const double product = double{matrix.values[n * columns + k]} *
                                 double{x[i / static_cast<std::size_t>(c.rows) * columns + k]};
          sum += product;
          size += std::fabs(product);
        }
        ASSERT_NEAR(got[i], sum, 4e-6 * size) << traits(format).name << ' ' << c.name;
      }
    }
  }
}

TEST(LinearOps, TheCpuGivesWhatTheReferenceGives) {
  const auto reference = open_backend("reference");
  for (const std::string& name : cpu_backends()) {
    for (const char* dtype : {"auto", "float32"}) {
      const auto device = open_backend(name, 2, dtype);
      for (const Format format : all_formats()) {
        // Against the sum of |weight * input|, of which a block's largest weight is a few times
        // the mean.
        const double tolerance = 1e-5 + 4 * cpu_rounding(format);
        for (const LinearOpCase& c : linear_cases()) {
          const bool splits_panels = format == Format::kI8 && !c.fits(Format::kQ8_0);
          if (!c.fits(format) || splits_panels) continue;
          expect_case(*device, *reference, c, format, tolerance);
        }
      }
    }
  }
}

TEST(LinearOps, EmbeddingsAreTheFormatsValues) {
  for (const char* name : {"reference", "avx512", "avx512-vnni", "avx2"}) {
    const auto device = open_backend(name);
    if (device == nullptr) continue;
    for (const Format format : all_formats()) {
      const bool cut = traits(format).block != traits(format).cut;
      const StoredMatrix matrix(format, 45, 288, 3, cut ? 160 : 0);
      const double rounding = std::string(name) == "reference" ? 0.0 : cpu_rounding(format);
      if (rounding == 0.0) {
        expect_rows(*device, matrix);
        continue;
      }
      const std::vector<float> rows = embedded_rows(*device, matrix);
      ASSERT_EQ(rows.size(), matrix.values.size());
      for (std::size_t i = 0; i < rows.size(); ++i) {
        double largest = 0.0;
        for (std::size_t k = i / 32 * 32; k < i / 32 * 32 + 32; ++k) {
          largest = std::max(largest, std::fabs(double{matrix.values[k]}));
        }
        ASSERT_NEAR(rows[i], matrix.values[i], rounding * largest + 1e-7)
            << name << ' ' << traits(format).name << ' ' << i;
      }
    }
  }
}

TEST(LinearOps, EveryBackendRefusesACutInsideABlock) {
  for (const char* name : {"reference", "avx512", "avx512-vnni", "avx2"}) {
    const auto device = open_backend(name);
    if (device == nullptr) continue;
    const StoredMatrix matrix(Format::kQ8_0, 2, 64, 1);
    const auto weight = device->ops().pack(matrix.source({{{0, 48}, {48, 64}}, {0, 1}, 1}));
    ASSERT_EQ(weight.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(weight.status().message()), testing::HasSubstr("column 48"));
    if (std::string(name) == "reference") continue;
    const StoredMatrix bytes(Format::kI8, 2, 64, 1);
    EXPECT_THAT(
        std::string(
            device->ops().pack(bytes.source({{{0, 48}, {48, 64}}, {0, 1}, 1})).status().message()),
        testing::HasSubstr("splits a q8_0 block"))
        << "what i8 becomes here";
  }
  const auto reference = open_backend("reference");
  const StoredMatrix matrix(Format::kQ4_K, 2, 64, 1, 32);
  EXPECT_TRUE(reference->ops().pack(matrix.source(SumPlan::whole(64))).ok());
  MatrixSource inside = matrix.source(SumPlan::whole(64));
  inside.first_column = 16;
  EXPECT_THAT(std::string(reference->ops().pack(inside).status().message()),
              testing::HasSubstr("begins after 16 columns"));
}

}  // namespace
}  // namespace quire::test
