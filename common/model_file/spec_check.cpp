#include "common/model_file/spec_check.h"

#include <cmath>

#include "absl/strings/str_join.h"
#include "common/model_file/file_error.h"
#include "common/status.h"
#include "common/utf8.h"

namespace quire {
namespace {

struct Bound {
  const char* name;
  int ModelSpec::*field;
  int low;
  int high;
};
// The upper bounds are far above every model, and their products stay inside an int.
constexpr Bound kBounds[] = {
    {"the number of layers", &ModelSpec::num_layers, 1, 1 << 12},
    {"the hidden size", &ModelSpec::hidden, 1, 1 << 20},
    {"the number of query heads", &ModelSpec::num_heads, 1, 1 << 12},
    {"the number of KV heads", &ModelSpec::num_kv_heads, 1, 1 << 12},
    {"the head dimension", &ModelSpec::head_dim, 2, 1 << 14},
    {"the feed-forward width", &ModelSpec::ffn, 1, 1 << 24},
    {"the vocabulary", &ModelSpec::vocab, 1, 1 << 24},
    {"the context length", &ModelSpec::max_positions, 1, 1 << 30},
    {"the sliding window", &ModelSpec::window, 0, 1 << 30},
};

bool positive(double value) {
  return std::isfinite(value) && value > 0.0;
}

absl::Status check_rope(const std::string& where, const RopeSpec& rope, int head_dim) {
  if (rope.dims < 2 || rope.dims > head_dim || rope.dims % 2 != 0) {
    return unsupported(where, "rotary embedding over ", rope.dims,
                       " dimensions of each head; must be even and in [2, ", head_dim, "].");
  }
  if (!positive(rope.theta)) {
    return unsupported(where, "the rotary base (rope theta) is ", rope.theta,
                       ", but must be a positive number.");
  }
  const double scales[] = {rope.factor, rope.low_freq_factor, rope.high_freq_factor, rope.beta_fast,
                           rope.beta_slow};
  for (const double value : scales) {
    if (positive(value)) continue;
    return unsupported(where, "a rotary scaling parameter is ", value,
                       ", but all must be positive numbers.");
  }
  const bool needs_original =
      rope.scaling == RopeScaling::kLlama3 || rope.scaling == RopeScaling::kYarn;
  if (needs_original && !positive(rope.original_max_positions)) {
    return unsupported(where, "rotary scaling needs the original context length, which is ",
                       rope.original_max_positions, ".");
  }
  if (rope.scaling == RopeScaling::kLlama3 && rope.high_freq_factor <= rope.low_freq_factor) {
    return unsupported(where, "rotary scaling has high_freq_factor ", rope.high_freq_factor,
                       ", which must be above low_freq_factor ", rope.low_freq_factor, ".");
  }
  if (!std::isfinite(rope.attention_factor) || rope.attention_factor < 0.0) {
    return unsupported(where, "the rotary attention factor is ", rope.attention_factor,
                       ", but must be a number that is not negative.");
  }
  return absl::OkStatus();
}

absl::Status check_id(const std::string& where, const char* name, TokenId id, int vocab) {
  if (id >= -1 && id < vocab) return absl::OkStatus();
  return unsupported(where, "the ", name, " token id is ", id, ", but the vocabulary has ", vocab,
                     " tokens.");
}

}  // namespace

absl::Status check_spec(const std::string& where, const ModelSpec& spec) {
  for (const Bound& bound : kBounds) {
    const int value = spec.*bound.field;
    if (value < bound.low || value > bound.high) {
      return unsupported(where, bound.name, " is ", value, ", but must be in [", bound.low, ", ",
                         bound.high, "].");
    }
  }
  if (spec.num_heads % spec.num_kv_heads != 0) {
    return unsupported(where, "the ", spec.num_kv_heads, " KV heads do not divide the ",
                       spec.num_heads, " query heads.");
  }
  if (spec.head_dim % 2 != 0) {
    return unsupported(where, "the head dimension is ", spec.head_dim, ", but must be even.");
  }
  if (!(spec.norm_eps >= 0.0f && spec.norm_eps < 1.0f)) {
    return unsupported(where, "the RMS norm epsilon is ", spec.norm_eps,
                       ", but must be in [0, 1).");
  }
  if (!std::isfinite(spec.attention_soft_cap) || spec.attention_soft_cap < 0.0f) {
    return unsupported(where, "the soft cap of attention scores is ", spec.attention_soft_cap,
                       ", but must be a number that is not negative.");
  }
  return check_rope(where, spec.rope, spec.head_dim);
}

absl::Status check_embedding(const std::string& where, const ModelFile& model,
                             const std::string& name) {
  const TensorInfo* embedding = model.find(name);
  if (embedding == nullptr) return corrupt(where, "tensor '", name, "' is missing.");
  const std::vector<std::int64_t> expected = {model.spec.vocab, model.spec.hidden};
  if (embedding->shape != expected) {
    return corrupt(where, "tensor '", name, "' is ", absl::StrJoin(embedding->shape, " x "),
                   ", but the vocabulary is ", model.spec.vocab, " and the hidden size ",
                   model.spec.hidden, ".");
  }
  return absl::OkStatus();
}

absl::Status check_tokenizer(const std::string& where, const ModelFile& model) {
  const TokenizerData& data = model.tokenizer;
  const int vocab = model.spec.vocab;
  if (data.tokens.size() > static_cast<std::size_t>(vocab)) {
    return unsupported(where, "the tokenizer has ", data.tokens.size(),
                       " tokens, but the embedding only ", vocab, " rows.");
  }
  if (!data.scores.empty() && data.scores.size() != data.tokens.size()) {
    return corrupt(where, "the tokenizer has ", data.tokens.size(), " tokens, but ",
                   data.scores.size(), " scores.");
  }
  if (!data.types.empty() && data.types.size() != data.tokens.size()) {
    return corrupt(where, "the tokenizer has ", data.tokens.size(), " tokens, but ",
                   data.types.size(), " token types.");
  }
  QUIRE_RETURN_IF_ERROR(check_id(where, "begin-of-sequence", data.bos, vocab));
  QUIRE_RETURN_IF_ERROR(check_id(where, "end-of-sequence", data.eos, vocab));
  QUIRE_RETURN_IF_ERROR(check_id(where, "unknown", data.unk, vocab));
  QUIRE_RETURN_IF_ERROR(check_id(where, "begin-of-sequence", model.spec.bos, vocab));
  for (const TokenId id : model.spec.eos) {
    QUIRE_RETURN_IF_ERROR(check_id(where, "end-of-sequence", id, vocab));
  }
  if (const std::size_t at = utf8::first_invalid(model.chat_template); at != utf8::npos) {
    return corrupt(where, "the chat template is not UTF-8 (byte ", at, ").");
  }
  return absl::OkStatus();
}

}  // namespace quire
