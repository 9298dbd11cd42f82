// Streams token ids to text without ever cutting a UTF-8 character: incomplete bytes wait for the
// next token. Invalid bytes become U+FFFD.
#pragma once

#include <string>

#include "coordinator/text/tokenizer.h"

namespace quire {

class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, bool skip_special);
  std::string push(TokenId id);  // the text that is now certain
  std::string finish();          // what was held back

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  bool first_ = true;
  std::string pending_;
};

}  // namespace quire
