// A Hugging Face folder of the llama architecture as a ModelFile.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/model_file/model_file.h"

namespace quire {

// With kDummy a folder that holds config.json alone is enough.
absl::StatusOr<ModelFile> open_hf_folder(const std::string& path, LoadFormat load_format);

}  // namespace quire
