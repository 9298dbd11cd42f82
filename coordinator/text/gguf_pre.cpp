// The table of `tokenizer.ggml.pre` names: which expressions cut the text, and what else differs.
// A new name is a new row.
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"
#include "coordinator/text/pretokenizer.h"

namespace quire {
namespace {

constexpr char kDigit[] = R"(\p{N})";

constexpr char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr char kQwen2Pattern[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
                                 R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// As Qwen2's, with combining marks counted as letters.
constexpr char kQwen35Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
    R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct PreRow {
  const char* name;
  const char* patterns[2];  // in order; nullptr: none
  bool nfc;
  bool ignore_merges;
};

constexpr PreRow kRows[] = {
    {"default", {kGpt2Pattern, nullptr}, false, false},
    {"gpt-2", {kGpt2Pattern, nullptr}, false, false},
    {"smollm", {kDigit, kGpt2Pattern}, false, false},
    {"starcoder", {kDigit, kGpt2Pattern}, false, false},
    {"refact", {kDigit, kGpt2Pattern}, false, false},
    {"command-r", {kDigit, kGpt2Pattern}, false, false},
    {"llama-bpe", {kLlama3Pattern, nullptr}, false, true},
    {"llama3", {kLlama3Pattern, nullptr}, false, true},
    {"llama-v3", {kLlama3Pattern, nullptr}, false, true},
    {"qwen2", {kQwen2Pattern, nullptr}, true, false},
    {"deepseek-r1-qwen", {kQwen2Pattern, nullptr}, true, false},
    {"qwen35", {kQwen35Pattern, nullptr}, false, false},
};

}  // namespace

absl::StatusOr<GgufPre> gguf_pre(const std::string& name) {
  const std::string wanted = name.empty() ? "default" : name;
  std::vector<std::string> known;
  for (const PreRow& row : kRows) {
    known.push_back(row.name);
    if (wanted != row.name) continue;
    GgufPre pre;
    pre.ignore_merges = row.ignore_merges;
    if (row.nfc) {
      std::vector<NormalizerStep> steps;
      steps.push_back({NormalizerStep::Kind::kNfc, {}, {}, {}});
      pre.normalizer = Normalizer(std::move(steps));
    }
    std::vector<SplitStep> steps;
    for (const char* pattern : row.patterns) {
      if (pattern == nullptr) continue;
      QUIRE_ASSIGN_OR_RETURN(Regex regex, Regex::compile(pattern));
      steps.push_back({std::move(regex)});
    }
    pre.pre_tokenizer = PreTokenizer(std::nullopt, std::move(steps));
    return pre;
  }
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.pre is \"", name,
                                                 "\", which is not known; known are ",
                                                 absl::StrJoin(known, ", "), "."));
}

}  // namespace quire
