// Vocabularies for the tests of this room: from tokenizer.json files and from GGUF files that hold
// nothing but a vocabulary (which open_model rightly refuses).
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "common/mapped_file.h"
#include "common/model_file/gguf_file.h"
#include "common/model_file/gguf_keys.h"
#include "coordinator/text/tokenizer.h"
#include "nlohmann/json.hpp"
#include "tests/test_data.h"

namespace quire::test {

inline std::filesystem::path shared_file(const std::string& path) {
  return data_root() / path;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return std::move(out).str();
}

inline TokenizerData json_data(const std::filesystem::path& path) {
  TokenizerData data;
  data.kind = TokenizerData::Kind::kJson;
  data.json = read_text(path);
  return data;
}

inline TokenizerData gguf_data(const std::filesystem::path& path) {
  const absl::StatusOr<MappedFile> mapped = MappedFile::open(path.string());
  EXPECT_TRUE(mapped.ok()) << mapped.status();
  const absl::StatusOr<GgufFile> file = read_gguf(path.string(), mapped->bytes());
  EXPECT_TRUE(file.ok()) << file.status();
  GgufKeys keys(*file);
  TokenizerData data;
  const bool bpe = keys.text("tokenizer.ggml.model") == "gpt2";
  data.kind = bpe ? TokenizerData::Kind::kGgufBpe : TokenizerData::Kind::kGgufSpm;
  data.pre = keys.text("tokenizer.ggml.pre");
  data.tokens = keys.texts("tokenizer.ggml.tokens");
  data.merges = keys.texts("tokenizer.ggml.merges");
  for (const double score : keys.reals("tokenizer.ggml.scores")) {
    data.scores.push_back(static_cast<float>(score));
  }
  for (const std::int64_t type : keys.integers("tokenizer.ggml.token_type")) {
    data.types.push_back(static_cast<std::int32_t>(type));
  }
  data.bos = keys.integer("tokenizer.ggml.bos_token_id", -1);
  data.eos = keys.integer("tokenizer.ggml.eos_token_id", -1);
  data.unk = keys.integer("tokenizer.ggml.unknown_token_id", -1);
  data.add_space_prefix = keys.boolean("tokenizer.ggml.add_space_prefix", true);
  EXPECT_TRUE(keys.status().ok()) << keys.status();
  return data;
}

inline std::unique_ptr<Tokenizer> make_tokenizer(const TokenizerData& data) {
  auto tokenizer = Tokenizer::make(data);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

}  // namespace quire::test
