// The two ways a model file can be wrong, each naming the file: broken (DataLoss) or not something
// this program runs (InvalidArgument).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace quire {

template <typename... Reason>
absl::Status corrupt(const std::string& file, const Reason&... reason) {
  return absl::DataLossError(absl::StrCat(file, ": ", reason...));
}

template <typename... Reason>
absl::Status unsupported(const std::string& file, const Reason&... reason) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", reason...));
}

}  // namespace quire
