// A GGUF checkpoint written again as a Hugging Face folder in bf16: every tensor decoded exactly,
// rounded to bf16, the rows of queries and keys put back into rotate-half order.
#pragma once

#include <filesystem>

#include "absl/status/status.h"

namespace quire::test {

// Writes config.json and model.safetensors into `folder` (made if needed). Llama only; no
// tokenizer.
absl::Status write_bf16_hf(const std::filesystem::path& gguf, const std::filesystem::path& folder);

}  // namespace quire::test
