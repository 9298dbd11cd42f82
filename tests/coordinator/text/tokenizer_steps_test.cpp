// Every step that a tokenizer.json may configure, with the ids that Hugging Face tokenizers
// gives for the same small model.
#include <gtest/gtest.h>

#include "coordinator/text/tokenizer.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

constexpr char kModel[] =
    R"J({"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "vocab": {"<unk>": 0, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 7, "x": 8, "y": 9, "z": 10, "X": 11, "Y": 12, "Z": 13, " ": 14, "0": 15, "1": 16, "2": 17, "3": 18, ".": 19, ",": 20, "-": 21, "_": 22, "'": 23, "\n": 24, "\t": 25, "\u00e9": 26, "\u2581": 27, "i": 28, "\u4e2d": 29, "\u00c9": 30, "\u0301": 31, "\u00b2": 32, "E": 33, "ab": 34, "abc": 35, "\u2581a": 36, "12": 37, " a": 38}, "merges": [["a", "b"], ["ab", "c"], ["\u2581", "a"], ["1", "2"], [" ", "a"]]})J";

struct Case {
  const char* steps;  // merged into the model's tokenizer.json
  const char* text;
  std::vector<TokenId> ids;
};

// clang-format off
const Case kCases[] = {
    {R"J({"normalizer": {"type": "NFD"}})J", "éÉ", {5, 31, 33, 31}},
    {R"J({"normalizer": {"type": "NFKC"}})J", "é ﬁ²", {26, 14, 6, 28, 17}},
    {R"J({"normalizer": {"type": "NFC"}})J", "é", {26}},
    {R"J({"normalizer": {"type": "Lowercase"}})J", "ABC ÉX", {35, 14, 26, 8}},
    {R"J({"normalizer": {"type": "Strip", "strip_left": true, "strip_right": false}})J", "  ab c ", {34, 14, 3, 14}},
    {R"J({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Prepend", "prepend": "a"}]}})J", "b \t\nb", {34, 14, 2}},
    {R"J({"pre_tokenizer": {"type": "Split", "pattern": {"String": "b"}, "behavior": "Isolated", "invert": false}})J", "a  abc abc", {1, 14, 38, 2, 3, 38, 2, 3}},
    {R"J({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": " "}, "behavior": "Isolated", "invert": true}})J", " a  abc a", {14, 1, 14, 14, 35, 14, 1}},
    {R"J({"pre_tokenizer": {"type": "Split", "pattern": {"String": "b"}, "behavior": "Removed", "invert": false}})J", "a  abc abc", {1, 14, 38, 3, 38, 3}},
    {R"J({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": " "}, "behavior": "Removed", "invert": true}})J", " a  abc a", {14, 14, 14, 14}},
    {R"J({"pre_tokenizer": {"type": "Split", "pattern": {"String": "b"}, "behavior": "Contiguous", "invert": false}})J", "a  abc abc", {1, 14, 38, 2, 3, 38, 2, 3}},
    {R"J({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": " "}, "behavior": "Contiguous", "invert": true}})J", " a  abc a", {14, 1, 14, 14, 35, 14, 1}},
    {R"J({"pre_tokenizer": {"type": "Split", "pattern": {"String": "b"}, "behavior": "MergedWithPrevious", "invert": false}})J", "a  abc abc", {1, 14, 14, 34, 3, 14, 34, 3}},
    {R"J({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": " "}, "behavior": "MergedWithPrevious", "invert": true}})J", " a  abc a", {38, 14, 14, 35, 38}},
    {R"J({"pre_tokenizer": {"type": "Split", "pattern": {"String": "b"}, "behavior": "MergedWithNext", "invert": false}})J", "a  abc abc", {1, 14, 38, 2, 3, 38, 2, 3}},
    {R"J({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": " "}, "behavior": "MergedWithNext", "invert": true}})J", " a  abc a", {14, 1, 14, 14, 35, 14, 1}},
    {R"J({"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": true}, "added_tokens": [{"id": 39, "content": "XY", "normalized": false}, {"id": 40, "content": "ZZ", "normalized": false, "special": true}]})J", "ab a XY a ZZa", {27, 34, 36, 27, 39, 36, 27, 40, 36}},
    {R"J({"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": false}, "added_tokens": [{"id": 39, "content": "XY", "normalized": false}, {"id": 40, "content": "ZZ", "normalized": false, "special": true}]})J", "ab a XY a ZZa", {27, 34, 36, 27, 39, 36, 27, 40, 1}},
    {R"J({"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": true}, "added_tokens": [{"id": 39, "content": "XY", "normalized": false}, {"id": 40, "content": "ZZ", "normalized": false, "special": true}]})J", "ab a XY a ZZa", {34, 36, 27, 39, 36, 27, 40, 1}},
    {R"J({"pre_tokenizer": {"type": "Digits", "individual_digits": true}})J", "a12 3", {1, 16, 17, 14, 18}},
    {R"J({"pre_tokenizer": {"type": "Digits", "individual_digits": false}})J", "a12 3", {1, 37, 14, 18}},
    {R"J({"added_tokens": [{"id": 39, "content": "_b", "lstrip": true, "normalized": false}, {"id": 40, "content": "XYZ", "normalized": false}, {"id": 41, "content": "XX", "normalized": true}]})J", "a _b\n abc_b _bab XYZXX", {1, 39, 24, 14, 35, 39, 39, 34, 14, 40, 41}},
    {R"J({"added_tokens": [{"id": 39, "content": "_b", "rstrip": true, "normalized": false}, {"id": 40, "content": "XYZ", "normalized": false}, {"id": 41, "content": "XX", "normalized": true}]})J", "a _b\n abc_b _bab XYZXX", {1, 14, 39, 35, 39, 39, 34, 14, 40, 41}},
    {R"J({"added_tokens": [{"id": 39, "content": "_b", "single_word": true, "normalized": false}, {"id": 40, "content": "XYZ", "normalized": false}, {"id": 41, "content": "XX", "normalized": true}]})J", "a _b\n abc_b _bab XYZXX", {1, 14, 39, 24, 14, 35, 22, 2, 14, 22, 2, 34, 14, 40, 41}},
    {R"J({"normalizer": {"type": "Lowercase"}, "added_tokens": [{"id": 39, "content": "XYZ", "normalized": false}, {"id": 40, "content": "XX", "normalized": true}]})J", "aXXb xxXYZ", {1, 40, 2, 14, 40, 39}},
};
// clang-format on

TEST(TokenizerSteps, EqualHuggingFace) {
  for (const Case& c : kCases) {
    auto json = nlohmann::json::parse(c.steps);
    json["model"] = nlohmann::json::parse(kModel);
    TokenizerData data;
    data.kind = TokenizerData::Kind::kJson;
    data.json = json.dump();
    const auto tokenizer = Tokenizer::make(data);
    ASSERT_TRUE(tokenizer.ok()) << c.steps << ": " << tokenizer.status();
    const auto ids = (*tokenizer)->encode(c.text, true, false);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, c.ids) << c.steps << " over " << c.text;
  }
}

}  // namespace
}  // namespace quire
