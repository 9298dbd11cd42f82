// Matrix products against double precision, their refusals, and the extremes of integer sums.
#include "kernels/cpu/linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>

#include "kernels/cpu/panel.h"
#include "kernels/weight.h"
#include "tests/kernels/linear_test_support.h"

namespace quire::test {
namespace {

using cpu::Isa;

struct Case {
  Isa isa;
  Format format;
  bool float32;
};

void PrintTo(const Case& c, std::ostream* os) {
  *os << cpu::name_of(c.isa) << ' ' << traits(c.format).name << (c.float32 ? " float32" : "");
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const Isa isa : available_isas()) {
    for (const Format format : kAllFormats) {
      for (const bool float32 : {false, true}) cases.push_back({isa, format, float32});
    }
  }
  return cases;
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  std::string name = std::string(cpu::name_of(info.param.isa)) + "_" +
                     traits(info.param.format).name + (info.param.float32 ? "_float32" : "");
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

class LinearTest : public testing::TestWithParam<Case> {
 protected:
  Packed pack_whole(const Stored& m) const {
    return pack_matrix(m.source(SumPlan::whole(m.columns)), GetParam().isa, GetParam().float32);
  }
  // Widths worth trying: odd ones for plain formats; past 64 blocks for block formats.
  std::vector<int> widths() const {
    if (traits(GetParam().format).block == 1) return {1, 2, 3, 5, 16, 31, 64, 97, 300};
    return {32, 64, 96, 320, 2048, 2112};
  }
};

TEST_P(LinearTest, EqualsADoublePrecisionProduct) {
  const unsigned seed = 20261123;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (const int columns : widths()) {
    for (const int tokens : {1, 2, 3, 4, 5, 6, 7, 12, 13, 40, 100}) {
      if (columns > 100 && tokens > 7) continue;
      const int rows = static_cast<int>(random() % (columns > 1000 ? 50 : 200)) + 1;
      SCOPED_TRACE(testing::Message() << tokens << " x " << columns << " -> " << rows);
      const Stored m = random_matrix(GetParam().format, rows, columns, random());
      const Packed packed = pack_whole(m);
      const std::vector<float> x =
          random_floats(static_cast<std::size_t>(tokens * columns), random());
      const Input in = make_input(packed.weight.input, x.data(), static_cast<std::size_t>(columns),
                                  tokens, columns);
      const std::vector<float> got = multiply(GetParam().isa, packed, in.activation);
      // Sums of K roundings grow like sqrt(K) in practice; K / 8 + 4 is far below their bound K.
      ASSERT_LT(worst_error(m, in, got), columns / 8.0 + 4.0);
    }
  }
}

TEST_P(LinearTest, AddsTheBiasOnce) {
  const Stored m = random_matrix(GetParam().format, 45, 64, 1);
  const Packed packed = pack_whole(m);
  const std::vector<float> x = random_floats(3 * 64, 2), bias = random_floats(45, 3);
  const Input in = make_input(packed.weight.input, x.data(), 64, 3, 64);
  const std::vector<float> plain = multiply(GetParam().isa, packed, in.activation);
  const std::vector<float> biased = multiply(GetParam().isa, packed, in.activation, 1, bias.data());
  for (std::size_t i = 0; i < plain.size(); ++i) ASSERT_EQ(biased[i], plain[i] + bias[i % 45]);
}

TEST_P(LinearTest, WritesNothingBesideItsRows) {
  const Stored m = random_matrix(GetParam().format, 21, 32, 4);
  const Packed packed = pack_whole(m);
  const std::vector<float> x = random_floats(2 * 32, 5);
  const Input in = make_input(packed.weight.input, x.data(), 32, 2, 32);
  constexpr std::size_t kStride = 40;
  std::vector<float> out(2 * kStride, 77.0f);
  cpu::LinearArgs args;
  args.weight = &packed.weight;
  args.in = in.activation;
  args.out = out.data();
  args.out_stride = kStride;
  cpu::linear(GetParam().isa, args, 0, 1);
  for (std::size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(out[i] == 77.0f, i % kStride >= 21) << i;
  }
}

TEST_P(LinearTest, UnpacksTheExactValues) {
  for (const int columns : widths()) {
    const Stored m = random_matrix(GetParam().format, 37, columns, 6);
    const Packed packed = pack_whole(m);
    std::vector<float> row(static_cast<std::size_t>(columns));
    for (int n = 0; n < m.rows; ++n) {
      cpu::unpack_row(GetParam().isa, packed.weight, n, row.data());
      const auto first = m.values.begin() + n * columns;
      ASSERT_EQ(row, std::vector<float>(first, first + columns)) << n;
    }
  }
}

TEST_P(LinearTest, FetchingTheNextMatrixAheadChangesNothing) {
  const Stored m = random_matrix(GetParam().format, 150, 96, 12);
  const Packed packed = pack_whole(m);
  const std::vector<float> x = random_floats(7 * 96, 13);
  for (const int next_rows : {1, 40, 900}) {
    const Packed next = pack_whole(random_matrix(GetParam().format, next_rows, 64, 14));
    for (const int tokens : {1, 7}) {
      const Input in = make_input(packed.weight.input, x.data(), 96, tokens, 96);
      std::vector<float> out(static_cast<std::size_t>(tokens) * 150);
      for (const int thread : {0, 1, 2}) {
        cpu::LinearArgs args;
        args.weight = &packed.weight;
        args.next = &next.weight;
        args.in = in.activation;
        args.out = out.data();
        args.out_stride = 150;
        cpu::linear(GetParam().isa, args, thread, 3);
      }
      EXPECT_EQ(out, multiply(GetParam().isa, packed, in.activation)) << next_rows;
    }
  }
}

// Each thread with all weights, one group of its rows after the other, while it fetches what
// attentions will read.
TEST_P(LinearTest, GroupsOfRowsAreTheRows) {
  constexpr int kTokens = 29, kThreads = 2;
  const Stored m = random_matrix(GetParam().format, 150, 96, 15);
  const Packed packed = pack_whole(m);
  const std::vector<float> x = random_floats(kTokens * 96, 16);
  const Input in = make_input(packed.weight.input, x.data(), 96, kTokens, 96);
  std::vector<std::byte> memory(100'000);
  std::vector<std::int32_t> positions(kTokens, 15), begins(kTokens + 1);
  std::iota(begins.begin(), begins.end(), 0);
  std::vector<BlockId> tables(kTokens, 1);
  Batch batch;
  batch.num_tokens = batch.num_rows = kTokens;
  batch.max_blocks = 1;
  batch.positions = positions.data();
  batch.row_begin = begins.data();
  batch.block_tables = tables.data();
  const KvLayer kv{memory.data(), 50'000, DType::kBf16, 3, 64, 16};
  const auto before = std::make_shared<cpu::AheadWork>(),
             after = std::make_shared<cpu::AheadWork>();
  before->read.emplace(batch, kv, 0);
  after->read.emplace(batch, kv, 0);
  std::vector<float> out(static_cast<std::size_t>(kTokens) * 150);
  cpu::LinearArgs args;
  args.weight = &packed.weight;
  args.in = in.activation;
  args.out = out.data();
  args.out_stride = 150;
  args.next_group = take_part(before, packed.weight);
  args.next_attention = take_part(after, packed.weight);
  const cpu::RowShares shares(kTokens, kThreads, 6);
  for (int thread = 0; thread < kThreads; ++thread) {
    for (int g = 0; g < shares.num_groups(thread); ++g) {
      cpu::linear_rows(GetParam().isa, args, shares.group(thread, g), shares, thread);
    }
  }
  EXPECT_EQ(out, multiply(GetParam().isa, packed, in.activation));
}

TEST_P(LinearTest, StacksParts) {
  const Stored a = random_matrix(GetParam().format, 19, 96, 7);
  const Stored b = random_matrix(GetParam().format, 30, 96, 8);
  MatrixSource source = a.source(SumPlan::whole(96));
  source.parts.push_back(b.source({}).parts[0]);
  const Packed stacked = pack_matrix(source, GetParam().isa, GetParam().float32);
  ASSERT_EQ(stacked.weight.rows, 49);
  const std::vector<float> x = random_floats(96, 9);
  const Input in = make_input(stacked.weight.input, x.data(), 96, 1, 96);
  const std::vector<float> got = multiply(GetParam().isa, stacked, in.activation);
  std::vector<float> expected = multiply(GetParam().isa, pack_whole(a), in.activation);
  const std::vector<float> rest = multiply(GetParam().isa, pack_whole(b), in.activation);
  expected.insert(expected.end(), rest.begin(), rest.end());
  EXPECT_EQ(got, expected);
}

TEST_P(LinearTest, KeepsTheSizeOfTheFormatBesideItsPairSums) {
  const Stored m = random_matrix(GetParam().format, 64, 576, 10);
  const Packed packed = pack_whole(m);
  const bool pairs = cpu::is_nibbles(GetParam().format) && GetParam().isa != Isa::kAvx2 &&
                     packed.weight.input == ActivationLayout::kQ8;
  EXPECT_EQ(packed.weight.bytes, m.bytes.size() + (pairs ? std::size_t{64 * 576 / 32 * 2} : 0));
}

INSTANTIATE_TEST_SUITE_P(All, LinearTest, testing::ValuesIn(all_cases()), case_name);

// The largest products there are must not saturate in 16 bits, nor the largest sums of a number and
// an activation overflow a byte.
TEST(LinearExtremesTest, IntegerSumsAreExact) {
  constexpr int kColumns = 64, kTokens = 16;
  for (const Isa isa : available_isas()) {
    for (const Format format : {Format::kQ8_0, Format::kQ4_0, Format::kQ4_1}) {
      for (const int pattern : {0x00, 0x80, 0x7f, 0xff, 0x81, 0x0f, 0xf0}) {
        for (const int signs : {0, 1, 2, 3}) {  // of the first and second half of each block
          Stored m = random_matrix(format, 16, kColumns, 11);
          const std::size_t block_bytes = static_cast<std::size_t>(traits(format).block_bytes);
          const std::size_t header = format == Format::kQ4_1 ? 4 : 2;
          for (std::size_t i = 0; i < m.bytes.size(); ++i) {
            if (i % block_bytes >= header) m.bytes[i] = static_cast<std::byte>(pattern);
          }
          for (int n = 0; n < m.rows; ++n) {
            formats::decode_row(format, m.bytes.data() + static_cast<std::size_t>(n) * m.stride(),
                                kColumns, m.values.data() + n * kColumns);
          }
          const Packed packed = pack_matrix(m.source(SumPlan::whole(kColumns)), isa);
          std::vector<float> x;
          for (int k = 0; k < kTokens * kColumns; ++k) {
            x.push_back((signs >> (k / 16 % 2) & 1) != 0 ? cpu::kSmallestQ8 : cpu::kLargestQ8);
          }
          for (const int tokens : {1, kTokens}) {
            const Input in = make_input(packed.weight.input, x.data(), kColumns, tokens, kColumns);
            EXPECT_LT(worst_error(m, in, multiply(isa, packed, in.activation)), 4.0)
                << cpu::name_of(isa) << ' ' << traits(format).name << ' ' << pattern << ' ' << signs
                << ' ' << tokens;
          }
        }
      }
    }
  }
}

TEST(IsaTest, ForcesWhatIsThereAndRefusesWhatIsNot) {
  EXPECT_EQ(cpu::choose_isa("sse4").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cpu::choose_isa("").status().code(), absl::StatusCode::kInvalidArgument);
  const std::vector<Isa> isas = available_isas();
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512Vnni, Isa::kAvx512}) {
    const auto chosen = cpu::choose_isa(cpu::name_of(isa));
    if (std::find(isas.begin(), isas.end(), isa) != isas.end()) {
      EXPECT_EQ(chosen.value(), isa);
      continue;
    }
    EXPECT_EQ(chosen.status().code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(chosen.status().message()), testing::HasSubstr("it lacks "));
  }
  if (isas.empty()) return;
  EXPECT_EQ(cpu::choose_isa("auto").value(), isas.back());
}

TEST(LinearShapeTest, ChoosesTheLayoutOfActivations) {
  const auto layout = [](Format format, Isa isa, bool float32) {
    MatrixSource source{format, 64, {{nullptr, 0, 1}}, SumPlan::whole(64)};
    return cpu::packed_shape(source, isa, float32)->input;
  };
  EXPECT_EQ(layout(Format::kQ4_1, Isa::kAvx2, false), ActivationLayout::kQ8);
  EXPECT_EQ(layout(Format::kQ4_1, Isa::kAvx512, true), ActivationLayout::kF32);
  EXPECT_EQ(layout(Format::kBf16, Isa::kAvx512, false), ActivationLayout::kBf16);
  EXPECT_EQ(layout(Format::kBf16, Isa::kAvx2, false), ActivationLayout::kF32);
  EXPECT_EQ(layout(Format::kBf16, Isa::kAvx512Vnni, false), ActivationLayout::kF32);
  EXPECT_EQ(layout(Format::kQ4_1, Isa::kAvx512Vnni, false), ActivationLayout::kQ8);
  EXPECT_EQ(layout(Format::kBf16, Isa::kAvx512, true), ActivationLayout::kF32);
  EXPECT_EQ(layout(Format::kF32, Isa::kAvx512, false), ActivationLayout::kF32);
  EXPECT_EQ(layout(Format::kF16, Isa::kAvx512, false), ActivationLayout::kF32);
}

TEST(LinearShapeTest, RefusesWhatSplitsABlock) {
  MatrixSource source{Format::kQ4_0, 48, {{nullptr, 0, 1}}, SumPlan::whole(48)};
  auto shape = cpu::packed_shape(source, Isa::kAvx512, false);
  ASSERT_EQ(shape.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shape.status().message()), testing::HasSubstr("48 columns"));

