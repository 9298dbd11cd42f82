// --load-format dummy: a config.json (or a GGUF header) alone is a model, the same one whatever the
// number of ranks, and another than the checkpoint of that shape.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"
#include "worker/model/arch/arch.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

absl::StatusOr<std::vector<Output>> answers(const std::string& model, int world) {
  GroupOptions options;
  options.world = world;
  options.load_format = LoadFormat::kDummy;
  auto group = RankGroup::open(model, options);
  if (!group.ok()) return group.status();
  return generate(**group, {greedy(random_ids(1, 30), 6), greedy(random_ids(2, 5), 6)});
}

void expect_same(const std::vector<Output>& got, const std::vector<Output>& want) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(got[i].tokens, want[i].tokens);
    for (std::size_t t = 0; t < want[i].logprobs.size(); ++t) {
      EXPECT_TRUE(std::isfinite(want[i].logprobs[t][0].logprob));
      EXPECT_EQ(got[i].logprobs[t][0].logprob, want[i].logprobs[t][0].logprob);
    }
  }
}

void expect_one_answer(const std::string& model) {
  const auto one = answers(model, 1);
  ASSERT_TRUE(one.ok()) << one.status();
  for (const int world : {2, 3}) {
    SCOPED_TRACE(testing::Message() << world << " ranks");
    const auto got = answers(model, world);
    ASSERT_TRUE(got.ok()) << got.status();
    expect_same(*got, *one);
  }
}

// A folder with the tiny model's config.json, changed by `edit`, and nothing else.
void write_config(const std::filesystem::path& folder, const std::function<void(Json&)>& edit) {
  TinyOptions tiny;
  tiny.tied = false;
  write_tiny_hf(folder, tiny);
  std::filesystem::remove(folder / "model.safetensors");
  Json config;
  std::ifstream(folder / "config.json") >> config;
  edit(config);
  std::ofstream(folder / "config.json") << config.dump();
}

TEST(Dummy, AConfigAloneIsAModelOverAnyNumberOfRanks) {
  const ScratchFolder scratch;
  write_config(scratch / "bare", [](Json& config) { config["attention_bias"] = true; });
  expect_one_answer(scratch / "bare");
  EXPECT_EQ(open_model(scratch / "bare").status().code(), absl::StatusCode::kNotFound);
}

TEST(Dummy, TakesTheTypeOfTheConfig) {
  const ScratchFolder scratch;
  const auto dtype_of = [&](const char* key, const char* name) {
    const auto folder = scratch / (std::string(key) + name);
    write_config(folder, [&](Json& config) { config[key] = name; });
    return open_model(folder, LoadFormat::kDummy);
  };
  write_config(scratch / "none", [](Json&) {});
  EXPECT_EQ(open_model(scratch / "none", LoadFormat::kDummy)->dummy->plain, Format::kBf16);
  EXPECT_EQ(dtype_of("torch_dtype", "float16")->dummy->plain, Format::kF16);
  EXPECT_EQ(dtype_of("dtype", "float32")->dummy->matrices, Format::kF32);
  EXPECT_THAT(std::string(dtype_of("dtype", "float64").status().message()), HasSubstr("float64"));
}

TEST(Dummy, TakesTheFormatOfAQuantizedConfig) {
  const ScratchFolder scratch;
  write_config(scratch / "awq", [](Json& config) {
    config["quantization_config"] = {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}};
  });
  EXPECT_EQ(open_model(scratch / "awq", LoadFormat::kDummy)->dummy->matrices, Format::kQ4_Z);
  expect_one_answer(scratch / "awq");
  write_config(scratch / "fp8", [](Json& config) {
    config["quantization_config"] = {{"quant_method", "fp8"}};
  });
  expect_one_answer(scratch / "fp8");
}

