// A checkpoint's headers and metadata: what both coordinator and worker need of it. The worker's
// loader adds the bytes. Accepts a GGUF file, or a Hugging Face folder (config.json in old and new
// style, safetensors in one or many shards, tokenizer.json).
//
// Hostile files are expected: every size is checked against the file before use, and an error names
// the file, the tensor or key, and the reason.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/format.h"
#include "common/model_spec.h"

namespace quire {

// What is done about the weights: read them, or make them up (benchmarks need only their shapes).
enum class LoadFormat { kAuto, kDummy };
// Of --load-format's value.
inline LoadFormat load_format_of(const std::string& option) {
  return option == "dummy" ? LoadFormat::kDummy : LoadFormat::kAuto;
}

struct TensorInfo {
  std::string name;  // as the file spells it; of a recipe: "<module>.weight"
  Format format = Format::kF32;
  std::vector<std::int64_t> shape;  // outermost first: a matrix is [out, in]
  int file = 0;                     // index into ModelFile::files
  std::uint64_t offset = 0;         // of the first byte, from the start of that file
  std::uint64_t bytes = 0;          // in `format`, row scales included
  int recipe = -1;                  // index into ModelFile::recipes; -1: the bytes are in `format`
};

// What the elements of a safetensors file are.
enum class Dtype : std::uint8_t { kF32, kF16, kBf16, kF8E4M3, kI8, kI32, kI64 };

// A tensor as a safetensors file holds it.
struct StoredTensor {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<std::int64_t> shape;
  int file = 0;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

// How a matrix [N][K] is made of stored tensors when it is loaded. Shapes have been compared with
// each other; G = ceil(K / group_size) groups of columns share a scale.
struct Recipe {
  enum class Scheme {
    kAwq,         // values [K][N/8], zeros [G][N/8], scales [G][N]
    kGptq,        // values [K*bits/32][N], zeros [G][N*bits/32], scales [G][N], order [K] if any
    kPackedRows,  // values [N][K/8], scales [N][G]; zero is 8
    kScaledRows,  // values [N][K] of one byte, scales [N] or one for all
  };
  Scheme scheme = Scheme::kScaledRows;
  int bits = 4;
  int group_size = 0;
  int zero_bias = 0;  // added to a stored zero
  StoredTensor values, scales, zeros, order;
  bool has_order() const { return !order.name.empty(); }
};

// The hash of the made-up weights of a model whose config (or header) has the hash `config`.
std::uint64_t dummy_hash(std::uint64_t config);

// The formats of made-up weights. A GGUF's header names them tensor by tensor.
struct DummyFormats {
  Format plain = Format::kBf16;     // embedding, head, vectors
  Format matrices = Format::kBf16;  // of the layers
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
  std::vector<Recipe> recipes;
  std::string quantization;           // a quantized folder's method, for people; or empty
  std::optional<DummyFormats> dummy;  // set: no weight is read; of a folder `tensors` is empty
  std::uint64_t hash = 0;  // of sizes, names, shapes and headers: ranks and journal compare it

  const TensorInfo* find(const std::string& name) const;  // nullptr if absent
  std::uint64_t total_bytes() const;
};

// NotFound / InvalidArgument / DataLoss, each naming the file and what is wrong with it.
absl::StatusOr<ModelFile> open_model(const std::string& path,
                                     LoadFormat load_format = LoadFormat::kAuto);

}  // namespace quire
