#include "common/model_file/hf_config.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_join.h"
#include "common/model_file/file_error.h"
#include "common/model_file/json_file.h"
#include "common/status.h"

namespace quire {
namespace {

using Json = nlohmann::json;

struct Architecture {
  const char* hf;
  const char* ours;  // ModelSpec::architecture
};
constexpr Architecture kArchitectures[] = {{"LlamaForCausalLM", "llama"},
                                           {"MistralForCausalLM", "mistral"}};

absl::StatusOr<std::string> read_architecture(const std::string& file, const Json& config) {
  std::string found = "none";
  if (const auto list = config.find("architectures"); list != config.end() && list->is_array()) {
    std::vector<std::string> names;
    for (const Json& name : *list) {
      if (name.is_string()) names.push_back(name.get<std::string>().substr(0, 100));
    }
    found = absl::StrJoin(names, ", ");
  }
  std::vector<std::string> known;
  for (const Architecture& architecture : kArchitectures) {
    if (found == architecture.hf) return architecture.ours;
    known.push_back(architecture.hf);
  }
  return unsupported(file, "the architecture is '", found,
                     "'; these run: ", absl::StrJoin(known, ", "), ".");
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

absl::Status read_yarn(const std::string& file, JsonFields& fields, const ModelSpec& spec,
                       RopeSpec* rope) {
  rope->scaling = RopeScaling::kYarn;
  rope->original_max_positions =
      fields.real("original_max_position_embeddings", spec.max_positions);
  if (!fields.has("factor") && rope->original_max_positions > 0.0) {
    rope->factor = spec.max_positions / rope->original_max_positions;
  }
  rope->beta_fast = fields.real("beta_fast", rope->beta_fast);
  rope->beta_slow = fields.real("beta_slow", rope->beta_slow);
  rope->attention_factor = fields.real("attention_factor", 0.0);
  const double mscale = fields.real("mscale", 0.0);
  const double mscale_all = fields.real("mscale_all_dim", 0.0);
  if (rope->attention_factor == 0.0 && mscale != 0.0 && mscale_all != 0.0) {
    rope->attention_factor =
        yarn_mscale(rope->factor, mscale) / yarn_mscale(rope->factor, mscale_all);
  }
  if (!fields.boolean("truncate", true)) {
    return unsupported(file, "rotary scaling has truncate = false, which does not run.");
  }
  return fields.status();
}

absl::Status read_rope(const std::string& file, JsonFields& config, ModelSpec* spec) {
  const bool new_style = config.has("rope_parameters");
  const char* section = new_style ? "rope_parameters" : "rope_scaling";
  const Json object = config.object(section);
  QUIRE_RETURN_IF_ERROR(config.status());
  JsonFields fields(file, object, absl::StrCat(section, "."));

  RopeSpec& rope = spec->rope;
  rope.interleaved = false;
  rope.dims = spec->head_dim;
  rope.theta = fields.real("rope_theta", config.real("rope_theta", 10000.0));
  const double partial =
      fields.real("partial_rotary_factor", config.real("partial_rotary_factor", 1.0));
  if (partial != 1.0) {
    return unsupported(file, "partial_rotary_factor is ", partial, "; only 1 runs.");
  }
  const std::string type = fields.text("rope_type", fields.text("type", "default"));
  rope.factor = fields.real("factor", 1.0);
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else if (type == "llama3") {
    rope.scaling = RopeScaling::kLlama3;
    rope.factor = fields.real("factor");
    rope.low_freq_factor = fields.real("low_freq_factor");
    rope.high_freq_factor = fields.real("high_freq_factor");
    rope.original_max_positions = fields.real("original_max_position_embeddings");
  } else if (type == "yarn") {
    QUIRE_RETURN_IF_ERROR(read_yarn(file, fields, *spec, &rope));
  } else if (type != "default") {
    return unsupported(file, "the rotary scaling is of type '", type.substr(0, 40),
                       "'; default, linear, llama3 and yarn are known.");
  }
  QUIRE_RETURN_IF_ERROR(config.status());
  return fields.status();
}

absl::Status read_head_dim(const std::string& file, JsonFields& fields, ModelSpec* spec) {
  if (fields.has("head_dim")) {
    spec->head_dim = fields.integer("head_dim");
    return fields.status();
  }
  if (spec->num_heads < 1 || spec->hidden % spec->num_heads != 0) {
    return unsupported(file, "num_attention_heads ", spec->num_heads,
                       " does not divide hidden_size ", spec->hidden, ", and head_dim is absent.");
  }
  spec->head_dim = spec->hidden / spec->num_heads;
  return absl::OkStatus();
}

// Mistral (arXiv 2310.06825): a window of 4,096 unless the file names another, or null for none.
absl::Status read_window(JsonFields& fields, const Json& config, ModelSpec* spec) {
  if (spec->architecture != "mistral") return absl::OkStatus();
  const auto window = config.find("sliding_window");
  if (window != config.end() && window->is_null()) return absl::OkStatus();
  spec->window = fields.integer("sliding_window", 4096);
  return fields.status();
}

}  // namespace

absl::StatusOr<ModelSpec> read_hf_config(const std::string& file, const Json& config) {
  QUIRE_ASSIGN_OR_RETURN(const std::string architecture, read_architecture(file, config));
  JsonFields fields(file, config);
  ModelSpec spec;
  spec.architecture = architecture;
  spec.num_layers = fields.integer("num_hidden_layers");
  spec.hidden = fields.integer("hidden_size");
  spec.num_heads = fields.integer("num_attention_heads");
  spec.num_kv_heads = fields.integer("num_key_value_heads", spec.num_heads);
  spec.ffn = fields.integer("intermediate_size");
  spec.vocab = fields.integer("vocab_size");
  spec.max_positions = fields.integer("max_position_embeddings", 2048);
  spec.norm_eps = static_cast<float>(fields.real("rms_norm_eps", 1e-6));
  spec.tied_embeddings = fields.boolean("tie_word_embeddings", false);
  spec.qkv_bias = spec.out_bias = fields.boolean("attention_bias", false);
  spec.mlp_bias = fields.boolean("mlp_bias", false);
  const std::string activation = fields.text("hidden_act", "silu");
  QUIRE_RETURN_IF_ERROR(fields.status());
  if (activation == "gelu_pytorch_tanh") {
    spec.gate = Gate::kGeluTanh;
  } else if (activation != "silu") {
    return unsupported(file, "hidden_act is '", activation.substr(0, 40),
                       "'; silu and gelu_pytorch_tanh run.");
  }
  QUIRE_RETURN_IF_ERROR(read_head_dim(file, fields, &spec));
  QUIRE_RETURN_IF_ERROR(read_rope(file, fields, &spec));
  QUIRE_RETURN_IF_ERROR(read_window(fields, config, &spec));
  QUIRE_RETURN_IF_ERROR(read_hf_token_ids(file, config, &spec));
  return spec;
}

absl::StatusOr<Format> read_hf_dtype(const std::string& file, const Json& config) {
  JsonFields fields(file, config);
  const std::string name = fields.text("dtype", fields.text("torch_dtype", "bfloat16"));
  QUIRE_RETURN_IF_ERROR(fields.status());
  if (name == "bfloat16") return Format::kBf16;
  if (name == "float16") return Format::kF16;
  if (name == "float32") return Format::kF32;
  return unsupported(file, "the weights are of the type '", name.substr(0, 40),
                     "'; float32, float16 and bfloat16 are known.");
}

absl::Status read_hf_token_ids(const std::string& file, const Json& config, ModelSpec* spec) {
  JsonFields fields(file, config);
  if (fields.has("bos_token_id") && config["bos_token_id"].is_number()) {
    spec->bos = fields.integer("bos_token_id");
  }
  if (!fields.has("eos_token_id")) return fields.status();
  const Json& eos = config["eos_token_id"];
  const Json list = eos.is_array() ? eos : Json::array({eos});
  spec->eos.clear();
  for (const Json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > (1 << 30)) {
      return unsupported(file, "field 'eos_token_id' is not a token id or a list of them.");
    }
    if (std::find(spec->eos.begin(), spec->eos.end(), id.get<int>()) == spec->eos.end()) {
      spec->eos.push_back(id.get<int>());
    }
  }
  return fields.status();
}

}  // namespace quire
