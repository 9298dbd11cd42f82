// What the keys of a llama GGUF mean. Q and K are stored for interleaved rotation, so the spec says
// so; output.weight may be absent, which means tied embeddings.
#include "common/model_file/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "common/hash.h"
#include "common/mapped_file.h"
#include "common/model_file/file_error.h"
#include "common/model_file/gguf_file.h"
#include "common/model_file/gguf_keys.h"
#include "common/model_file/spec_check.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr const char* kEmbedding = "token_embd.weight";

absl::Status check_architecture(const std::string& path, GgufKeys& keys) {
  const std::string architecture = keys.text("general.architecture");
  QUIRE_RETURN_IF_ERROR(keys.status());
  if (architecture != "llama") {
    return unsupported(path, "the architecture is '", architecture,
                       "'; the only one that runs is llama.");
  }
  if (const int experts = keys.integer("llama.expert_count", 0); experts > 0) {
    return unsupported(path, "the model is a mixture of ", experts,
                       " experts; only dense llama models run.");
  }
  if (const int parts = keys.integer("split.count", 0); parts > 1) {
    return unsupported(path, "it is one of ", parts,
                       " parts of a split model; merge them into one file first.");
  }
  return keys.status();
}

absl::Status read_rope(const GgufFile& file, GgufKeys& keys, ModelSpec* spec) {
  RopeSpec& rope = spec->rope;
  rope.interleaved = true;
  rope.dims = keys.integer("llama.rope.dimension_count", spec->head_dim);
  rope.theta = keys.real("llama.rope.freq_base", 10000.0);
  const double legacy_factor = keys.real("llama.rope.scale_linear", 1.0);
  const std::string type =
      keys.text("llama.rope.scaling.type", legacy_factor != 1.0 ? "linear" : "none");
  if (type == "none") return keys.status();
  rope.factor = keys.real("llama.rope.scaling.factor", legacy_factor);
  rope.original_max_positions = keys.integer("llama.rope.scaling.original_context_length", 0);
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    if (rope.original_max_positions == 0.0) rope.original_max_positions = spec->max_positions;
    rope.beta_fast = keys.real("llama.rope.scaling.yarn_beta_fast", rope.beta_fast);
    rope.beta_slow = keys.real("llama.rope.scaling.yarn_beta_slow", rope.beta_slow);
    // GGUF's factor multiplies the usual 0.1 ln(factor) + 1.
    const double attention = keys.real("llama.rope.scaling.attn_factor", 1.0);
    if (attention != 1.0) {
      rope.attention_factor = attention * (0.1 * std::log(std::max(rope.factor, 1.0)) + 1.0);
    }
  } else {
    return unsupported(file.path, "metadata key 'llama.rope.scaling.type' is '", type,
                       "'; none, linear and yarn are known.");
  }
  return keys.status();
}

// llama3-style scaling arrives as a tensor of divisors, one per rotated pair.
absl::Status read_rope_factors(const ModelFile& model, absl::string_view bytes, RopeSpec* rope) {
  const TensorInfo* tensor = model.find("rope_freqs.weight");
  if (tensor == nullptr) return absl::OkStatus();
  const std::vector<std::int64_t> expected = {rope->dims / 2};
  if (tensor->format != Format::kF32 || tensor->shape != expected) {
    return corrupt(model.path, "tensor 'rope_freqs.weight' must be ", expected[0],
                   " values of F32.");
  }
  rope->freq_factors.resize(static_cast<std::size_t>(expected[0]));
  std::memcpy(rope->freq_factors.data(), bytes.data() + tensor->offset, tensor->bytes);
  for (const float factor : rope->freq_factors) {
    if (!std::isfinite(factor) || factor <= 0.0f) {
      return corrupt(model.path, "tensor 'rope_freqs.weight' holds ", factor,
                     ", but every factor must be a positive number.");
    }
  }
  return absl::OkStatus();
}

absl::Status read_spec(const GgufFile& file, GgufKeys& keys, ModelFile* model) {
  ModelSpec& spec = model->spec;
  spec.architecture = "llama";
  spec.name = keys.text("general.name", std::filesystem::path(file.path).stem().string());
  spec.num_layers = keys.integer("llama.block_count");
  spec.hidden = keys.integer("llama.embedding_length");
  spec.ffn = keys.integer("llama.feed_forward_length");
  spec.max_positions = keys.integer("llama.context_length");
  spec.num_heads = keys.integer("llama.attention.head_count");
  spec.num_kv_heads = keys.integer("llama.attention.head_count_kv", spec.num_heads);
  spec.norm_eps = static_cast<float>(keys.real("llama.attention.layer_norm_rms_epsilon"));
  QUIRE_RETURN_IF_ERROR(keys.status());

  if (keys.has("llama.attention.key_length")) {
    spec.head_dim = keys.integer("llama.attention.key_length");
  } else if (spec.num_heads < 1 || spec.hidden % spec.num_heads != 0) {
    return unsupported(file.path, "the ", spec.num_heads,
                       " query heads do not divide the hidden size ", spec.hidden,
                       ", and 'llama.attention.key_length' is absent.");
  } else {
    spec.head_dim = spec.hidden / spec.num_heads;
  }
  if (const int value_length = keys.integer("llama.attention.value_length", spec.head_dim);
      value_length != spec.head_dim) {
    return unsupported(file.path, "heads of K are ", spec.head_dim, " wide and heads of V ",
                       value_length, "; they must be equal.");
  }
  spec.window = keys.integer("llama.attention.sliding_window", 0);
  spec.attention_soft_cap = static_cast<float>(keys.real("llama.attn_logit_softcapping", 0.0));
  const TensorInfo* embedding = model->find(kEmbedding);
  const std::int64_t rows = embedding != nullptr ? embedding->shape.front() : 0;
  spec.vocab =
      keys.integer("llama.vocab_size", static_cast<int>(std::min<std::int64_t>(rows, 1 << 30)));
  spec.tied_embeddings = model->find("output.weight") == nullptr;
  spec.qkv_bias = model->find("blk.0.attn_q.bias") != nullptr;
  spec.out_bias = model->find("blk.0.attn_output.bias") != nullptr;
  spec.mlp_bias = model->find("blk.0.ffn_up.bias") != nullptr;
  return read_rope(file, keys, &spec);
}

