// What a tokenizer does to a text before cutting it: Unicode normal forms, replacements, a prefix.
// The steps run in order over each part between added tokens. Immutable.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/text/regex.h"

namespace quire {

struct NormalizerStep {
  enum class Kind { kNfc, kNfd, kNfkc, kNfkd, kLowercase, kPrepend, kReplace, kStrip };
  Kind kind;
  std::string pattern;         // kReplace: the literal text, unless `regex` is set
  std::optional<Regex> regex;  // kReplace
  std::string content;         // kReplace: the replacement; kPrepend: the prefix
  bool left = true;            // kStrip
  bool right = true;           // kStrip
};

class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}

  // The normalized text: `text` itself where nothing changes, else a view of `storage`.
  absl::StatusOr<absl::string_view> apply(absl::string_view text, std::string* storage) const;

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace quire
