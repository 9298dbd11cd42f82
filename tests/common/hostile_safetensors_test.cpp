// Hugging Face folders that lie (reliability.md S16, S19): headers, indexes and configs, each
// refused with the file, the tensor or field, and the reason.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/model_file/model_file.h"
#include "tests/test_data.h"

namespace quire {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

const Json kConfig = {{"architectures", {"LlamaForCausalLM"}},
                      {"hidden_size", 32},
                      {"intermediate_size", 64},
                      {"num_hidden_layers", 1},
                      {"num_attention_heads", 4},
                      {"num_key_value_heads", 2},
                      {"vocab_size", 8},
                      {"max_position_embeddings", 64},
                      {"rope_theta", 10000.0},
                      {"tie_word_embeddings", true},
                      {"eos_token_id", 2},
                      {"torch_dtype", "float32"}};

Json tensor(const char* dtype, std::vector<std::int64_t> shape, std::int64_t begin,
            std::int64_t end) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

const Json kHeader = {{"__metadata__", {{"format", "pt"}}},
                      {"model.embed_tokens.weight", tensor("F32", {8, 32}, 0, 1024)},
                      {"model.norm.weight", tensor("F32", {32}, 1024, 1152)}};
constexpr std::size_t kDataBytes = 1152;

std::string file_of(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t size = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &size, 8);
  return out + header + std::string(data_bytes, '\0');
}

class HostileFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / absl::StrCat("quire_hostile_folder_", getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    write("config.json", kConfig.dump());
    write("model.safetensors", file_of(kHeader.dump(), kDataBytes));
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }
  void expect_refused(const std::string& file, const std::string& says) {
    const absl::StatusOr<ModelFile> model = open_model(folder_.string());
    ASSERT_FALSE(model.ok()) << says;
    EXPECT_THAT(std::string(model.status().message()), AllOf(HasSubstr(file), HasSubstr(says)));
  }
  void expect_config_refused(const std::function<void(Json&)>& spoil, const std::string& says) {
    Json config = kConfig;
    spoil(config);
    write("config.json", config.dump());
    expect_refused("config.json", says);
  }
  void expect_header_refused(const std::function<void(Json&)>& spoil, const std::string& says) {
    Json header = kHeader;
    spoil(header);
    write("model.safetensors", file_of(header.dump(), kDataBytes));
    expect_refused("model.safetensors", says);
  }

  fs::path folder_;
};

TEST_F(HostileFolderTest, TheFolderItselfIsGood) {
  const absl::StatusOr<ModelFile> model = open_model(folder_.string());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->tensors.size(), 2u);
  EXPECT_EQ(model->tokenizer.kind, TokenizerData::Kind::kNone);
  EXPECT_EQ(model->tensors[1].offset, 8 + kHeader.dump().size() + 1024);
}

TEST_F(HostileFolderTest, ContainerLies) {
  const std::string good = kHeader.dump();
  const auto with_length = [&](std::uint64_t length) {
    std::string bytes = file_of(good, kDataBytes);
    std::memcpy(bytes.data(), &length, 8);
    return bytes;
  };
  std::string deep = R"({"a":)";
  for (int i = 0; i < 100000; ++i) deep += '[';
  const struct {
    std::string bytes;
    const char* says;
  } cases[] = {
      {"", "has only 0 bytes"},
      {"1234567", "has only 7 bytes"},
      {with_length(std::uint64_t{1} << 63), "9223372036854775808 bytes long"},
      {with_length(100000), "100000 bytes long, but only"},
      {with_length(0), "not JSON"},
      {file_of("[1]", 0), "not JSON"},
      {file_of("{\"a\": ", 0), "not valid JSON"},
      {file_of("{\"\xff\": 1}", 0), "not valid JSON"},
      {file_of(deep, 0), "JSON"},
      {file_of(R"({"a":1,"a":1})", 0), "key 'a' appears twice"},
      {file_of(good, kDataBytes - 1), "'model.norm.weight' ends at byte 1152"},
      {file_of(good, kDataBytes + 1), "1 bytes at its end belong to no tensor"},
      {file_of("{}", 0), "'model.embed_tokens.weight' is missing"},
  };
  for (const auto& c : cases) {
    write("model.safetensors", c.bytes);
    expect_refused(folder_.string(), c.says);
  }
}

