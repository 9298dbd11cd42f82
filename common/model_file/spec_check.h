// The sanity of a ModelSpec, whatever it was read from: every number in a range that the rest of
// the program can compute with (no division by zero, no overflow of int).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "common/model_file/model_file.h"

namespace quire {

// InvalidArgument naming the file, the field, its value and what is allowed. `where` is the file
// that the numbers came from.
absl::Status check_spec(const std::string& where, const ModelSpec& spec);

// The embedding `name` must exist and be [V, E].
absl::Status check_embedding(const std::string& where, const ModelFile& model,
                             const std::string& name);

// Token ids (bos, eos, the tokenizer's) must lie inside the vocabulary, and per-token lists must
// have one length.
absl::Status check_tokenizer(const std::string& where, const ModelFile& model);

}  // namespace quire
