#include <filesystem>

#include "common/hash.h"
#include "common/model_file/file_error.h"
#include "common/model_file/gguf.h"
#include "common/model_file/hf_folder.h"
#include "common/model_file/model_file.h"

namespace quire {

// A linear scan: callers look up each of a model's tensors once.
const TensorInfo* ModelFile::find(const std::string& name) const {
  for (const TensorInfo& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

std::uint64_t ModelFile::total_bytes() const {
  std::uint64_t total = 0;
  for (const TensorInfo& tensor : tensors) total += tensor.bytes;
  return total;
}

std::uint64_t dummy_hash(std::uint64_t config) {
  constexpr std::uint64_t kRule = 1;  // raised when the rule that makes the values changes
  return hash64(config ^ kRule, "made-up weights");
}

absl::StatusOr<ModelFile> open_model(const std::string& path, LoadFormat load_format) {
  std::error_code error;
  const std::filesystem::file_status info = std::filesystem::status(path, error);
  if (!std::filesystem::exists(info)) {
    return absl::NotFoundError(absl::StrCat(
        "There is no model at '", path,
        "'. Give a GGUF file or a Hugging Face folder (with config.json", " and *.safetensors)."));
  }
  if (std::filesystem::is_directory(info)) return open_hf_folder(path, load_format);
  if (!std::filesystem::is_regular_file(info)) {
    return unsupported(path, "it is neither a file nor a folder.");
  }
  if (std::filesystem::path(path).extension() == ".safetensors") {
    return unsupported(path, "give the folder that holds this file and its config.json.");
  }
  return open_gguf(path, load_format);
}

}  // namespace quire