TEST(Dummy, AGgufMayEndAfterItsHeaders) {
  const ScratchFolder scratch;
  TinyOptions tiny;
  tiny.storage = TinyOptions::Storage::kSuperblocks;
  write_tiny_gguf(scratch / "whole.gguf", tiny);
  std::ifstream in(scratch / "whole.gguf", std::ios::binary);
  std::stringstream bytes;
  bytes << in.rdbuf();
  const auto whole = open_model(scratch / "whole.gguf", LoadFormat::kDummy);
  ASSERT_TRUE(whole.ok()) << whole.status();
  std::uint64_t data = whole->tensors[0].offset;
  for (const TensorInfo& tensor : whole->tensors) data = std::min(data, tensor.offset);
  std::ofstream(scratch / "header.gguf", std::ios::binary) << bytes.str().substr(0, data);
  EXPECT_FALSE(open_model(scratch / "header.gguf").ok());
  const auto header = open_model(scratch / "header.gguf", LoadFormat::kDummy);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->hash, whole->hash);
  EXPECT_NE(header->hash, open_model(scratch / "whole.gguf")->hash);
  expect_one_answer(scratch / "header.gguf");
}

TEST(Dummy, IsAnotherModelThanTheCheckpoint) {
  const ScratchFolder scratch;
  write_tiny_hf(scratch / "tiny", {});
  const auto real = open_model(scratch / "tiny");
  const auto made_up = open_model(scratch / "tiny", LoadFormat::kDummy);
  ASSERT_TRUE(real.ok() && made_up.ok());
  EXPECT_NE(real->hash, made_up->hash);
  EXPECT_TRUE(made_up->files.empty());
}

TEST(Dummy, RowsThatBlocksDoNotDivideAreRefused) {
  const ScratchFolder scratch;
  write_config(scratch / "odd", [](Json& config) {
    config["hidden_size"] = 296;
    config["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 32}};
  });
  const auto got = answers(scratch / "odd", 1);
  EXPECT_THAT(std::string(got.status().message()), HasSubstr("blocks of 32 (q4_z) do not divide"));
}

// The shapes that benchmarks use are those that the models are known by.
TEST(Dummy, TheShapesOfBenchModelsAreWhole) {
  const std::map<std::string, double> billions = {{"llama-7b", 6.738},     {"llama-13b", 13.016},
                                                  {"llama-3-8b", 8.030},   {"llama-3-70b", 70.554},
                                                  {"llama-3.2-1b", 1.236}, {"mistral-7b", 7.242}};
  std::size_t known = 0;
  for (const auto& folder : std::filesystem::directory_iterator(
           std::filesystem::path(QUIRE_SOURCE_DIR) / "bench/models")) {
    SCOPED_TRACE(folder.path());
    auto file = open_model(folder.path(), LoadFormat::kDummy);
    ASSERT_TRUE(file.ok()) << file.status();
    const Arch& arch = **find_arch(file->spec.architecture);
    ASSERT_TRUE(add_dummy_tensors(arch, &*file).ok());
    EXPECT_TRUE(verify_tensors(*file, arch).ok());
    EXPECT_TRUE(make_shard_map(file->spec, 8, *row_parallel_block(*file, arch)).ok());
    double parameters = 0;
    for (const TensorInfo& tensor : file->tensors) {
      double elements = 1;
      for (const std::int64_t dim : tensor.shape) elements *= static_cast<double>(dim);
      parameters += elements;
    }
    const auto found = billions.find(folder.path().filename().string());
    if (found == billions.end()) continue;
    EXPECT_NEAR(parameters / 1e9, found->second, 0.0006);
    ++known;
  }
  EXPECT_EQ(known, billions.size());
}

TEST(Dummy, WeightsThatCannotFitAreRefusedBeforeAnyIsMade) {
  const ScratchFolder scratch;
  write_config(scratch / "huge", [](Json& config) {
    config["num_hidden_layers"] = 60;
    config["intermediate_size"] = 1 << 23;
  });
  const auto got = answers(scratch / "huge", 1);
  ASSERT_EQ(got.status().code(), absl::StatusCode::kResourceExhausted) << got.status();
  EXPECT_THAT(std::string(got.status().message()), HasSubstr("MiB free"));
}

}  // namespace
}  // namespace quire::test
