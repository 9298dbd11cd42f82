// Broken vocabularies are refused with a reason; hostile prompts cost time in proportion.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/text/tokenizer.h"
#include "tests/coordinator/text/text_fixtures.h"

namespace quire {
namespace {

using ::testing::HasSubstr;
using Kind = TokenizerData::Kind;

std::string load_error(const TokenizerData& data) {
  const auto tokenizer = Tokenizer::make(data);
  return tokenizer.ok() ? "no error" : std::string(tokenizer.status().message());
}

TokenizerData small_bpe() {
  TokenizerData data;
  data.kind = Kind::kGgufBpe;
  data.pre = "gpt-2";
  data.tokens = {"a", "b", "\xC4\xA0", "ab", "<|im_end|>", "<think>"};
  data.types = {1, 1, 1, 1, 3, 4};
  data.merges = {"a b"};
  data.eos = 4;
  return data;
}

TokenizerData small_spm() {
  TokenizerData data;
  data.kind = Kind::kGgufSpm;
  data.tokens = {"<unk>", "<s>", "</s>", "<0x41>", "\xE2\x96\x81", "b"};
  data.types = {2, 3, 3, 6, 1, 1};
  data.scores = {0, 0, 0, 0, -1, -2};
  data.bos = 1;
  data.eos = 2;
  data.unk = 0;
  data.add_bos = true;
  return data;
}

TokenizerData small_json(const std::string& model, const std::string& rest = "") {
  TokenizerData data;
  data.kind = Kind::kJson;
  data.json = R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, )" + model + "}" +
              rest + "}";
  return data;
}

TEST(TokenizerLimits, GoodSmallOnesWork) {
  const auto bpe = test::make_tokenizer(small_bpe());
  ASSERT_NE(bpe, nullptr);
  EXPECT_EQ(*bpe->encode("ab b", false, false), (std::vector<TokenId>{3, 2, 1}));
  const auto spm = test::make_tokenizer(small_spm());
  ASSERT_NE(spm, nullptr);
  EXPECT_EQ(*spm->encode("Ab\xC3\xA9", false, true), (std::vector<TokenId>{1, 4, 3, 5, 0}));
  EXPECT_EQ(spm->decode({{1, 4, 3, 5}}, true), "Ab");
  const auto json = test::make_tokenizer(small_json(R"("merges": ["a b"])"));
  ASSERT_NE(json, nullptr);
  EXPECT_EQ(*json->encode("abb", false, false), (std::vector<TokenId>{2, 1}));
}

TEST(TokenizerLimits, SpecialTextsAreTokensOnlyWhereAskedFor) {
  const auto tokenizer = test::make_tokenizer(small_bpe());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(*tokenizer->encode("a<|im_end|>b", true, false), (std::vector<TokenId>{0, 4, 1}));
  EXPECT_EQ(*tokenizer->encode("a<|im_end|>b", false, false), (std::vector<TokenId>{0, 1}));
  EXPECT_EQ(*tokenizer->encode("a<think>b", false, false), (std::vector<TokenId>{0, 5, 1}));
  EXPECT_TRUE(tokenizer->is_special(4));
  EXPECT_FALSE(tokenizer->is_special(5));
  EXPECT_FALSE(tokenizer->is_special(-1));
  EXPECT_FALSE(tokenizer->is_special(6));
  EXPECT_EQ(tokenizer->bytes_of(1000), "");
}