TEST_F(HostileFolderTest, TensorLies) {
  const char* name = "model.norm.weight";
  const auto replace = [name](Json entry) {
    return [name, entry](Json& header) { header[name] = entry; };
  };
  const std::int64_t big = std::int64_t{1} << 62;
  expect_header_refused(replace(5), "'model.norm.weight' is not described");
  expect_header_refused(replace(tensor("F31", {32}, 1024, 1152)), "unknown dtype 'F31'");
  expect_header_refused(replace(tensor("I64", {16}, 1024, 1152)), "is stored as I64");
  expect_header_refused(replace(tensor("F16", {32}, 1024, 1152)), "should have 64 bytes");
  expect_header_refused(replace(tensor("F32", {-32}, 1024, 1152)), "not a natural number");
  expect_header_refused(replace(tensor("F32", {0}, 1024, 1024)), "dimension of 0");
  expect_header_refused(replace(tensor("F32", {big, big}, 1024, 1152)), "more elements than fit");
  expect_header_refused(replace(tensor("F32", {big}, 1024, 1152)), "more bytes than fit");
  // The product is 4 in 64 bits that wrap.
  expect_header_refused(replace(tensor("F32", {4194305, 4194305, 211106198978564}, 1024, 1152)),
                        "more elements than fit");
  expect_header_refused(replace(tensor("F32", {1, 1, 1, 1, 1, 1, 1, 1, 32}, 1024, 1152)),
                        "no shape of at most");
  expect_header_refused(replace(tensor("F32", {32}, 1152, 1024)), "no data_offsets");
  expect_header_refused(replace(tensor("F32", {32}, -128, 0)), "no data_offsets");
  expect_header_refused(replace(tensor("F32", {32}, 1024, big)), "ends at byte");
  expect_header_refused(replace(tensor("F32", {32}, 1000, 1128)), "inside tensor");
  expect_header_refused(
      [](Json& header) { header["model.norm.weight"] = tensor("F32", {31}, 1028, 1152); },
      "hole of 4 bytes before tensor 'model.norm.weight'");
  Json no_dtype = tensor("F32", {32}, 1024, 1152);
  no_dtype.erase("dtype");
  expect_header_refused(replace(no_dtype), "has no dtype");
}

TEST_F(HostileFolderTest, IndexLies) {
  fs::rename(folder_ / "model.safetensors", folder_ / "one.safetensors");
  const auto index = [&](const Json& map) {
    write("model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  };
  const Json good = {{"model.embed_tokens.weight", "one.safetensors"},
                     {"model.norm.weight", "one.safetensors"}};
  index(good);
  ASSERT_TRUE(open_model(folder_.string()).ok()) << open_model(folder_.string()).status();
  const auto spoiled = [&](const std::string& key, const Json& value) {
    Json map = good;
    map[key] = value;
    index(map);
  };
  spoiled("model.norm.weight", "two.safetensors");
  expect_refused("one.safetensors", "'model.norm.weight' is here, but not by the index");
  spoiled("extra", "one.safetensors");
  expect_refused("one.safetensors", "'extra' is missing, which the index puts there");
  spoiled("extra", "two.safetensors");
  expect_refused("two.safetensors", "the shard is missing");
  for (const char* name :
       {"../one.safetensors", "/etc/passwd", "", "sub/one.safetensors", "x.bin"}) {
    spoiled("extra", name);
    expect_refused("index.json", "not the plain name");
  }
  spoiled("extra", 5);
  expect_refused("index.json", "not the plain name");
  index(Json::array());
  expect_refused("index.json", "no 'weight_map'");
  fs::remove(folder_ / "model.safetensors.index.json");
  expect_refused(folder_.string(), "no model.safetensors and no");
}

TEST_F(HostileFolderTest, GatesThatRunAreTold) {
  for (const auto& [name, gate] :
       {std::pair("silu", Gate::kSilu), std::pair("gelu_pytorch_tanh", Gate::kGeluTanh)}) {
    Json config = kConfig;
    config["hidden_act"] = name;
    write("config.json", config.dump());
    const absl::StatusOr<ModelFile> model = open_model(folder_.string());
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(model->spec.gate, gate);
  }
}

TEST_F(HostileFolderTest, ConfigLies) {
  const auto set = [](const char* key, Json value) {
    return [key, value](Json& config) { config[key] = value; };
  };
  expect_config_refused(set("architectures", {"MambaForCausalLM"}), "'MambaForCausalLM'");
  expect_config_refused(set("architectures", 3), "'none'");
  expect_config_refused(set("num_attention_heads", 0), "num_attention_heads 0 does not divide");
  expect_config_refused(set("num_attention_heads", 5), "num_attention_heads 5 does not divide");
  expect_config_refused(set("num_attention_heads", -4), "num_attention_heads -4");
  expect_config_refused(set("num_key_value_heads", 3), "3 KV heads do not divide the 4");
  expect_config_refused(set("num_hidden_layers", -1), "number of layers is -1");
  expect_config_refused(set("num_hidden_layers", "two"), "'num_hidden_layers' is \"two\"");
  expect_config_refused(set("num_hidden_layers", 1.5), "'num_hidden_layers' is 1.5");
  expect_config_refused(set("num_hidden_layers", 1e30), "'num_hidden_layers' is 1e+30");
  expect_config_refused(set("num_hidden_layers", nullptr), "'num_hidden_layers' is missing");
  expect_config_refused(set("vocab_size", 18446744073709551615u), "'vocab_size' is 184467440737");
  expect_config_refused(set("head_dim", 7), "head dimension is 7");
  expect_config_refused(set("rope_theta", 0), "rope theta) is 0");
  expect_config_refused(set("rms_norm_eps", -1), "epsilon is -1");
  expect_config_refused(set("hidden_act", "gelu"), "'gelu'; silu and gelu_pytorch_tanh");
  expect_config_refused(set("eos_token_id", Json::array({1, -5})), "'eos_token_id'");
  expect_config_refused(set("tie_word_embeddings", "yes"), "'tie_word_embeddings' is not true or");
  expect_config_refused(set("quantization_config", {{"quant_method", "hqq"}}), "'hqq'");
  expect_config_refused(set("rope_scaling", {{"type", "dynamic"}, {"factor", 2}}), "'dynamic'");
  expect_config_refused(set("rope_scaling", {{"type", "llama3"}, {"factor", 8}}),
                        "'rope_scaling.low_freq_factor' is missing");
  expect_config_refused(set("rope_parameters", {{"rope_theta", "x"}}),
                        "'rope_parameters.rope_theta' is not a number");
  write("config.json", "{\"a\": 1,}");
  expect_refused("config.json", "not valid JSON");
  write("config.json", "[]");
  expect_refused("config.json", "not an object");
  fs::remove(folder_ / "config.json");
  expect_refused(folder_.string(), "no config.json");
}

TEST_F(HostileFolderTest, ShapesAgainstConfig) {
  Json config = kConfig;
  config["vocab_size"] = 9;
  write("config.json", config.dump());
  expect_refused(folder_.string(),
                 "'model.embed_tokens.weight' is 8 x 32, but the vocabulary is 9");
  config = kConfig;
  config["tie_word_embeddings"] = false;
  write("config.json", config.dump());
  expect_refused(folder_.string(), "'lm_head.weight' is missing");
  config = kConfig;
  config["eos_token_id"] = 8;
  write("config.json", config.dump());
  expect_refused(folder_.string(), "end-of-sequence token id is 8");
}

TEST_F(HostileFolderTest, TextFiles) {
  write("tokenizer.json", "{\"\xff\"}");
  expect_refused("tokenizer.json", "not UTF-8 (byte 2)");
  write("tokenizer.json", "{}");
  write("tokenizer_config.json",
        R"({"eos_token": {"content": "</s>"}, "bos_token": null, "add_bos_token": false,
            "chat_template": [{"name": "tool", "template": "T"},
                              {"name": "default", "template": "D"}]})");
  absl::StatusOr<ModelFile> model = open_model(folder_.string());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->tokenizer.eos_text, "</s>");
  EXPECT_EQ(model->tokenizer.bos_text, "");
  EXPECT_EQ(model->tokenizer.eos, 2);
  EXPECT_EQ(model->chat_template, "D");
  write("chat_template.jinja", "J");
  EXPECT_EQ(open_model(folder_.string())->chat_template, "J");
  write("tokenizer_config.json", R"({"add_bos_token": "yes"})");
  expect_refused("tokenizer_config.json", "'add_bos_token' is not true or false");
}

