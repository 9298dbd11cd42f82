// Quantized checkpoints give the answers of the same numbers stored as fp32, bit for bit on the
// reference device, over 1, 2 and 3 ranks; and what does not run is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/formats/table.h"
#include "tests/worker/harness.h"
#include "tests/worker/quantized_checkpoint.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

absl::StatusOr<std::vector<Output>> answers(const std::string& model, int world,
                                            const std::string& device = "reference") {
  GroupOptions options;
  options.world = world;
  options.device = device;
  auto group = RankGroup::open(model, options);
  if (!group.ok()) return group.status();
  return generate(**group, {greedy(random_ids(1, 40), 6), greedy(random_ids(2, 9), 6)});
}

void expect_same(const std::vector<Output>& got, const std::vector<Output>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(got[i].tokens, want[i].tokens);
    ASSERT_EQ(got[i].logprobs.size(), want[i].logprobs.size());
    for (std::size_t t = 0; t < want[i].logprobs.size(); ++t) {
      for (std::size_t k = 0; k < want[i].logprobs[t].size(); ++k) {
        EXPECT_EQ(got[i].logprobs[t][k].token, want[i].logprobs[t][k].token);
        EXPECT_EQ(got[i].logprobs[t][k].logprob, want[i].logprobs[t][k].logprob);
      }
    }
  }
}

void expect_same_over_ranks(const std::string& model, const std::string& plain) {
  const auto want = answers(plain, 1);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const int world : {1, 2, 3}) {
    SCOPED_TRACE(testing::Message() << world << " ranks");
    const auto got = answers(model, world);
    ASSERT_TRUE(got.ok()) << got.status();
    expect_same(*got, *want);
  }
}

struct Case {
  const char* name;
  QuantScheme scheme;
  int group_size;
};
class QuantizedFolderTest : public testing::TestWithParam<Case> {};

TEST_P(QuantizedFolderTest, AnswersAsItsPlainTwinDoes) {
  const ScratchFolder scratch;
  const QuantOptions options = {GetParam().scheme, GetParam().group_size, {}};
  write_quantized_hf(scratch / "quantized", scratch / "plain", options);
  expect_same_over_ranks(scratch / "quantized", scratch / "plain");
}

INSTANTIATE_TEST_SUITE_P(
    Schemes, QuantizedFolderTest,
    testing::Values(
        Case{"Awq32", QuantScheme::kAwq, 32}, Case{"Awq96", QuantScheme::kAwq, 96},
        Case{"AwqRows", QuantScheme::kAwq, -1}, Case{"Gptq32", QuantScheme::kGptq, 32},
        Case{"Gptq128", QuantScheme::kGptq, 128}, Case{"GptqRows", QuantScheme::kGptq, -1},
        Case{"GptqV2", QuantScheme::kGptqV2, 64}, Case{"Gptq8", QuantScheme::kGptq8, 64},
        Case{"Fp8Tensor", QuantScheme::kFp8Tensor, 0},
        Case{"Fp8Channel", QuantScheme::kFp8Channel, 0},
        Case{"Int8Channel", QuantScheme::kInt8Channel, 0},
        Case{"Packed4", QuantScheme::kPacked4, 64}, Case{"Packed4Rows", QuantScheme::kPacked4, -1}),
    [](const testing::TestParamInfo<Case>& c) { return std::string(c.param.name); });

TEST(QuantizedGguf, SuperblocksCutInsideAnswerAsTheirPlainTwinDoes) {
  const ScratchFolder scratch;
  TinyOptions tiny;
  tiny.storage = TinyOptions::Storage::kSuperblocks;
  write_tiny_gguf(scratch / "quantized.gguf", tiny);
  tiny.edit = [](std::vector<TinyTensor>& tensors) {
    for (TinyTensor& tensor : tensors) {
      const auto columns = static_cast<int>(tensor.shape.back());
      std::vector<std::byte> row(row_bytes(tensor.format, columns));
      for (std::size_t at = 0; at < tensor.values.size(); at += tensor.shape.back()) {
        formats::encode_row(tensor.format, tensor.values.data() + at, columns, row.data());
        formats::decode_row(tensor.format, row.data(), columns, tensor.values.data() + at);
      }
      tensor.format = Format::kF32;
    }
  };
  write_tiny_gguf(scratch / "plain.gguf", tiny);
  expect_same_over_ranks(scratch / "quantized.gguf", scratch / "plain.gguf");
}

// The CPU holds what it has no panels for as the nearest format that it has: near, and the same on
// any number of ranks.
void expect_near_on_cpu(const std::string& model, const std::string& plain) {
  const auto want = answers(plain, 1);
  ASSERT_TRUE(want.ok()) << want.status();
  std::vector<Output> first;
  for (const int world : {1, 2, 3}) {
    SCOPED_TRACE(testing::Message() << world << " ranks");
    const auto got = answers(model, world, "cpu");
    ASSERT_TRUE(got.ok()) << got.status();
    if (first.empty()) first = *got;
    expect_same(*got, first);
  }
  for (std::size_t i = 0; i < first.size(); ++i) {
    for (const TokenLogprob& entry : (*want)[i].logprobs[0]) {
      EXPECT_NEAR(logprob_of(first[i].logprobs[0], entry.token), entry.logprob, 0.1f);
    }
  }
}

