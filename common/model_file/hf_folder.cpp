// Which file of the folder says what: config.json the shape, generation_config.json the stop ids,
// *.safetensors the weights, tokenizer.json and tokenizer_config.json the text side. Nothing
// outside the folder is opened by a name that a file inside it gives.
#include "common/model_file/hf_folder.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "common/hash.h"
#include "common/mapped_file.h"
#include "common/model_file/file_error.h"
#include "common/model_file/hf_config.h"
#include "common/model_file/hf_quant.h"
#include "common/model_file/hf_tensors.h"
#include "common/model_file/json_file.h"
#include "common/model_file/safetensors.h"
#include "common/model_file/spec_check.h"
#include "common/model_file/tensor_check.h"
#include "common/status.h"
#include "common/utf8.h"

namespace quire {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t kMaxTokenizerBytes = 128 << 20;
constexpr const char* kEmbedding = "model.embed_tokens.weight";

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

absl::StatusOr<std::string> read_text(const fs::path& path) {
  QUIRE_ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::open(path.string()));
  if (mapped.bytes().size() > kMaxTokenizerBytes) {
    return unsupported(path.string(), "it has ", mapped.bytes().size(), " bytes; at most ",
                       kMaxTokenizerBytes, " are read.");
  }
  if (const std::size_t at = utf8::first_invalid(mapped.bytes()); at != utf8::npos) {
    return corrupt(path.string(), "it is not UTF-8 (byte ", at, ").");
  }
  return std::string(mapped.bytes());
}

// Adds one safetensors file to the model. `expected`: the names that the index puts there, or
// nullptr for a file that stands alone.
absl::Status add_file(const fs::path& path, const std::vector<std::string>* expected,
                      ModelFile* model, std::vector<StoredTensor>* stored) {
  const std::string name = path.string();
  QUIRE_ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::open(name));
  QUIRE_ASSIGN_OR_RETURN(SafetensorsFile file, read_safetensors(name, mapped.bytes()));
  if (expected != nullptr) {
    std::vector<std::string> found;
    for (const StoredTensor& tensor : file.tensors) found.push_back(tensor.name);
    std::sort(found.begin(), found.end());
    std::vector<std::string> difference;
    std::set_difference(expected->begin(), expected->end(), found.begin(), found.end(),
                        std::back_inserter(difference));
    if (!difference.empty()) {
      return corrupt(name, "tensor '", difference[0], "' is missing, which the index puts there.");
    }
    std::set_difference(found.begin(), found.end(), expected->begin(), expected->end(),
                        std::back_inserter(difference));
    if (!difference.empty()) {
      return corrupt(name, "tensor '", difference[0], "' is here, but not by the index.");
    }
  }
  for (StoredTensor& tensor : file.tensors) {
    tensor.file = static_cast<int>(model->files.size());
    stored->push_back(std::move(tensor));
  }
  model->files.push_back(name);
  model->hash = hash64(model->hash, absl::StrCat(file.hash));
  return absl::OkStatus();
}

// model.safetensors.index.json: {"weight_map": {tensor name: file name}}.
absl::Status add_shards(const fs::path& folder, const fs::path& index, ModelFile* model,
                        std::vector<StoredTensor>* stored) {
  const std::string name = index.string();
  QUIRE_ASSIGN_OR_RETURN(const Json json, read_json_object(name));
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object() || map->empty()) {
    return corrupt(name, "it has no 'weight_map' from tensors to files.");
  }
  std::map<std::string, std::vector<std::string>> shards;  // tensor names arrive sorted
  for (const auto& [tensor, file] : map->items()) {
    const std::string shard = file.is_string() ? file.get<std::string>() : "";
    if (shard != fs::path(shard).filename().string() || !absl::EndsWith(shard, ".safetensors")) {
      return corrupt(name, "tensor '", tensor, "' is put into '", shard.substr(0, 80),
                     "', which is not the plain name of a .safetensors file.");
    }
    shards[shard].push_back(tensor);
  }
  for (const auto& [shard, tensors] : shards) {
    if (!is_there(folder / shard)) {
      return absl::NotFoundError(absl::StrCat((folder / shard).string(),
                                              ": the shard is missing, which ", name, " names."));
    }
    QUIRE_RETURN_IF_ERROR(add_file(folder / shard, &tensors, model, stored));
  }
  return absl::OkStatus();
}

absl::Status read_weights(const fs::path& folder, ModelFile* model,
                          std::vector<StoredTensor>* stored) {
  if (is_there(folder / "model.safetensors")) {
    return add_file(folder / "model.safetensors", nullptr, model, stored);
  }
  const fs::path index = folder / "model.safetensors.index.json";
  if (is_there(index)) return add_shards(folder, index, model, stored);
  return absl::NotFoundError(
      absl::StrCat(folder.string(), ": there is no model.safetensors and no ",
                   "model.safetensors.index.json in this folder",
                   is_there(folder / "pytorch_model.bin")
                       ? " (convert its pytorch_model.bin to safetensors first)."
                       : "; --load-format dummy makes weights up."));
}

