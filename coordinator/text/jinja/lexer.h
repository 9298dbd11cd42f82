// Cuts a template into tokens, with white space treated as Hugging Face's environment does:
// trim_blocks, lstrip_blocks, the signs of {%- -%} {%+ +%}, raw blocks, one newline at the very end
// dropped.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace quire::jinja {

struct Token {
  enum class Kind {
    kText,           // text outside of tags
    kBlockBegin,     // {%
    kBlockEnd,       // %}
    kVariableBegin,  // {{
    kVariableEnd,    // }}
    kName,
    kString,    // the value, escapes resolved
    kInteger,   // its digits as written
    kFloat,     // its digits as written
    kOperator,  // punctuation, as written
    kEnd
  };
  Kind kind = Kind::kEnd;
  std::string text;
  int line = 1;
};

// A failure of reading a template, with the line it is on.
struct SyntaxError {
  int line;
  std::string reason;
};

// Throws SyntaxError.
std::vector<Token> tokenize(absl::string_view source);

}  // namespace quire::jinja
