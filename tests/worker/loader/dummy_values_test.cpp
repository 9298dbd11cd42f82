// Made-up weights: their size and spread in every format, and that any cut of a matrix holds what
// the whole holds there.
#include "worker/loader/dummy_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/formats/table.h"

namespace quire {
namespace {

constexpr int kColumns = 1024;

TensorInfo matrix(Format format, const std::string& name = "model.layers.0.mlp.down_proj.weight") {
  TensorInfo tensor;
  tensor.name = name;
  tensor.format = format;
  tensor.shape = {64, kColumns};
  return tensor;
}

std::vector<float> decoded(const TensorInfo& tensor, int row) {
  const DummyValues values(tensor);
  std::vector<std::byte> bytes(row_bytes(tensor.format, kColumns));
  values.fill_row(row, {0, kColumns}, bytes.data());
  std::vector<float> out(kColumns);
  formats::decode_row(tensor.format, bytes.data(), kColumns, out.data());
  for (float& value : out) value *= values.row_scale();
  return out;
}

class DummyFormatTest : public testing::TestWithParam<int> {
 protected:
  Format format() const { return static_cast<Format>(GetParam()); }
};

TEST_P(DummyFormatTest, IsSpreadAroundZeroByTwoHundredths) {
  double sum = 0.0, squares = 0.0;
  for (int row = 0; row < 64; ++row) {
    for (const float value : decoded(matrix(format()), row)) {
      ASSERT_LT(std::fabs(value), 0.1f);  // false of NaN, too
      sum += value;
      squares += static_cast<double>(value) * value;
    }
  }
  constexpr double kCount = 64.0 * kColumns;
  const double mean = sum / kCount;
  const double deviation = std::sqrt(squares / kCount - mean * mean);
  EXPECT_NEAR(deviation, 0.02, 0.002);
  EXPECT_NEAR(mean, 0.0, 0.003);  // half a step of four bits
}

TEST_P(DummyFormatTest, ACutHoldsWhatTheWholeHoldsThere) {
  const TensorInfo tensor = matrix(format());
  const DummyValues values(tensor);
  std::vector<std::byte> whole(row_bytes(format(), kColumns));
  values.fill_row(7, {0, kColumns}, whole.data());
  const int cut = traits(format()).cut;
  for (const Range columns : {Range{cut, 5 * cut}, Range{288, 864}, Range{3 * cut, kColumns}}) {
    const std::size_t size = span_bytes(format(), columns.begin, columns.end);
    std::vector<std::byte> part(size);
    values.fill_row(7, columns, part.data());
    const std::byte* from = whole.data() + row_bytes(format(), columns.begin);
    EXPECT_EQ(part, std::vector<std::byte>(from, from + size)) << columns.begin;
  }
}

TEST_P(DummyFormatTest, RowsAndTensorsDiffer) {
  const std::vector<float> first = decoded(matrix(format()), 0);
  EXPECT_EQ(decoded(matrix(format()), 0), first);
  EXPECT_NE(decoded(matrix(format()), 1), first);
  EXPECT_NE(decoded(matrix(format(), "model.layers.1.mlp.down_proj.weight"), 0), first);
}

INSTANTIATE_TEST_SUITE_P(Formats, DummyFormatTest,
                         testing::Range(0, static_cast<int>(std::size(kFormatTraits))),
                         [](const testing::TestParamInfo<int>& format) {
                           return std::string(kFormatTraits[format.param].name);
                         });

TEST(DummyValues, NormsAreOneAndBiasesSmall) {
  TensorInfo tensor = matrix(Format::kBf16, "model.norm.weight");
  tensor.shape = {96};
  EXPECT_EQ(DummyValues(tensor).vector({0, 96}), std::vector<float>(96, 1.0f));
  tensor.name = "model.layers.0.self_attn.q_proj.bias";
  const std::vector<float> bias = DummyValues(tensor).vector({0, 96});
  const std::vector<float> part = DummyValues(tensor).vector({30, 70});
  EXPECT_EQ(part, std::vector<float>(bias.begin() + 30, bias.begin() + 70));
  EXPECT_THAT(bias, testing::Each(testing::AllOf(testing::Gt(-0.1f), testing::Lt(0.1f))));
  EXPECT_THAT(bias, testing::Contains(testing::Ne(bias[0])));
}

}  // namespace
}  // namespace quire
