// open_model() on real checkpoints: GGUF files and Hugging Face folders in both config styles.
#include "common/model_file/model_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/test_data.h"

namespace quire {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::filesystem::path models() {
  return test::data_root() / "data/models";
}

ModelFile open(const std::filesystem::path& path) {
  absl::StatusOr<ModelFile> model = open_model(path.string());
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *std::move(model) : ModelFile{};
}

void expect_tensor(const ModelFile& model, const char* name, Format format,
                   std::vector<std::int64_t> shape) {
  const TensorInfo* tensor = model.find(name);
  ASSERT_NE(tensor, nullptr) << name;
  EXPECT_EQ(tensor->format, format) << name;
  EXPECT_EQ(tensor->shape, shape) << name;
}

TEST(ModelFileTest, SmolLm2Gguf) {
  QUIRE_NEED_DATA(test::demo_model());
  const ModelFile model = open(test::demo_model());
  const ModelSpec& spec = model.spec;
  EXPECT_TRUE(model.gguf);
  EXPECT_EQ(spec.architecture, "llama");
  EXPECT_EQ(spec.num_layers, 30);
  EXPECT_EQ(spec.hidden, 576);
  EXPECT_EQ(spec.num_heads, 9);
  EXPECT_EQ(spec.num_kv_heads, 3);
  EXPECT_EQ(spec.head_dim, 64);
  EXPECT_EQ(spec.ffn, 1536);
  EXPECT_EQ(spec.vocab, 49152);
  EXPECT_EQ(spec.max_positions, 8192);
  EXPECT_FLOAT_EQ(spec.norm_eps, 1e-5f);
  EXPECT_TRUE(spec.rope.interleaved);
  EXPECT_EQ(spec.rope.dims, 64);
  EXPECT_DOUBLE_EQ(spec.rope.theta, 100000.0);
  EXPECT_EQ(spec.rope.scaling, RopeScaling::kNone);
  EXPECT_TRUE(spec.tied_embeddings);
  EXPECT_FALSE(spec.qkv_bias || spec.out_bias || spec.mlp_bias);
  EXPECT_THAT(spec.eos, ElementsAre(2));
  EXPECT_EQ(spec.bos, 1);

  EXPECT_EQ(model.tensors.size(), 272u);
  expect_tensor(model, "token_embd.weight", Format::kQ8_0, {49152, 576});
  expect_tensor(model, "blk.29.ffn_down.weight", Format::kQ4_1, {576, 1536});
  expect_tensor(model, "blk.0.attn_k.weight", Format::kQ4_1, {192, 576});
  expect_tensor(model, "output_norm.weight", Format::kF32, {576});
  EXPECT_EQ(model.tensors[0].offset % 32, 0u);

  const TokenizerData& tokenizer = model.tokenizer;
  EXPECT_EQ(tokenizer.kind, TokenizerData::Kind::kGgufBpe);
  EXPECT_EQ(tokenizer.pre, "smollm");
  EXPECT_EQ(tokenizer.tokens.size(), 49152u);
  EXPECT_EQ(tokenizer.types.size(), 49152u);
  EXPECT_EQ(tokenizer.merges.size(), 48900u);
  EXPECT_EQ(tokenizer.tokens[2], "<|im_end|>");
  EXPECT_EQ(tokenizer.bos_text, "<|im_start|>");
  EXPECT_EQ(tokenizer.eos_text, "<|im_end|>");
  EXPECT_EQ(tokenizer.pad_text, "<|im_end|>");
  EXPECT_FALSE(tokenizer.add_bos);
  EXPECT_FALSE(tokenizer.add_space_prefix);
  EXPECT_THAT(model.chat_template, StartsWith("{% for message in messages %}"));
}

TEST(ModelFileTest, StoriesGguf) {
  const auto path = models() / "stories260K/stories260K.F32.gguf";
  QUIRE_NEED_DATA(path);
  const ModelFile model = open(path);
  EXPECT_EQ(model.spec.num_heads, 8);
  EXPECT_EQ(model.spec.num_kv_heads, 4);
  EXPECT_EQ(model.spec.head_dim, 8);
  EXPECT_FALSE(model.spec.tied_embeddings);
  EXPECT_EQ(model.tokenizer.kind, TokenizerData::Kind::kGgufSpm);
  EXPECT_EQ(model.tokenizer.scores.size(), 512u);
  EXPECT_TRUE(model.tokenizer.add_bos);
  EXPECT_TRUE(model.tokenizer.add_space_prefix);
  EXPECT_EQ(model.chat_template, "");
  expect_tensor(model, "blk.0.ffn_down.weight", Format::kF32, {64, 172});
}

TEST(ModelFileTest, OldGgufWithoutVocabSizeOrRopeBase) {
  const auto path = models() / "llama2-tiny-random/llama-2-tiny-random.gguf";
  QUIRE_NEED_DATA(path);
  const ModelFile model = open(path);
  EXPECT_EQ(model.spec.vocab, 32000);
  EXPECT_EQ(model.spec.num_layers, 1);
  EXPECT_DOUBLE_EQ(model.spec.rope.theta, 10000.0);
  EXPECT_TRUE(model.tokenizer.add_bos);  // what this kind does when the file is silent
  expect_tensor(model, "output.weight", Format::kF16, {32000, 8});
}

TEST(ModelFileTest, OldStyleFolder) {
  const auto path = models() / "stories260K/hf";
  QUIRE_NEED_DATA(path);
  const ModelFile model = open(path);
  EXPECT_FALSE(model.gguf);
  EXPECT_EQ(model.spec.name, "hf");
  EXPECT_EQ(model.spec.num_kv_heads, 4);
  EXPECT_FALSE(model.spec.rope.interleaved);
  EXPECT_TRUE(model.spec.tied_embeddings);
  EXPECT_THAT(model.spec.eos, ElementsAre(1, 2));  // generation_config.json's list
  EXPECT_EQ(model.tokenizer.kind, TokenizerData::Kind::kJson);
  EXPECT_THAT(model.tokenizer.json, StartsWith("{"));
  EXPECT_EQ(model.tokenizer.bos_text, "<s>");
  EXPECT_TRUE(model.tokenizer.add_bos);
  expect_tensor(model, "model.layers.4.mlp.down_proj.weight", Format::kF32, {64, 172});
  EXPECT_EQ(open(path.string() + "/").spec.name, "hf");
}

TEST(ModelFileTest, NewStyleRopeParameters) {
  const auto llama3 = models() / "tiny-random/llama-rope3";
  QUIRE_NEED_DATA(llama3);
  const RopeSpec rope = open(llama3).spec.rope;
  EXPECT_EQ(rope.scaling, RopeScaling::kLlama3);
  EXPECT_DOUBLE_EQ(rope.theta, 500000.0);
  EXPECT_DOUBLE_EQ(rope.factor, 8.0);
  EXPECT_DOUBLE_EQ(rope.low_freq_factor, 1.0);
  EXPECT_DOUBLE_EQ(rope.high_freq_factor, 4.0);
  EXPECT_DOUBLE_EQ(rope.original_max_positions, 64.0);

  const ModelFile yarn = open(models() / "tiny-random/llama-yarn-bias");
  EXPECT_EQ(yarn.spec.rope.scaling, RopeScaling::kYarn);
  EXPECT_DOUBLE_EQ(yarn.spec.rope.factor, 4.0);
  EXPECT_DOUBLE_EQ(yarn.spec.rope.original_max_positions, 64.0);
  EXPECT_TRUE(yarn.spec.qkv_bias && yarn.spec.out_bias && yarn.spec.mlp_bias);
  expect_tensor(yarn, "model.layers.0.self_attn.q_proj.bias", Format::kF32, {64});
}

TEST(ModelFileTest, AMistralHasAWindow) {
  const auto root = models() / "tiny-random";
  QUIRE_NEED_DATA(root);
  const ModelFile mistral = open(root / "mistral-swa");
  EXPECT_EQ(mistral.spec.architecture, "mistral");
  EXPECT_EQ(mistral.spec.window, 16);
  EXPECT_EQ(open(root / "llama-rope3").spec.window, 0);
}

TEST(ModelFileTest, OtherArchitecturesAreRefusedByName) {
  const auto root = models() / "tiny-random";
  QUIRE_NEED_DATA(root);
  int refused = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (entry.path().filename().string().starts_with("llama")) continue;
    if (entry.path().filename() == "mistral-swa") continue;
    const absl::Status status = open_model(entry.path().string()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << entry.path();
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("config.json"), HasSubstr("LlamaForCausalLM")));
    ++refused;
  }
  EXPECT_EQ(refused, 13);
  EXPECT_THAT(std::string(open_model((root / "qwen2").string()).status().message()),
              HasSubstr("'Qwen2ForCausalLM'"));
}

