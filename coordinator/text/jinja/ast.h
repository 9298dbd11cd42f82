// The parsed template. One struct per kind of tree, with the layout of each kind in its comment:
// the interpreter is the only reader.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/text/jinja/value.h"

namespace quire::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    kConstant,     // value
    kName,         // name
    kList,         // parts: the items
    kTuple,        // parts: the items
    kDict,         // parts: key, value, key, value ...
    kAttribute,    // parts[0].name
    kItem,         // parts[0][parts[1]]
    kSlice,        // parts[0][parts[1]:parts[2]:parts[3]], each of the last three may be null
    kCall,         // parts[0](parts[1..], named)
    kFilter,       // parts[0] | name(parts[1..], named); parts[0] null: the text of a block
    kTest,         // parts[0] is name(parts[1..], named)
    kNot,          // not parts[0]
    kNegative,     // -parts[0]
    kPositive,     // +parts[0]
    kArithmetic,   // parts[0] operators[0] parts[1] operators[1] parts[2] ..., left to right
    kConcat,       // parts joined as text
    kAnd,          // parts
    kOr,           // parts
    kCompare,      // as kArithmetic, all comparisons must hold; "in", "not in" are operators too
    kConditional,  // parts[0] if parts[1] else parts[2] (null: undefined)
  };
  Kind kind = Kind::kConstant;
  int line = 1;
  int height = 1;  // of the tree, at most 2 * kMaxNesting
  Value value;
  std::string name;
  std::vector<ExpressionPtr> parts;
  std::vector<std::string> operators;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

struct Statement;
using Block = std::vector<Statement>;

// A parameter of a macro or call block; `otherwise` is null where it has no default.
struct Parameter {
  std::string name;
  ExpressionPtr otherwise;
};

struct Statement {
  enum class Kind {
    kText,         // name: the text
    kOutput,       // expression
    kIf,           // body: its branches, the first that holds is run; otherwise
    kBranch,       // expression, body
    kFor,          // for target in expression if condition: body; otherwise: when there was no item
    kSet,          // target = expression
    kSetBlock,     // target = body, through the filters in expression (may be null)
    kMacro,        // name(parameters): body
    kCallBlock,    // expression is the call; caller(parameters): body
    kFilterBlock,  // expression over body
    kScope,        // body in a scope of its own, after its bindings (with, generation)
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  int line = 1;
  std::string name;
  ExpressionPtr expression;
  ExpressionPtr target;  // a kName, a kTuple of targets, or a kAttribute of a name
  ExpressionPtr condition;
  std::vector<Parameter> parameters;  // kScope: its bindings
  bool takes_extra = false;           // kMacro: its body uses varargs or kwargs
  Block body;
  Block otherwise;
};

}  // namespace quire::jinja