TEST(TokenizerLimits, BrokenVocabulariesAreRefused) {
  TokenizerData data = small_bpe();
  data.pre = "klingon";
  EXPECT_THAT(load_error(data), HasSubstr("klingon"));
  data = small_bpe();
  data.merges = {"a c"};
  EXPECT_THAT(load_error(data), HasSubstr("needs the token \"c\""));
  data.merges = {"ab"};
  EXPECT_THAT(load_error(data), HasSubstr("merge 0 is \"ab\""));
  data.merges = {"b a"};
  EXPECT_THAT(load_error(data), HasSubstr("needs the token \"ba\""));
  data = small_bpe();
  data.tokens[1] = "a";
  data.merges.clear();
  EXPECT_THAT(load_error(data), HasSubstr("same text"));
  data = small_bpe();
  data.types.pop_back();
  EXPECT_THAT(load_error(data), HasSubstr("6 tokens, but 5 token types"));
  data = small_bpe();
  data.eos = 6;
  EXPECT_THAT(load_error(data), HasSubstr("eos token has the id 6"));
  data = small_bpe();
  data.tokens[0] = "\xFF";
  EXPECT_THAT(load_error(data), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(load_error(TokenizerData()), HasSubstr("has none"));

  for (const char* name : {"<0x-1>", "<0xZZ>", "<0x1>", "<0x1234>", "0x41"}) {
    data = small_spm();
    data.tokens[3] = name;
    EXPECT_THAT(load_error(data), HasSubstr(name));
  }
  data = small_spm();
  data.scores.pop_back();
  EXPECT_THAT(load_error(data), HasSubstr("5 token scores"));
}

TEST(TokenizerLimits, BrokenJsonIsRefusedByName) {
  TokenizerData data = small_json("");
  data.json = "{";
  EXPECT_THAT(load_error(data), HasSubstr("not a valid JSON"));
  data.json = R"({"model": {"type": "WordPiece"}})";
  EXPECT_THAT(load_error(data), HasSubstr("WordPiece"));
  EXPECT_THAT(load_error(small_json(R"("merges": 5)")), HasSubstr("merges"));
  EXPECT_THAT(load_error(small_json(R"("merges": [["a"]])")), HasSubstr("merge 0"));
  EXPECT_THAT(load_error(small_json(R"("merges": [["a", "q"]])")), HasSubstr("\"q\""));
  EXPECT_THAT(load_error(small_json(R"("merges": [], "end_of_word_suffix": "</w>")")),
              HasSubstr("end_of_word_suffix"));
  const std::string plain = R"("merges": [])";
  EXPECT_THAT(load_error(small_json(plain, R"(, "normalizer": {"type": "Nmt"})")),
              HasSubstr("normalizer \"Nmt\""));
  EXPECT_THAT(load_error(small_json(plain, R"(, "pre_tokenizer": {"type": "UnicodeScripts"})")),
              HasSubstr("UnicodeScripts"));
  EXPECT_THAT(load_error(small_json(plain, R"(, "decoder": {"type": "CTC"})")), HasSubstr("CTC"));
  EXPECT_THAT(load_error(small_json(plain, R"(, "post_processor": {"type": "BertProcessing"})")),
              HasSubstr("BertProcessing"));
  EXPECT_THAT(load_error(small_json(plain, R"(, "added_tokens": [{"id": 1, "content": "other"}])")),
              HasSubstr("same id 1"));
  EXPECT_THAT(
      load_error(small_json(plain, R"(, "added_tokens": [{"id": -1, "content": "other"}])")),
      HasSubstr("other"));
  EXPECT_THAT(
      load_error(small_json(plain, R"(, "added_tokens": [{"id": 4000000000, "content": "x"}])")),
      HasSubstr("\"x\""));
  EXPECT_THAT(load_error(small_json(plain, R"(, "pre_tokenizer": {"type": "Split", "pattern":
      {"Regex": "(a"}, "behavior": "Isolated"})")),
              HasSubstr("does not compile"));
}

TEST(TokenizerLimits, InvalidUtf8NamesTheByte) {
  const auto tokenizer = test::make_tokenizer(small_bpe());
  ASSERT_NE(tokenizer, nullptr);
  const auto ids = tokenizer->encode("ab\xFF", false, false);
  ASSERT_FALSE(ids.ok());
  EXPECT_THAT(std::string(ids.status().message()), HasSubstr("byte 2"));
}

// Quadratic work would not end within the test's time limit.
TEST(TokenizerLimits, LongPiecesCostTimeInProportion) {
  for (const char* path :
       {"data/tokenizers/llama3/tokenizer.json", "data/tokenizers/smollm2/tokenizer.json",
        "data/models/stories260K/hf/tokenizer.json"}) {
    QUIRE_NEED_DATA(test::shared_file(path));
    const auto tokenizer = test::make_tokenizer(test::json_data(test::shared_file(path)));
    ASSERT_NE(tokenizer, nullptr);
    for (const char* unit : {"a", " ", "\xE4\xB8\xAD"}) {
      std::string text;
      while (text.size() < 1000000) text += unit;
      const auto ids = tokenizer->encode(text, true, false);
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(tokenizer->decode(*ids, false), text) << path << " " << unit;
    }
  }
}

TEST(TokenizerLimits, TokenOfAMillionBytes) {
  TokenizerData data = small_spm();
  data.tokens.push_back(std::string(1000000, 'b'));
  data.types.push_back(1);
  data.scores.push_back(-3);
  const auto tokenizer = test::make_tokenizer(data);
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->bytes_of(6).size(), 1000000u);
  EXPECT_EQ(tokenizer->encode(std::string(100000, 'b'), false, false)->size(), 100001u);
}

}  // namespace
}  // namespace quire
