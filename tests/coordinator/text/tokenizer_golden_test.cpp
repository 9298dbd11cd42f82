// Token ids against the reference implementations: Hugging Face tokenizers (264 texts by 7
// tokenizers, texts with special tokens in them) and llama.cpp (its own .inp/.out files).
#include <gtest/gtest.h>

#include <string>

#include "coordinator/text/tokenizer.h"
#include "tests/coordinator/text/text_fixtures.h"

namespace quire {
namespace {

using nlohmann::json;
using test::shared_file;

std::vector<TokenId> encode(const Tokenizer& tokenizer, const std::string& text, bool special) {
  auto ids = tokenizer.encode(text, special, /*add_special=*/false);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : std::vector<TokenId>{};
}

std::filesystem::path json_path(const std::string& name) {
  return name == "stories260K-spm" ? shared_file("data/models/stories260K/hf/tokenizer.json")
                                   : shared_file("data/tokenizers/" + name + "/tokenizer.json");
}

std::filesystem::path gguf_path(const std::string& name) {
  if (name == "smollm2") return test::demo_model();
  if (name == "stories260K-spm") {
    return shared_file("data/models/stories260K/stories260K.F32.gguf");
  }
  const std::string file = name == "llama3" ? "llama-bpe" : name == "gpt2" ? "gpt-2" : name;
  return shared_file("data/tokenizers/llamacpp-vocabs/ggml-vocab-" + file + ".gguf");
}

void expect_golden(const Tokenizer& tokenizer, const json& golden, const std::string& name) {
  const json& texts = golden["texts"];
  const json& ids = golden["ids"][name];
  const json& lossy = golden["decoded_differs"][name];
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].get<std::string>();
    const auto got = encode(tokenizer, text, /*special=*/true);
    EXPECT_EQ(got, ids[i].get<std::vector<TokenId>>()) << "text " << i << ": " << text;
    const std::string index = std::to_string(i);
    const std::string decoded = lossy.contains(index) ? lossy[index].get<std::string>() : text;
    EXPECT_EQ(tokenizer.decode(got, false), decoded) << "text " << i;
  }
  for (const json& special : golden["special_cases"][name]) {
    const auto text = special["text"].get<std::string>();
    EXPECT_EQ(encode(tokenizer, text, true), special["ids"].get<std::vector<TokenId>>()) << text;
  }
}

class Golden : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const auto path = shared_file("data/tokenizers/golden.dev.json");
    QUIRE_NEED_DATA(path);
    golden_ = json::parse(test::read_text(path));
  }
  json golden_;
};

TEST_P(Golden, TokenizerJson) {
  QUIRE_NEED_DATA(json_path(GetParam()));
  const auto tokenizer = test::make_tokenizer(test::json_data(json_path(GetParam())));
  ASSERT_NE(tokenizer, nullptr);
  expect_golden(*tokenizer, golden_, GetParam());
}

TEST_P(Golden, Gguf) {
  if (GetParam() == "deepseek-v4") return;  // exists as tokenizer.json only
  QUIRE_NEED_DATA(gguf_path(GetParam()));
  const auto tokenizer = test::make_tokenizer(test::gguf_data(gguf_path(GetParam())));
  ASSERT_NE(tokenizer, nullptr);
  expect_golden(*tokenizer, golden_, GetParam());
}

std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Golden,
                         ::testing::Values("llama3", "qwen2", "qwen35", "gpt2", "smollm2",
                                           "stories260K-spm", "deepseek-v4"),
                         test_name);

class LlamaCpp : public ::testing::TestWithParam<std::string> {};

// Texts in .inp are parted by a line of their own; .out has one line of ids for each.
TEST_P(LlamaCpp, VocabularyFiles) {
  const auto path =
      shared_file("data/tokenizers/llamacpp-vocabs/ggml-vocab-" + GetParam() + ".gguf");
  QUIRE_NEED_DATA(path);
  const auto tokenizer = test::make_tokenizer(test::gguf_data(path));
  ASSERT_NE(tokenizer, nullptr);
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::string input = test::read_text(path.string() + ".inp");
  std::istringstream output(test::read_text(path.string() + ".out"));
  int num_texts = 0;
  for (std::string line; std::getline(output, line); ++num_texts) {
    const std::size_t end = input.find(separator);
    const std::string text = input.substr(0, end);
    input.erase(0, end == std::string::npos ? end : end + separator.size());
    std::istringstream numbers(line);
    const std::vector<TokenId> expected((std::istream_iterator<TokenId>(numbers)), {});
    EXPECT_EQ(encode(*tokenizer, text, false), expected) << "text " << num_texts << ": " << text;
  }
  EXPECT_GE(num_texts, 46);
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, LlamaCpp,
                         ::testing::Values("gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2",
                                           "qwen35"),
                         test_name);

}  // namespace
}  // namespace quire
