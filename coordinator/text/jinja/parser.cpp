// Statements; see parser.h.
#include "coordinator/text/jinja/parser.h"

#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/text/jinja/expression_parser.h"

namespace quire::jinja {
namespace {

using Kind = Statement::Kind;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : stream_(std::move(tokens)), expressions_(stream_) {}

  Block run() {
    Block block = parse_block({});
    if (!stream_.at(Token::Kind::kEnd)) stream_.fail_unexpected("the end of the template");
    return block;
  }

 private:
  using Words = std::initializer_list<absl::string_view>;

  Block parse_block(Words ends);
  Block parse_body(Words ends);
  Statement parse_statement();
  Statement parse_if();
  Statement parse_for();
  Statement parse_set();
  Statement parse_macro();
  Statement parse_call_block();
  Statement parse_filter_block();
  Statement parse_with();
  Statement parse_generation();
  Statement parse_loop_control(Kind kind);
  void parse_parameters(Statement& statement);
  Statement make(Kind kind) const;
  void end_block() { stream_.expect(Token::Kind::kBlockEnd, "%}"); }

  TokenStream stream_;
  ExpressionParser expressions_;
  int nesting_ = 0;
  int loops_ = 0;  // enclosing ones, within the same macro
};

Statement Parser::make(Kind kind) const {
  Statement statement;
  statement.kind = kind;
  statement.line = stream_.peek().line;
  return statement;
}

// Statements up to a block tag whose word is one of `ends`; that word is left ahead.
Block Parser::parse_block(Words ends) {
  if (++nesting_ > kMaxNesting) {
    stream_.fail(absl::StrCat("blocks are nested more than ", kMaxNesting, " deep"));
  }
  Block block;
  while (!stream_.at(Token::Kind::kEnd)) {
    if (stream_.at(Token::Kind::kText)) {
      block.push_back(make(Kind::kText));
      block.back().name = stream_.next().text;
    } else if (stream_.at(Token::Kind::kVariableBegin)) {
      stream_.next();
      block.push_back(make(Kind::kOutput));
      block.back().expression = expressions_.parse_tuple(true);
      stream_.expect(Token::Kind::kVariableEnd, "}}");
    } else {
      stream_.expect(Token::Kind::kBlockBegin, "{%");
      for (const absl::string_view end : ends) {
        if (!stream_.at_name(end)) continue;
        --nesting_;
        return block;
      }
      block.push_back(parse_statement());
    }
  }
  if (ends.size() > 0)
    stream_.fail(absl::StrCat("the template ends without {% ", *(ends.end() - 1), " %}"));
  --nesting_;
  return block;
}

// "%}", the statements, and "{% word" of their end.
Block Parser::parse_body(Words ends) {
  end_block();
  return parse_block(ends);
}

Statement Parser::parse_statement() {
  const Token& word = stream_.peek();
  if (word.kind != Token::Kind::kName) stream_.fail_unexpected("a statement");
  const std::string name = word.text;
  if (name == "if") return parse_if();
  if (name == "for") return parse_for();
  if (name == "set") return parse_set();
  if (name == "macro") return parse_macro();
  if (name == "call") return parse_call_block();
  if (name == "filter") return parse_filter_block();
  if (name == "with") return parse_with();
  if (name == "generation") return parse_generation();
  if (name == "break") return parse_loop_control(Kind::kBreak);
  if (name == "continue") return parse_loop_control(Kind::kContinue);
  stream_.fail(absl::StrCat("the statement '", name, "' is not supported here"));
}

Statement Parser::parse_if() {
  Statement statement = make(Kind::kIf);
  do {
    Statement branch = make(Kind::kBranch);
    stream_.next();
    branch.expression = expressions_.parse_tuple(false);
    branch.body = parse_body({"elif", "else", "endif"});
    statement.body.push_back(std::move(branch));
  } while (stream_.at_name("elif"));
  if (stream_.skip_name("else")) statement.otherwise = parse_body({"endif"});
  stream_.next();
  end_block();
  return statement;
}

Statement Parser::parse_for() {
  Statement statement = make(Kind::kFor);
  stream_.next();
  statement.target = expressions_.parse_target(false);
  if (!stream_.skip_name("in")) stream_.fail_unexpected("'in'");
  statement.expression = expressions_.parse_tuple(false);
  if (stream_.skip_name("if")) statement.condition = expressions_.parse();
  if (stream_.at_name("recursive")) stream_.fail("recursive loops are not supported");
  ++loops_;
  statement.body = parse_body({"else", "endfor"});
  --loops_;
  if (stream_.skip_name("else")) statement.otherwise = parse_body({"endfor"});
  stream_.next();
  end_block();
  return statement;
}

Statement Parser::parse_set() {
  Statement statement = make(Kind::kSet);
  stream_.next();
  statement.target = expressions_.parse_target(true);
  if (stream_.skip_operator("=")) {
    statement.expression = expressions_.parse_tuple(true);
    end_block();
    return statement;
  }
  statement.kind = Kind::kSetBlock;
  if (stream_.at_operator("|")) statement.expression = expressions_.parse_filters(nullptr);
  statement.body = parse_body({"endset"});
  stream_.next();
  end_block();
  return statement;
}

void Parser::parse_parameters(Statement& statement) {
  stream_.expect_operator("(");
  while (!stream_.at_operator(")")) {
    if (!statement.parameters.empty()) {
      stream_.expect_operator(",");
      if (stream_.at_operator(")")) break;
    }
    Parameter& parameter = statement.parameters.emplace_back();
    parameter.name = stream_.expect_name("a parameter");
    if (stream_.skip_operator("=")) parameter.otherwise = expressions_.parse();
  }
  stream_.expect_operator(")");
}

Statement Parser::parse_macro() {
  Statement statement = make(Kind::kMacro);
  stream_.next();
  statement.name = stream_.expect_name("the macro's name");
  parse_parameters(statement);
  const int outer_loops = std::exchange(loops_, 0);
  const bool outer_extra = std::exchange(expressions_.saw_extra, false);
  statement.body = parse_body({"endmacro"});
  statement.takes_extra = std::exchange(expressions_.saw_extra, outer_extra);
  loops_ = outer_loops;
  stream_.next();
  if (stream_.at(Token::Kind::kName)) stream_.next();  // the name again
  end_block();
  return statement;
}

Statement Parser::parse_call_block() {
  Statement statement = make(Kind::kCallBlock);
  stream_.next();
  if (stream_.at_operator("(")) parse_parameters(statement);
  statement.expression = expressions_.parse();
  if (statement.expression->kind != Expression::Kind::kCall) {
    stream_.fail("a call block needs a call");
  }
  const int outer_loops = std::exchange(loops_, 0);
  statement.body = parse_body({"endcall"});
  loops_ = outer_loops;
  stream_.next();
  end_block();
  return statement;
}

Statement Parser::parse_filter_block() {
  Statement statement = make(Kind::kFilterBlock);
  stream_.next();
  statement.expression = expressions_.parse_filters(expressions_.parse_filter_after_bar(nullptr));
  statement.body = parse_body({"endfilter"});
  stream_.next();
  end_block();
  return statement;
}

Statement Parser::parse_with() {
  Statement statement = make(Kind::kScope);
  stream_.next();
  while (!stream_.at(Token::Kind::kBlockEnd)) {
    if (!statement.parameters.empty()) stream_.expect_operator(",");
    Parameter& binding = statement.parameters.emplace_back();
    binding.name = stream_.expect_name("a name to assign to");
    stream_.expect_operator("=");
    binding.otherwise = expressions_.parse();
  }
  statement.body = parse_body({"endwith"});
  stream_.next();
  end_block();
  return statement;
}

// Hugging Face marks the assistant's text with it; rendering ignores the marks.
Statement Parser::parse_generation() {
  Statement statement = make(Kind::kScope);
  stream_.next();
  statement.body = parse_body({"endgeneration"});
  stream_.next();
  end_block();
  return statement;
}

Statement Parser::parse_loop_control(Kind kind) {
  if (loops_ == 0) stream_.fail(absl::StrCat("'", stream_.peek().text, "' outside of a loop"));
  Statement statement = make(kind);
  stream_.next();
  end_block();
  return statement;
}

std::string describe(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kEnd:
      return "the end of the template";
    case Token::Kind::kBlockEnd:
      return "'%}'";
    case Token::Kind::kVariableEnd:
      return "'}}'";
    default:
      return absl::StrCat("'", token.text, "'");
  }
}

}  // namespace

void TokenStream::fail(const std::string& reason) const {
  throw SyntaxError{peek().line, reason};
}

void TokenStream::fail_unexpected(absl::string_view wanted) const {
  fail(absl::StrCat("expected ", wanted, ", found ", describe(peek())));
}

void TokenStream::expect(Token::Kind kind, absl::string_view what) {
  if (!at(kind)) fail_unexpected(absl::StrCat("'", what, "'"));
  next();
}

void TokenStream::expect_operator(absl::string_view text) {
  if (!skip_operator(text)) fail_unexpected(absl::StrCat("'", text, "'"));
}

std::string TokenStream::expect_name(absl::string_view what) {
  if (!at(Token::Kind::kName)) fail_unexpected(what);
  return next().text;
}

Block parse_template(absl::string_view source) {
  return Parser(tokenize(source)).run();
}

}  // namespace quire::jinja
