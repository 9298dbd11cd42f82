// The safetensors container (huggingface.co/docs/safetensors): 8 bytes of header length, a JSON
// header, tensor bytes without holes or overlap.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model_file/model_file.h"

namespace quire {

struct SafetensorsFile {
  std::vector<StoredTensor> tensors;  // in file order; StoredTensor::file is left 0
  std::uint64_t hash = 0;             // of the header and the file's size
};

// `bytes` is the whole file. Errors name the file, the tensor and the reason.
absl::StatusOr<SafetensorsFile> read_safetensors(const std::string& path, absl::string_view bytes);

}  // namespace quire
