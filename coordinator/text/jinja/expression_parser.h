// Expressions, with Jinja's precedence: conditional, or, and, not, comparison, + -, ~, * / // %,
// **, unary signs, then postfixes (. [] () | is).
#pragma once

#include <string>
#include <vector>

#include "coordinator/text/jinja/ast.h"
#include "coordinator/text/jinja/parser.h"

namespace quire::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& stream) : stream_(stream) {}

  ExpressionPtr parse();
  // An expression, or a tuple without parentheses. `conditional`: a top-level `if` belongs to it.
  ExpressionPtr parse_tuple(bool conditional);
  // What stands left of `in` or `=`: names, tuples of names, name.attribute where allowed.
  ExpressionPtr parse_target(bool attributes);
  // ( arguments ), for the call's node.
  void parse_arguments(Expression& call);
  // The filters after a `|` that is ahead, over `subject` (null in a filter block).
  ExpressionPtr parse_filters(ExpressionPtr subject);
  ExpressionPtr parse_filter_after_bar(ExpressionPtr subject);

  // Whether `varargs` or `kwargs` were read since it was last cleared.
  bool saw_extra = false;

 private:
  ExpressionPtr parse_conditional();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filters);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_name();
  ExpressionPtr parse_number();
  ExpressionPtr parse_parenthesis();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr node);
  ExpressionPtr parse_filters_and_tests(ExpressionPtr node);
  ExpressionPtr parse_dot(ExpressionPtr node);
  ExpressionPtr parse_subscript(ExpressionPtr node);
  ExpressionPtr parse_subscript_part();
  ExpressionPtr parse_test(ExpressionPtr node);
  ExpressionPtr parse_chain(Expression::Kind kind, const std::vector<std::string>& operators,
                            ExpressionPtr (ExpressionParser::*operand)());
  ExpressionPtr parse_words(Expression::Kind kind, const char* word,
                            ExpressionPtr (ExpressionParser::*operand)());
  bool at_tuple_end() const;

  ExpressionPtr make(Expression::Kind kind) const;
  ExpressionPtr make(Expression::Kind kind, ExpressionPtr first) const;
  void add(Expression& node, ExpressionPtr part) const;

  TokenStream& stream_;
  int nesting_ = 0;
};

}  // namespace quire::jinja