TEST_F(HostileFolderTest, OldStyleScalings) {
  const auto rope_of = [&](const Json& scaling) {
    Json config = kConfig;
    config["rope_scaling"] = scaling;
    write("config.json", config.dump());
    absl::StatusOr<ModelFile> model = open_model(folder_.string());
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? model->spec.rope : RopeSpec{};
  };
  EXPECT_EQ(rope_of(nullptr).scaling, RopeScaling::kNone);
  EXPECT_EQ(rope_of({{"type", "linear"}, {"factor", 2.0}}).factor, 2.0);
  EXPECT_EQ(rope_of({{"rope_type", "llama3"},
                     {"factor", 32.0},
                     {"low_freq_factor", 1.0},
                     {"high_freq_factor", 4.0},
                     {"original_max_position_embeddings", 8192}})
                .original_max_positions,
            8192.0);
  const RopeSpec yarn = rope_of({{"type", "yarn"}, {"original_max_position_embeddings", 16}});
  EXPECT_EQ(yarn.scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn.factor, 4.0);  // 64 / 16
  EXPECT_EQ(yarn.theta, 10000.0);
}

TEST(SafetensorsFixtureTest, IntegerTensorsAreRefusedByName) {
  const auto fixtures = test::data_root() / "data/models/safetensors-fixtures";
  QUIRE_NEED_DATA(fixtures);
  const fs::path folder = fs::temp_directory_path() / absl::StrCat("quire_fixture_", getpid());
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << kConfig.dump();
  fs::copy_file(fixtures / "gptq_small.safetensors", folder / "model.safetensors");
  const absl::Status status = open_model(folder.string()).status();
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("tensor '"), HasSubstr("I32")));
  EXPECT_THAT(std::string(open_model((fixtures / "test.safetensors").string()).status().message()),
              HasSubstr("give the folder"));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace quire
