// A Hugging Face folder of the llama architecture as a ModelFile.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/model_file/model_file.h"

namespace quire {

absl::StatusOr<ModelFile> open_hf_folder(const std::string& path);

}  // namespace quire