absl::Status read_config(const fs::path& folder, LoadFormat load_format, ModelFile* model,
                         HfQuant* quant) {
  const std::string file = (folder / "config.json").string();
  if (!is_there(file)) {
    return absl::NotFoundError(absl::StrCat(
        folder.string(), ": there is no config.json in this folder. Give a GGUF file or a ",
        "Hugging Face folder."));
  }
  QUIRE_ASSIGN_OR_RETURN(const Json config, read_json_object(file));
  QUIRE_ASSIGN_OR_RETURN(model->spec, read_hf_config(file, config));
  QUIRE_ASSIGN_OR_RETURN(*quant, read_hf_quant(file, config));
  if (quant->method != HfQuant::Method::kNone) model->quantization = quant->name;
  model->hash = hash64(model->hash, config.dump(-1, ' ', true));
  if (load_format == LoadFormat::kDummy) {
    QUIRE_ASSIGN_OR_RETURN(const Format plain, read_hf_dtype(file, config));
    const bool quantized = quant->method != HfQuant::Method::kNone;
    model->dummy = {plain, quantized ? quant->format() : plain};
    model->hash = dummy_hash(model->hash);
  }
  fs::path named = folder.lexically_normal();
  if (!named.has_filename()) named = named.parent_path();
  model->spec.name = named.filename().string();

  const fs::path generation = folder / "generation_config.json";
  if (!is_there(generation)) return absl::OkStatus();
  QUIRE_ASSIGN_OR_RETURN(const Json json, read_json_object(generation.string()));
  return read_hf_token_ids(generation.string(), json, &model->spec);
}

// "<s>", or {"content": "<s>", ...} as older files have it.
std::string special_text(const Json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_object()) return "";
  const auto content = found->find("content");
  return content != found->end() && content->is_string() ? content->get<std::string>() : "";
}

// A string, or a list of {"name", "template"} of which "default" counts.
std::string template_text(const Json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) return "";
  for (const Json& entry : *found) {
    if (entry.is_object() && entry.value("name", Json()) == "default" &&
        entry.value("template", Json()).is_string()) {
      return entry["template"].get<std::string>();
    }
  }
  return "";
}

absl::Status read_tokenizer(const fs::path& folder, ModelFile* model) {
  TokenizerData& data = model->tokenizer;
  data.bos = model->spec.bos;
  data.eos = model->spec.eos.empty() ? -1 : model->spec.eos.front();
  if (is_there(folder / "tokenizer.json")) {
    data.kind = TokenizerData::Kind::kJson;
    QUIRE_ASSIGN_OR_RETURN(data.json, read_text(folder / "tokenizer.json"));
  }
  const std::string file = (folder / "tokenizer_config.json").string();
  if (is_there(file)) {
    QUIRE_ASSIGN_OR_RETURN(const Json config, read_json_object(file));
    JsonFields fields(file, config);
    data.add_bos = fields.boolean("add_bos_token", false);
    data.add_eos = fields.boolean("add_eos_token", false);
    QUIRE_RETURN_IF_ERROR(fields.status());
    data.bos_text = special_text(config, "bos_token");
    data.eos_text = special_text(config, "eos_token");
    data.unk_text = special_text(config, "unk_token");
    data.pad_text = special_text(config, "pad_token");
    model->chat_template = template_text(config);
  }
  if (is_there(folder / "chat_template.jinja")) {
    QUIRE_ASSIGN_OR_RETURN(model->chat_template, read_text(folder / "chat_template.jinja"));
  }
  return check_tokenizer(folder.string(), *model);
}

absl::Status check_head(const fs::path& folder, const ModelFile& model) {
  if (model.spec.tied_embeddings || model.find("lm_head.weight") != nullptr) {
    return absl::OkStatus();
  }
  return corrupt(folder.string(),
                 "tensor 'lm_head.weight' is missing, and config.json does not say ",
                 "'tie_word_embeddings': true.");
}

}  // namespace

absl::StatusOr<ModelFile> open_hf_folder(const std::string& path, LoadFormat load_format) {
  const fs::path folder(path);
  ModelFile model;
  model.path = path;
  HfQuant quant;
  QUIRE_RETURN_IF_ERROR(read_config(folder, load_format, &model, &quant));
  QUIRE_RETURN_IF_ERROR(check_spec((folder / "config.json").string(), model.spec));
  if (load_format != LoadFormat::kDummy) {
    std::vector<StoredTensor> stored;
    QUIRE_RETURN_IF_ERROR(read_weights(folder, &model, &stored));
    QUIRE_RETURN_IF_ERROR(resolve_tensors(quant, stored, &model));
    QUIRE_RETURN_IF_ERROR(check_embedding(path, model, kEmbedding));
    QUIRE_RETURN_IF_ERROR(check_head(folder, model));
  }
  QUIRE_RETURN_IF_ERROR(read_tokenizer(folder, &model));
  return model;
}

}  // namespace quire