TEST(QuantizedFolder, RunsOnCpusToo) {
  for (const QuantScheme scheme : {QuantScheme::kAwq, QuantScheme::kGptq8, QuantScheme::kFp8Channel,
                                   QuantScheme::kInt8Channel}) {
    SCOPED_TRACE(static_cast<int>(scheme));
    const ScratchFolder scratch;
    write_quantized_hf(scratch / "quantized", scratch / "plain", {scheme, 32, {}});
    expect_near_on_cpu(scratch / "quantized", scratch / "plain");
  }
}

using Edit = std::function<void(Json&, RawTensors&)>;

void expect_refused(QuantScheme scheme, const Edit& edit, const std::string& says) {
  SCOPED_TRACE(says);
  const ScratchFolder scratch;
  write_quantized_hf(scratch / "q", {}, {scheme, 32, edit});
  const auto got = answers(scratch / "q", 1);
  ASSERT_FALSE(got.ok());
  EXPECT_THAT(std::string(got.status().message()), HasSubstr(says));
}

constexpr char kDown[] = "model.layers.1.mlp.down_proj";

TEST(QuantizedFolder, AnActivationOrderIsRefusedByName) {
  expect_refused(
      QuantScheme::kGptq,
      [](Json&, RawTensors& tensors) {
        std::string& order = tensors[std::string(kDown) + ".g_idx"].bytes;
        std::swap(order[0], order[4 * 40]);
      },
      "down_proj.qweight: its g_idx puts column 0 into group 1");
  expect_refused(
      QuantScheme::kGptq,
      [](Json& config, RawTensors& tensors) {
        config["quantization_config"]["desc_act"] = true;
        tensors.erase(std::string(kDown) + ".g_idx");
      },
      "down_proj.g_idx' is missing");
}

TEST(QuantizedFolder, AnAsymmetricByteIsRefusedByName) {
  expect_refused(
      QuantScheme::kGptq8,
      [](Json&, RawTensors& tensors) { tensors[std::string(kDown) + ".qzeros"].bytes[5] = 3; },
      "row 5 has the zero point 4");
}

TEST(QuantizedFolder, ShapesThatDoNotFitEachOtherAreRefused) {
  const auto reshape = [](const char* end, std::vector<std::int64_t> shape) -> Edit {
    return [=](Json&, RawTensors& tensors) { tensors[std::string(kDown) + end].shape = shape; };
  };
  expect_refused(QuantScheme::kAwq, reshape(".scales", {26, 144}), "down_proj.scales' has the");
  expect_refused(QuantScheme::kAwq, reshape(".qzeros", {12, 39}), "down_proj.qzeros' has the");
  expect_refused(QuantScheme::kAwq, reshape(".qweight", {416 * 36}), "must be a matrix of I32");
  expect_refused(QuantScheme::kGptq, reshape(".g_idx", {208, 2}), "down_proj.g_idx' has the");
  // It fits itself, but not the model.
  expect_refused(
      QuantScheme::kFp8Tensor, reshape(".weight", {416, 288}),
      "down_proj.weight has shape [416, 288], but the model's configuration asks for [288, 416]");
}

TEST(QuantizedFolder, MissingAndForeignPartsAreRefused) {
  const auto lose = [](const char* end) -> Edit {
    return [=](Json&, RawTensors& tensors) { tensors.erase(std::string(kDown) + end); };
  };
  expect_refused(QuantScheme::kAwq, lose(".qzeros"), "down_proj.qzeros' is missing");
  expect_refused(QuantScheme::kInt8Channel, lose(".weight_scale"), "weight_scale' is missing");
  expect_refused(QuantScheme::kPacked4, lose(".weight_packed"), "down_proj.weight of shape");
  expect_refused(
      QuantScheme::kFp8Tensor,
      [](Json&, RawTensors& tensors) {
        tensors[std::string(kDown) + ".weight_scale_inv"] = {"F32", {}, std::string(4, '\0')};
      },
      "weight_scale_inv': weights with a scale for each block");
  expect_refused(
      QuantScheme::kInt8Channel,
      [](Json&, RawTensors& tensors) {
        tensors[std::string(kDown) + ".weight_zero_point"] = {"I8", {}, std::string(1, '\0')};
      },
      "weight_zero_point': weights with zero points do not run");
  expect_refused(
      QuantScheme::kAwq, [](Json& config, RawTensors&) { config.erase("quantization_config"); },
      "is stored as I32, which nothing in config.json explains");
}

TEST(QuantizedFolder, ModulesThatWereNotConvertedLoadPlain) {
  const ScratchFolder scratch;
  const auto keep = [](Json& config, RawTensors& tensors) {
    config["quantization_config"]["modules_to_not_convert"] = {"down_proj"};
    const std::string module = "model.layers.0.mlp.down_proj";
    for (const char* end : {".qweight", ".qzeros", ".scales"}) tensors.erase(module + end);
    tensors[module + ".weight"] = {"F32", {288, 416}, std::string(288 * 416 * 4, '\0')};
  };
  write_quantized_hf(scratch / "q", {}, {QuantScheme::kAwq, 32, keep});
  const auto one = answers(scratch / "q", 1);
  ASSERT_TRUE(one.ok()) << one.status();
  const auto two = answers(scratch / "q", 2);
  ASSERT_TRUE(two.ok()) << two.status();
  expect_same(*two, *one);
}

}  // namespace
}  // namespace quire::test