TEST(ModelFileTest, OtherGgufArchitecturesAreRefusedByName) {
  const auto root = test::data_root() / "data/tokenizers/llamacpp-vocabs";
  QUIRE_NEED_DATA(root);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (entry.path().extension() != ".gguf") continue;
    ++files;
    const absl::Status status = open_model(entry.path().string()).status();
    // Vocabularies without tensors: either the architecture or the embedding is what is missing.
    EXPECT_THAT(std::string(status.message()),
                ::testing::AnyOf(HasSubstr("architecture"), HasSubstr("token_embd.weight"),
                                 HasSubstr("vocabulary")))
        << entry.path();
  }
  EXPECT_GT(files, 0);
}

TEST(ModelFileTest, MissingPathSaysWhatToGive) {
  const absl::Status status = open_model("/nowhere/model.gguf").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("/nowhere/model.gguf"), HasSubstr("GGUF")));
  EXPECT_FALSE(open_model("/dev/zero").ok());
  EXPECT_FALSE(open_model("").ok());
}

TEST(ModelFileTest, HashTellsFilesApart) {
  const auto stories = models() / "stories260K";
  QUIRE_NEED_DATA(stories);
  EXPECT_EQ(open(stories / "hf").hash, open(stories / "hf").hash);
  EXPECT_NE(open(stories / "hf").hash, open(stories / "stories260K.F32.gguf").hash);
  EXPECT_NE(open(stories / "hf").hash, 0u);
}

}  // namespace
}  // namespace quire