  source = {Format::kQ8_0, 64, {{nullptr, 0, 1}}, SumPlan{{{0, 16}, {16, 64}}, {0, 1}, 1}};
  shape = cpu::packed_shape(source, Isa::kAvx2, false);
  ASSERT_EQ(shape.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shape.status().message()), testing::HasSubstr("columns 0 to 16"));
  source.format = Format::kBf16;
  EXPECT_TRUE(cpu::packed_shape(source, Isa::kAvx2, false).ok());
}

TEST(LinearShapeTest, RefusesWhatIsTooWideToPackATokenOf) {
  constexpr int kColumns = 1 << 20;
  MatrixSource source{Format::kQ4_1, kColumns, {{nullptr, 0, 1}}, SumPlan::whole(kColumns)};
  const auto shape = cpu::packed_shape(source, Isa::kAvx2, false);
  ASSERT_EQ(shape.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shape.status().message()), testing::HasSubstr("1048576 columns"));
  EXPECT_TRUE(cpu::packed_shape(source, Isa::kAvx2, true).ok());
}

TEST(LinearShapeTest, ARankWithoutLeavesDoesNothing) {
  MatrixSource source{Format::kF32, 0, {{nullptr, 0, 33}}, SumPlan{{}, {}, 0}};
  const Packed packed = pack_matrix(source, Isa::kAvx2);
  EXPECT_EQ(packed.weight.bytes, 0u);
  cpu::LinearArgs args;
  args.weight = &packed.weight;
  args.in = {nullptr, packed.weight.input, 5, 0};
  cpu::linear(available_isas().at(0), args, 0, 1);
}

}  // namespace
}  // namespace quire::test
