// A checkpoint's headers and metadata: what both coordinator and worker need of it. The worker's
// loader adds the bytes. Accepts a GGUF file, or a Hugging Face folder (config.json in old and new
// style, safetensors in one or many shards, tokenizer.json).
//
// Hostile files are expected: every size is checked against the file before use, and an error names
// the file, the tensor or key, and the reason.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/format.h"
#include "common/model_spec.h"

namespace quire {

struct TensorInfo {
  std::string name;  // as the file spells it
  Format format = Format::kF32;
  std::vector<std::int64_t> shape;  // outermost first: a matrix is [out, in]
  int file = 0;                     // index into ModelFile::files
  std::uint64_t offset = 0;         // of the first byte, from the start of that file
  std::uint64_t bytes = 0;
};

// What a tokenizer is made from; coordinator/text builds it.
struct TokenizerData {
  enum class Kind { kNone, kGgufBpe, kGgufSpm, kJson };
  Kind kind = Kind::kNone;
  // kGgufBpe, kGgufSpm
  std::string pre;  // tokenizer.ggml.pre, e.g. "smollm"
  std::vector<std::string> tokens;
  std::vector<float> scores;        // kGgufSpm
  std::vector<std::int32_t> types;  // GGUF token types: 1 normal 2 unknown 3 control 4 user 6 byte
  std::vector<std::string> merges;  // kGgufBpe, "left right"
  bool add_space_prefix = true;     // kGgufSpm
  // kJson
  std::string json;  // the text of tokenizer.json
  // all
  TokenId bos = -1;
  TokenId eos = -1;
  TokenId unk = -1;
  bool add_bos = false;  // put bos before a raw prompt
  bool add_eos = false;
  std::string bos_text, eos_text, unk_text, pad_text;  // for the chat template
};

struct ModelFile {
  std::string path;  // what the user named
  bool gguf = false;
  std::vector<std::string> files;  // those that hold tensors
  ModelSpec spec;
  TokenizerData tokenizer;
  std::string chat_template;  // Jinja source; empty if the model has none
  std::vector<TensorInfo> tensors;
  std::uint64_t hash = 0;  // of sizes, names, shapes and headers: ranks and journal compare it

  const TensorInfo* find(const std::string& name) const;  // nullptr if absent
  std::uint64_t total_bytes() const;
};

// NotFound / InvalidArgument / DataLoss, each naming the file and what is wrong with it.
absl::StatusOr<ModelFile> open_model(const std::string& path);

}  // namespace quire
