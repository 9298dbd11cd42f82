// What follows a primary expression: attributes, items, calls, filters, tests. The other half of
// ExpressionParser.
#include <algorithm>
#include <utility>

#include "coordinator/text/jinja/expression_parser.h"

namespace quire::jinja {
namespace {

using Kind = Expression::Kind;

}  // namespace

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr node) {
  while (true) {
    if (stream_.skip_operator(".")) {
      node = parse_dot(std::move(node));
    } else if (stream_.at_operator("[")) {
      node = parse_subscript(std::move(node));
    } else if (stream_.at_operator("(")) {
      node = make(Kind::kCall, std::move(node));
      parse_arguments(*node);
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::parse_filters_and_tests(ExpressionPtr node) {
  while (true) {
    if (stream_.at_operator("|")) {
      node = parse_filters(std::move(node));
    } else if (stream_.skip_name("is")) {
      node = parse_test(std::move(node));
    } else if (stream_.at_operator("(")) {
      node = make(Kind::kCall, std::move(node));
      parse_arguments(*node);
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::parse_dot(ExpressionPtr node) {
  if (stream_.at(Token::Kind::kInteger)) {
    node = make(Kind::kItem, std::move(node));
    add(*node, parse_number());
    return node;
  }
  node = make(Kind::kAttribute, std::move(node));
  node->name = stream_.expect_name("an attribute");
  return node;
}

// [item], [item, item], [begin:end:step], and [], which is the empty tuple.
ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr node) {
  stream_.expect_operator("[");
  std::vector<ExpressionPtr> items;
  while (!stream_.at_operator("]")) {
    if (!items.empty()) stream_.expect_operator(",");
    items.push_back(parse_subscript_part());
  }
  stream_.expect_operator("]");
  if (items.size() == 1 && items[0]->kind == Kind::kSlice) {
    ExpressionPtr slice = std::move(items[0]);
    slice->height = std::max(slice->height, node->height + 1);
    slice->parts[0] = std::move(node);
    return slice;
  }
  node = make(Kind::kItem, std::move(node));
  if (items.size() == 1) {
    add(*node, std::move(items[0]));
    return node;
  }
  ExpressionPtr tuple = make(Kind::kTuple);
  for (ExpressionPtr& item : items) {
    if (item->kind == Kind::kSlice && item->parts[0] == nullptr) {
      stream_.fail("a slice in a tuple of items is not supported");
    }
    add(*tuple, std::move(item));
  }
  add(*node, std::move(tuple));
  return node;
}

// One item, or a slice whose subject is not filled in yet.
ExpressionPtr ExpressionParser::parse_subscript_part() {
  ExpressionPtr begin = stream_.at_operator(":") ? nullptr : parse();
  if (!stream_.at_operator(":")) return begin;
  ExpressionPtr slice = make(Kind::kSlice);
  add(*slice, nullptr);
  add(*slice, std::move(begin));
  for (int i = 0; i < 2; ++i) {
    const bool given = stream_.skip_operator(":") && !stream_.at_operator(":") &&
                       !stream_.at_operator("]") && !stream_.at_operator(",");
    add(*slice, given ? parse() : nullptr);
  }
  return slice;
}

void ExpressionParser::parse_arguments(Expression& call) {
  stream_.expect_operator("(");
  bool first = true;
  while (!stream_.at_operator(")")) {
    if (!first) {
      stream_.expect_operator(",");
      if (stream_.at_operator(")")) break;
    }
    first = false;
    if (stream_.at_operator("*") || stream_.at_operator("**")) {
      stream_.fail("* and ** in arguments are not supported");
    }
    if (stream_.at(Token::Kind::kName) && stream_.at_operator("=", 1)) {
      std::string name = stream_.next().text;
      stream_.next();
      ExpressionPtr value = parse();
      call.height = std::max(call.height, value->height + 1);
      call.named.emplace_back(std::move(name), std::move(value));
    } else if (!call.named.empty()) {
      stream_.fail("a positional argument after a named one");
    } else {
      add(call, parse());
    }
  }
  stream_.expect_operator(")");
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr subject) {
  while (stream_.skip_operator("|")) subject = parse_filter_after_bar(std::move(subject));
  return subject;
}

ExpressionPtr ExpressionParser::parse_filter_after_bar(ExpressionPtr subject) {
  ExpressionPtr node = make(Kind::kFilter, std::move(subject));
  node->name = stream_.expect_name("a filter");
  while (stream_.skip_operator(".")) node->name += "." + stream_.expect_name("a filter");
  if (stream_.at_operator("(")) parse_arguments(*node);
  return node;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr node) {
  const bool negated = stream_.skip_name("not");
  node = make(Kind::kTest, std::move(node));
  node->name = stream_.expect_name("a test");
  if (stream_.at_operator("(")) {
    parse_arguments(*node);
  } else {
    const bool word = stream_.at(Token::Kind::kName) && !stream_.at_name("else") &&
                      !stream_.at_name("or") && !stream_.at_name("and") && !stream_.at_name("if");
    if (stream_.at_name("is")) stream_.fail("tests cannot be chained with `is`");
    if (word || stream_.at(Token::Kind::kString) || stream_.at(Token::Kind::kInteger) ||
        stream_.at(Token::Kind::kFloat) || stream_.at_operator("[") || stream_.at_operator("{")) {
      add(*node, parse_postfix(parse_primary()));
    }
  }
  return negated ? make(Kind::kNot, std::move(node)) : std::move(node);
}

}  // namespace quire::jinja
