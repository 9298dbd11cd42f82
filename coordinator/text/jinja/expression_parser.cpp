// Recursive descent over expressions; see expression_parser.h. Chains of one precedence become one
// flat node, so that only parentheses, signs and postfixes make a tree deep.
#include "coordinator/text/jinja/expression_parser.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::jinja {
namespace {

using Kind = Expression::Kind;

}  // namespace

ExpressionPtr ExpressionParser::make(Kind kind) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = stream_.peek().line;
  return node;
}

ExpressionPtr ExpressionParser::make(Kind kind, ExpressionPtr first) const {
  ExpressionPtr node = make(kind);
  add(*node, std::move(first));
  return node;
}

void ExpressionParser::add(Expression& node, ExpressionPtr part) const {
  if (part != nullptr) node.height = std::max(node.height, part->height + 1);
  if (node.height > 2 * kMaxNesting) {
    stream_.fail(absl::StrCat("the expression is nested more than ", 2 * kMaxNesting, " deep"));
  }
  node.parts.push_back(std::move(part));
}

ExpressionPtr ExpressionParser::parse() {
  return parse_conditional();
}

ExpressionPtr ExpressionParser::parse_conditional() {
  if (++nesting_ > kMaxNesting) {
    stream_.fail(absl::StrCat("the expression is nested more than ", kMaxNesting, " deep"));
  }
  ExpressionPtr node = parse_or();
  while (stream_.skip_name("if")) {
    node = make(Kind::kConditional, std::move(node));
    add(*node, parse_or());
    add(*node, stream_.skip_name("else") ? parse_conditional() : nullptr);
  }
  --nesting_;
  return node;
}

ExpressionPtr ExpressionParser::parse_words(Kind kind, const char* word,
                                            ExpressionPtr (ExpressionParser::*operand)()) {
  ExpressionPtr first = (this->*operand)();
  if (!stream_.at_name(word)) return first;
  ExpressionPtr node = make(kind, std::move(first));
  while (stream_.skip_name(word)) add(*node, (this->*operand)());
  return node;
}

ExpressionPtr ExpressionParser::parse_or() {
  return parse_words(Kind::kOr, "or", &ExpressionParser::parse_and);
}

ExpressionPtr ExpressionParser::parse_and() {
  return parse_words(Kind::kAnd, "and", &ExpressionParser::parse_not);
}

ExpressionPtr ExpressionParser::parse_not() {
  int count = 0;
  while (stream_.skip_name("not")) ++count;
  ExpressionPtr node = parse_compare();
  if (count == 0) return node;
  node = make(Kind::kNot, std::move(node));
  return count % 2 == 1 ? std::move(node) : make(Kind::kNot, std::move(node));
}

ExpressionPtr ExpressionParser::parse_compare() {
  static constexpr const char* kOperators[] = {"==", "!=", "<=", ">=", "<", ">"};
  ExpressionPtr first = parse_sum();
  ExpressionPtr node;
  while (true) {
    std::string op;
    if (stream_.at_name("in")) {
      op = "in";
    } else if (stream_.at_name("not") && stream_.at_name("in", 1)) {
      stream_.next();
      op = "not in";
    }
    for (const char* candidate : kOperators) {
      if (stream_.at_operator(candidate)) op = candidate;
    }
    if (op.empty()) return node != nullptr ? std::move(node) : std::move(first);
    stream_.next();
    if (node == nullptr) node = make(Kind::kCompare, std::move(first));
    node->operators.push_back(op);
    add(*node, parse_sum());
  }
}

ExpressionPtr ExpressionParser::parse_chain(Kind kind, const std::vector<std::string>& operators,
                                            ExpressionPtr (ExpressionParser::*operand)()) {
  ExpressionPtr first = (this->*operand)();
  ExpressionPtr node;
  while (true) {
    const auto op = std::find_if(operators.begin(), operators.end(),
                                 [&](const std::string& o) { return stream_.at_operator(o); });
    if (op == operators.end()) return node != nullptr ? std::move(node) : std::move(first);
    stream_.next();
    if (node == nullptr) node = make(kind, std::move(first));
    node->operators.push_back(*op);
    add(*node, (this->*operand)());
  }
}

ExpressionPtr ExpressionParser::parse_sum() {
  return parse_chain(Kind::kArithmetic, {"+", "-"}, &ExpressionParser::parse_concat);
}

ExpressionPtr ExpressionParser::parse_concat() {
  return parse_chain(Kind::kConcat, {"~"}, &ExpressionParser::parse_product);
}

ExpressionPtr ExpressionParser::parse_product() {
  return parse_chain(Kind::kArithmetic, {"*", "/", "//", "%"}, &ExpressionParser::parse_power);
}

