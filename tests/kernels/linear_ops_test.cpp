// The shared cases of matrix products, on the CPU's instruction sets against the reference, and the
// reference against double precision; what the CPU has no kernels for is refused by name.
#include <gmock/gmock.h>

#include "tests/kernels/linear_cases.h"

namespace quire::test {
namespace {

bool has_cpu_kernels(Format format) {
  return format <= Format::kQ4_1;
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
        if (!has_cpu_kernels(format)) continue;
        for (const LinearOpCase& c : linear_cases()) {
          if (c.fits(format)) expect_case(*device, *reference, c, format, 1e-5);
        }
      }
    }
  }
}

TEST(LinearOps, TheCpuRefusesWhatItHasNoKernelsFor) {
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name);
    for (const Format format : all_formats()) {
      const auto weight =
          device->ops().pack(StoredMatrix(format, 3, 256, 1).source(SumPlan::whole(256)));
      if (weight.ok()) device->free(weight->data);
      ASSERT_EQ(weight.ok(), has_cpu_kernels(format)) << traits(format).name;
      if (weight.ok()) continue;
      EXPECT_EQ(weight.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(weight.status().message()),
                  testing::AllOf(testing::HasSubstr(traits(format).name),
                                 testing::HasSubstr("use --device cuda")));
    }
  }
}

TEST(LinearOps, EmbeddingsAreTheFormatsValues) {
  for (const char* name : {"reference", "avx512", "avx2"}) {
    const auto device = open_backend(name);
    if (device == nullptr) continue;
    for (const Format format : all_formats()) {
      if (!has_cpu_kernels(format) && std::string(name) != "reference") continue;
      const bool cut = traits(format).block != traits(format).cut;
      expect_rows(*device, StoredMatrix(format, 45, 288, 3, cut ? 160 : 0));
    }
  }
}

TEST(LinearOps, EveryBackendRefusesACutInsideABlock) {
  for (const char* name : {"reference", "avx512", "avx2"}) {
    const auto device = open_backend(name);
    if (device == nullptr) continue;
    const StoredMatrix matrix(Format::kQ8_0, 2, 64, 1);
    const auto weight = device->ops().pack(matrix.source({{{0, 48}, {48, 64}}, {0, 1}, 1}));
    ASSERT_EQ(weight.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(weight.status().message()), testing::HasSubstr("column 48"));
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
