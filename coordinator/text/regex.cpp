// PCRE2 behind Regex. `\s` and `\S` become the Unicode property White_Space, because PCRE2 counts
// U+180E as white space and the tokenizers' own engines do not.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "coordinator/text/regex.h"

#include <pcre2.h>

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

std::string with_unicode_spaces(const std::string& pattern) {
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '\\' || i + 1 == pattern.size()) {
      out.push_back(pattern[i]);
      continue;
    }
    const char next = pattern[++i];
    if (next == 's') {
      out += "\\p{White_Space}";
    } else if (next == 'S') {
      out += "\\P{White_Space}";
    } else {
      out.push_back('\\');
      out.push_back(next);
    }
  }
  return out;
}

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  if (pcre2_get_error_message(code, text, sizeof(text)) < 0) return absl::StrCat("error ", code);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex() : code_(std::make_unique<Code>()) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

absl::StatusOr<Regex> Regex::compile(const std::string& pattern) {
  if (pattern.find("&&") != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the pattern \"", pattern, "\" uses a class intersection (&&), which is not supported"));
  }
  const std::string source = with_unicode_spaces(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Regex regex;
  regex.code_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (regex.code_->code == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("the pattern \"", pattern,
                                                   "\" does not compile: ", pcre2_message(error),
                                                   " at offset ", offset));
  }
  // Where the JIT is not available the interpreter gives the same matches.
  pcre2_jit_compile(regex.code_->code, PCRE2_JIT_COMPLETE);
  return regex;
}

struct Regex::Cursor::State {
  const pcre2_code* code = nullptr;
  pcre2_match_data* data = nullptr;
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { pcre2_match_data_free(data); }
};

Regex::Cursor::Cursor(const Regex& regex) : state_(std::make_unique<State>()) {
  state_->code = regex.code_->code;
  state_->data = pcre2_match_data_create(1, nullptr);
}

Regex::Cursor::~Cursor() = default;

bool Regex::Cursor::find(absl::string_view subject, std::size_t from, Match* match) {
  const int count = pcre2_match(state_->code, reinterpret_cast<PCRE2_SPTR>(subject.data()),
                                subject.size(), from, PCRE2_NO_UTF_CHECK, state_->data, nullptr);
  if (count >= 0) {
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state_->data);
    *match = {ends[0], ends[1]};
    return true;
  }
  if (count != PCRE2_ERROR_NOMATCH) {
    status_ = absl::ResourceExhaustedError(
        absl::StrCat("the text is too complicated for the tokenizer's pattern at byte ", from, ": ",
                     pcre2_message(count)));
  }
  return false;
}

}  // namespace quire
