// quantization_config: what each method's fields mean, and which are refused by which name.
#include "common/model_file/hf_quant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace quire {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;
using Method = HfQuant::Method;

absl::StatusOr<HfQuant> read(const Json& section) {
  return read_hf_quant("config.json", {{"quantization_config", section}});
}

void expect_refused(const Json& section, const std::string& says) {
  const auto quant = read(section);
  ASSERT_FALSE(quant.ok()) << says;
  EXPECT_THAT(std::string(quant.status().message()), HasSubstr("config.json"));
  EXPECT_THAT(std::string(quant.status().message()), HasSubstr(says));
}

Json with(Json section, const char* key, const Json& value) {
  section[key] = value;
  return section;
}

const Json kAwq = {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 128}, {"version", "GEMM"}};
const Json kGptq = {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 64}};
const Json kWeights = {{"num_bits", 8},         {"type", "int"},       {"strategy", "channel"},
                       {"group_size", nullptr}, {"actorder", nullptr}, {"symmetric", true}};

Json compressed(const char* format, const Json& weights) {
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"sparsity_config", Json::object()},
          {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"weights", weights}}}}}};
}

TEST(HfQuant, AConfigWithoutTheSectionIsPlain) {
  for (const Json& config : {Json::object(), Json{{"quantization_config", nullptr}}}) {
    const auto quant = read_hf_quant("config.json", config);
    ASSERT_TRUE(quant.ok()) << quant.status();
    EXPECT_EQ(quant->method, Method::kNone);
  }
}

TEST(HfQuant, MethodsThatRun) {
  EXPECT_EQ(read(kAwq)->format(), Format::kQ4_Z);
  EXPECT_EQ(read(kAwq)->group_size, 128);
  EXPECT_EQ(read(kGptq)->zero_bias, 1);
  EXPECT_EQ(read(with(kGptq, "checkpoint_format", "gptq_v2"))->zero_bias, 0);
  EXPECT_EQ(read(with(kGptq, "group_size", -1))->group_size, 0);
  EXPECT_EQ(read(with(kGptq, "bits", 8))->format(), Format::kQ8_0);
  EXPECT_TRUE(read(with(kGptq, "desc_act", true))->needs_order);
  EXPECT_EQ(read({{"quant_method", "fp8"}})->format(), Format::kF8E4M3);
  EXPECT_EQ(read(compressed("int-quantized", kWeights))->format(), Format::kI8);
  EXPECT_EQ(read(compressed("float-quantized", with(kWeights, "type", "float")))->format(),
            Format::kF8E4M3);
  const Json group =
      with(with(with(kWeights, "num_bits", 4), "strategy", "group"), "group_size", 32);
  EXPECT_EQ(read(compressed("pack-quantized", group))->format(), Format::kQ4_Z);
}

TEST(HfQuant, MethodsThatDoNotRunAreNamed) {
  expect_refused({{"quant_method", "bitsandbytes"}}, "'bitsandbytes'; awq, gptq, fp8");
  expect_refused(Json::object(), "the method ''");
  expect_refused({{"quant_method", 4}}, "'quantization_config.quant_method' is not a string");
  expect_refused(with(kAwq, "bits", 8), "awq weights of 8 bits");
  expect_refused(with(kAwq, "version", "gemv"), "'gemv'; only the version gemm");
  expect_refused(with(kAwq, "zero_point", false), "without zero points");
  expect_refused(with(kAwq, "group_size", 48), "group_size is 48");
  expect_refused(with(kAwq, "group_size", 0), "group_size is 0");
  expect_refused(with(kAwq, "group_size", -128), "group_size is -128");
  expect_refused(with(kAwq, "group_size", "128"), "must be an integer");
  expect_refused({{"quant_method", "gptq"}}, "'quantization_config.bits' is missing");
  expect_refused(with(kGptq, "bits", 3), "gptq weights of 3 bits");
  expect_refused(with(kGptq, "checkpoint_format", "marlin"), "'marlin'; gptq and gptq_v2");
  expect_refused({{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}}, "weight_block_size");
  expect_refused({{"quant_method", "fp8"}, {"fmt", "e5m2"}}, "'e5m2'");
}

TEST(HfQuant, CompressedTensorsThatDoNotRunAreNamed) {
  expect_refused(compressed("nvfp4-pack-quantized", kWeights), "'nvfp4-pack-quantized'");
  expect_refused(compressed("int-quantized", with(kWeights, "symmetric", false)), "zero points");
  expect_refused(compressed("int-quantized", with(kWeights, "strategy", "block")), "'block'");
  expect_refused(compressed("int-quantized", with(kWeights, "num_bits", 4)), "of 4 bits");
  expect_refused(compressed("pack-quantized", with(kWeights, "actorder", "group")), "actorder");
  expect_refused(compressed("pack-quantized", kWeights), "pack-quantized weights of 8 bits");
  Json two = compressed("int-quantized", kWeights);
  two["config_groups"]["group_1"] = two["config_groups"]["group_0"];
  expect_refused(two, "2 config_groups");
  expect_refused(with(two, "config_groups", {{"group_0", 5}}), "a group without 'weights'");
  expect_refused(with(two, "sparsity_config", {{"format", "sparse-24"}}), "sparsity_config");
}

}  // namespace
}  // namespace quire