void add_eos(TokenId id, ModelSpec* spec) {
  if (id < 0 || std::find(spec->eos.begin(), spec->eos.end(), id) != spec->eos.end()) return;
  spec->eos.push_back(id);
}

std::string token_text(const TokenizerData& data, TokenId id) {
  return id >= 0 && static_cast<std::size_t>(id) < data.tokens.size()
             ? data.tokens[static_cast<std::size_t>(id)]
             : "";
}

// Vocabularies whose files often say nothing about a leading bos, though the model wants one.
bool adds_bos_by_default(const TokenizerData& data) {
  return data.kind == TokenizerData::Kind::kGgufSpm || data.pre == "llama3" ||
         data.pre == "llama-v3" || data.pre == "llama-bpe";
}

absl::Status read_tokenizer(const GgufFile& file, GgufKeys& keys, ModelFile* model) {
  TokenizerData& data = model->tokenizer;
  const std::string kind = keys.text("tokenizer.ggml.model", "none");
  if (kind == "gpt2") {
    data.kind = TokenizerData::Kind::kGgufBpe;
  } else if (kind == "llama") {
    data.kind = TokenizerData::Kind::kGgufSpm;
  } else if (kind != "none" && kind != "no_vocab") {
    return unsupported(file.path, "metadata key 'tokenizer.ggml.model' is '", kind,
                       "'; gpt2 and llama are known.");
  }
  data.pre = keys.text("tokenizer.ggml.pre");
  data.tokens = keys.texts("tokenizer.ggml.tokens");
  data.merges = keys.texts("tokenizer.ggml.merges");
  for (const double score : keys.reals("tokenizer.ggml.scores")) {
    data.scores.push_back(static_cast<float>(score));
  }
  for (const std::int64_t type : keys.integers("tokenizer.ggml.token_type")) {
    data.types.push_back(static_cast<std::int32_t>(type));
  }
  const bool spm = data.kind == TokenizerData::Kind::kGgufSpm;
  data.bos = keys.integer("tokenizer.ggml.bos_token_id", spm ? 1 : -1);
  data.eos = keys.integer("tokenizer.ggml.eos_token_id", spm ? 2 : -1);
  data.unk = keys.integer("tokenizer.ggml.unknown_token_id", spm ? 0 : -1);
  data.add_bos = keys.boolean("tokenizer.ggml.add_bos_token", adds_bos_by_default(data));
  data.add_eos = keys.boolean("tokenizer.ggml.add_eos_token", false);
  data.add_space_prefix = keys.boolean("tokenizer.ggml.add_space_prefix", spm);
  data.bos_text = token_text(data, data.bos);
  data.eos_text = token_text(data, data.eos);
  data.unk_text = token_text(data, data.unk);
  data.pad_text = token_text(data, keys.integer("tokenizer.ggml.padding_token_id", -1));
  model->chat_template = keys.text("tokenizer.chat_template");
  model->spec.bos = data.bos;
  add_eos(data.eos, &model->spec);
  add_eos(keys.integer("tokenizer.ggml.eot_token_id", -1), &model->spec);
  if (data.kind != TokenizerData::Kind::kNone && data.tokens.empty()) {
    return corrupt(file.path, "metadata key 'tokenizer.ggml.tokens' is missing or empty.");
  }
  if (spm && data.scores.empty()) {
    return corrupt(file.path, "metadata key 'tokenizer.ggml.scores' is missing or empty.");
  }
  return keys.status();
}

}  // namespace

absl::StatusOr<ModelFile> open_gguf(const std::string& path, LoadFormat load_format) {
  const bool dummy = load_format == LoadFormat::kDummy;
  QUIRE_ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::open(path));
  QUIRE_ASSIGN_OR_RETURN(GgufFile file, read_gguf(path, mapped.bytes(), dummy));
  GgufKeys keys(file);
  QUIRE_RETURN_IF_ERROR(check_architecture(path, keys));

  ModelFile model;
  model.path = path;
  model.gguf = true;
  model.files = {path};
  model.tensors = std::move(file.tensors);
  model.hash = hash64(mapped.bytes().size(), mapped.bytes().substr(0, file.data_offset));
  QUIRE_RETURN_IF_ERROR(read_spec(file, keys, &model));
  QUIRE_RETURN_IF_ERROR(check_spec(path, model.spec));
  QUIRE_RETURN_IF_ERROR(check_embedding(path, model, kEmbedding));
  if (dummy) {
    model.dummy.emplace();
    model.hash = dummy_hash(hash64(0, mapped.bytes().substr(0, file.headers_end)));
  } else {
    QUIRE_RETURN_IF_ERROR(read_rope_factors(model, mapped.bytes(), &model.spec.rope));
  }
  QUIRE_RETURN_IF_ERROR(read_tokenizer(file, keys, &model));
  QUIRE_RETURN_IF_ERROR(check_tokenizer(path, model));
  return model;
}

}  // namespace quire
