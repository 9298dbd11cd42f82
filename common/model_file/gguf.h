// A GGUF file of the llama architecture as a ModelFile.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/model_file/model_file.h"

namespace quire {

// With kDummy the file may end after its headers.
absl::StatusOr<ModelFile> open_gguf(const std::string& path,
                                    LoadFormat load_format = LoadFormat::kAuto);

}  // namespace quire
