// A fingerprint of the weights themselves. ModelFile::hash is of headers: two fine-tunings of one
// model share it, and what one has computed must not be taken for the other's.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/model_file/model_file.h"

namespace quire {

// Over every page of files of up to 256 MB in all; of larger ones over pages at even distances, as
// many as that. 0 for a model without files (made-up weights).
absl::StatusOr<std::uint64_t> content_digest(const ModelFile& file);

}  // namespace quire
