// What programs with options of the form --NAME VALUE, described in their first lines, share.
#pragma once

#include <cstdio>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace quire::bench {

using SetOption = std::function<absl::Status(const std::string& name, const std::string& value)>;

// Calls `set` for each option in turn, until one is refused.
inline absl::Status for_each_option(int argc, char** argv, const SetOption& set) {
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) {
      return absl::InvalidArgumentError(absl::StrCat(argv[i], " needs a value."));
    }
    QUIRE_RETURN_IF_ERROR(set(argv[i], argv[i + 1]));
  }
  return absl::OkStatus();
}

inline absl::Status unknown_option(const std::string& name) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is unknown; the options are in the first lines of this program."));
}
inline absl::Status bad_value(const std::string& name, const std::string& value) {
  return absl::InvalidArgumentError(absl::StrCat(name, " cannot be \"", value, "\"."));
}

// Of a program that ended so; says why on stderr.
inline int exit_code(const absl::Status& status) {
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace quire::bench