ExpressionPtr ExpressionParser::parse_power() {
  ExpressionPtr node = parse_unary(true);
  while (stream_.skip_operator("**")) {
    node = make(Kind::kArithmetic, std::move(node));
    node->operators.push_back("**");
    add(*node, parse_unary(true));
  }
  return node;
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filters) {
  ExpressionPtr node;
  if (stream_.at_operator("-") || stream_.at_operator("+")) {
    if (++nesting_ > kMaxNesting) stream_.fail("too many signs in a row");
    const Kind kind = stream_.next().text == "-" ? Kind::kNegative : Kind::kPositive;
    ExpressionPtr operand = parse_unary(false);
    node = make(kind, std::move(operand));
    --nesting_;
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filters ? parse_filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::parse_primary() {
  switch (stream_.peek().kind) {
    case Token::Kind::kName:
      return parse_name();
    case Token::Kind::kInteger:
    case Token::Kind::kFloat:
      return parse_number();
    case Token::Kind::kString: {
      ExpressionPtr node = make(Kind::kConstant);
      std::string text;
      while (stream_.at(Token::Kind::kString)) text += stream_.next().text;
      node->value = Value(std::move(text));
      return node;
    }
    default:
      break;
  }
  if (stream_.at_operator("(")) return parse_parenthesis();
  if (stream_.at_operator("[")) return parse_list();
  if (stream_.at_operator("{")) return parse_dict();
  stream_.fail_unexpected("an expression");
}

ExpressionPtr ExpressionParser::parse_name() {
  ExpressionPtr node = make(Kind::kConstant);
  const std::string name = stream_.next().text;
  if (name == "true" || name == "True") {
    node->value = Value(true);
  } else if (name == "false" || name == "False") {
    node->value = Value(false);
  } else if (name == "none" || name == "None") {
    node->value = Value::none();
  } else {
    node->kind = Kind::kName;
    node->name = name;
    if (name == "varargs" || name == "kwargs") saw_extra = true;
  }
  return node;
}

ExpressionPtr ExpressionParser::parse_number() {
  ExpressionPtr node = make(Kind::kConstant);
  const Token& token = stream_.peek();
  std::string digits = token.text;
  digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
  char* end = nullptr;
  errno = 0;
  if (token.kind == Token::Kind::kFloat) {
    node->value = Value(std::strtod(digits.c_str(), &end));
  } else {
    int base = 10;
    if (digits.size() > 2 && digits[0] == '0') {
      const char letter = digits[1];
      base = letter == 'x' || letter == 'X'   ? 16
             : letter == 'o' || letter == 'O' ? 8
             : letter == 'b' || letter == 'B' ? 2
                                              : 10;
    }
    const char* begin = digits.c_str() + (base == 10 ? 0 : 2);
    node->value = Value(static_cast<std::int64_t>(std::strtoll(begin, &end, base)));
  }
  if (errno != 0 || *end != '\0')
    stream_.fail(absl::StrCat("the number ", token.text, " is out of range"));
  stream_.next();
  return node;
}

ExpressionPtr ExpressionParser::parse_parenthesis() {
  stream_.expect_operator("(");
  if (stream_.skip_operator(")")) return make(Kind::kTuple);
  ExpressionPtr node = parse_tuple(true);
  stream_.expect_operator(")");
  return node;
}

ExpressionPtr ExpressionParser::parse_list() {
  ExpressionPtr node = make(Kind::kList);
  stream_.expect_operator("[");
  while (!stream_.at_operator("]")) {
    if (!node->parts.empty()) {
      stream_.expect_operator(",");
      if (stream_.at_operator("]")) break;
    }
    add(*node, parse());
  }
  stream_.expect_operator("]");
  return node;
}

ExpressionPtr ExpressionParser::parse_dict() {
  ExpressionPtr node = make(Kind::kDict);
  stream_.expect_operator("{");
  while (!stream_.at_operator("}")) {
    if (!node->parts.empty()) {
      stream_.expect_operator(",");
      if (stream_.at_operator("}")) break;
    }
    add(*node, parse());
    stream_.expect_operator(":");
    add(*node, parse());
  }
  stream_.expect_operator("}");
  return node;
}

bool ExpressionParser::at_tuple_end() const {
  return stream_.at(Token::Kind::kVariableEnd) || stream_.at(Token::Kind::kBlockEnd) ||
         stream_.at_operator(")") || stream_.at_operator("]") || stream_.at_name("if") ||
         stream_.at_name("recursive");
}

ExpressionPtr ExpressionParser::parse_tuple(bool conditional) {
  ExpressionPtr first = conditional ? parse() : parse_or();
  if (!stream_.at_operator(",")) return first;
  ExpressionPtr node = make(Kind::kTuple, std::move(first));
  while (stream_.skip_operator(",")) {
    if (at_tuple_end()) break;
    add(*node, conditional ? parse() : parse_or());
  }
  return node;
}

ExpressionPtr ExpressionParser::parse_target(bool attributes) {
  const auto one = [&]() -> ExpressionPtr {
    if (stream_.skip_operator("(")) {
      if (++nesting_ > kMaxNesting) stream_.fail("the target is nested too deep");
      ExpressionPtr inner = parse_target(false);
      --nesting_;
      stream_.expect_operator(")");
      return inner;
    }
    ExpressionPtr name = make(Kind::kName);
    name->name = stream_.expect_name("a name to assign to");
    if (!attributes || !stream_.skip_operator(".")) return name;
    ExpressionPtr attribute = make(Kind::kAttribute, std::move(name));
    attribute->name = stream_.expect_name("an attribute to assign to");
    return attribute;
  };
  ExpressionPtr first = one();
  if (!stream_.at_operator(",")) return first;
  ExpressionPtr node = make(Kind::kTuple, std::move(first));
  while (stream_.skip_operator(",")) {
    if (!stream_.at(Token::Kind::kName) && !stream_.at_operator("(")) break;
    if (stream_.at_name("in")) break;
    add(*node, one());
  }
  return node;
}

}  // namespace quire::jinja
