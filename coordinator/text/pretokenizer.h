// Cuts a text into the pieces that a subword model encodes one by one; no token crosses a cut.
// Steps run in order, each over every piece of the one before, as in the tokenizers library.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/text/normalizer.h"
#include "coordinator/text/regex.h"

namespace quire {

// The expression of GPT-2's encoder, and of every byte-level tokenizer that names no other.
inline constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// What becomes of a match: kIsolated is a piece of its own; kRemoved vanishes; kContiguous joins
// neighbouring matches; the others join it to the text before or after it.
enum class SplitBehaviour {
  kIsolated,
  kRemoved,
  kContiguous,
  kMergedWithPrevious,
  kMergedWithNext
};

struct SplitStep {
  Regex regex;
  SplitBehaviour behaviour = SplitBehaviour::kIsolated;
  bool invert = false;  // what lies between the matches counts as the match
};

// Metaspace and ByteLevel with a prefix change the text before it is cut.
struct SpaceRule {
  enum class Prefix { kNever, kFirst, kAlways };
  std::string replacement = " ";   // of every space
  Prefix prefix = Prefix::kNever;  // put `replacement` in front where the text does not begin so
};

class PreTokenizer {
 public:
  PreTokenizer() = default;
  PreTokenizer(std::optional<SpaceRule> spaces, std::vector<SplitStep> steps)
      : spaces_(std::move(spaces)), steps_(std::move(steps)) {}

  // The text as the steps see it: `text`, or a view of `storage`. `first`: the input begins here.
  absl::string_view prepare(absl::string_view text, bool first, std::string* storage) const;
  // Replaces `pieces` by the pieces of `text`, in order, none empty.
  absl::Status split(absl::string_view text, std::vector<absl::string_view>* pieces) const;

 private:
  std::optional<SpaceRule> spaces_;
  std::vector<SplitStep> steps_;
};

// How the vocabulary of a GGUF file is to be used, by its `tokenizer.ggml.pre`.
struct GgufPre {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  bool ignore_merges = false;
};
// InvalidArgument names the unknown name and those that are known.
absl::StatusOr<GgufPre> gguf_pre(const std::string& name);

}  // namespace quire
