// Reads what is inside one tag: names, numbers, strings, operators. Half of the lexer.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/text/jinja/lexer.h"

namespace quire::jinja {

class TagReader {
 public:
  explicit TagReader(absl::string_view text) : source(text) {}

  // Adds tokens up to `end` ("}}" or "%}", perhaps with a sign before it), which is left ahead.
  void read_tag(absl::string_view end);
  // Moves on by `count` bytes, counting lines.
  void advance(std::size_t count);

  absl::string_view source;
  std::size_t pos = 0;
  int line = 1;
  std::vector<Token> tokens;

 private:
  void read_token();
  void read_number();
  void read_string();
  void read_operator();
  void add(Token::Kind kind, std::size_t size);

  std::string brackets_;  // those open, as their closing counterparts
};

}  // namespace quire::jinja
