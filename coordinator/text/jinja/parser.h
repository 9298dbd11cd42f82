// Template source to tree. Everything that a template asks for and that is not supported is found
// here, with its line, before anything is rendered; recursion is bounded by kMaxNesting.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/text/jinja/ast.h"
#include "coordinator/text/jinja/lexer.h"

namespace quire::jinja {

// Throws SyntaxError.
Block parse_template(absl::string_view source);

// Shared by the parser's two halves: the tokens with a place in them.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& next() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool at(Token::Kind kind) const { return peek().kind == kind; }
  bool at_operator(absl::string_view text, std::size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::kOperator && peek(ahead).text == text;
  }
  bool at_name(absl::string_view text, std::size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::kName && peek(ahead).text == text;
  }
  bool skip_operator(absl::string_view text) { return at_operator(text) && (next(), true); }
  bool skip_name(absl::string_view text) { return at_name(text) && (next(), true); }
  void expect_operator(absl::string_view text);
  std::string expect_name(absl::string_view what);
  void expect(Token::Kind kind, absl::string_view what);
  [[noreturn]] void fail(const std::string& reason) const;
  [[noreturn]] void fail_unexpected(absl::string_view wanted) const;

 private:
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
};

}  // namespace quire::jinja
