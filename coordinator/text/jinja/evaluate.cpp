// Expressions: names, attributes, calls, operators, filters, tests. The other half of Interpreter.
#include <utility>

#include "coordinator/text/jinja/builtins.h"
#include "coordinator/text/jinja/frame.h"
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/text_form.h"

namespace quire::jinja {

using Kind = Expression::Kind;

Value Interpreter::eval(const Expression& e) {
  const Frame frame(frames_);
  budget_.steps();
  switch (e.kind) {
    case Kind::kConstant:
      return e.value;
    case Kind::kName:
      return eval_name(e);
    case Kind::kList:
      return Value::list(eval_all(e));
    case Kind::kTuple:
      return Value::tuple(eval_all(e));
    case Kind::kDict:
      return eval_dict(e);
    case Kind::kAttribute:
      return attribute(eval(*e.parts[0]), e.name);
    case Kind::kItem: {
      const Value value = eval(*e.parts[0]);
      return item(value, eval(*e.parts[1]));
    }
    case Kind::kSlice: {
      const Value value = eval(*e.parts[0]);
      const Value begin = eval_optional(e.parts[1]);
      const Value end = eval_optional(e.parts[2]);
      return get_slice(budget_, value, begin, end, eval_optional(e.parts[3]));
    }
    case Kind::kCall:
      return eval_call(e);
    case Kind::kFilter:
      return eval_filters(&e, Value());
    case Kind::kTest: {
      const Value subject = eval(*e.parts[0]);
      return Value(test(e.name, subject, eval_arguments(e)));
    }
    case Kind::kNot:
      return Value(!eval(*e.parts[0]).truthy());
    case Kind::kNegative:
      return negative(eval(*e.parts[0]));
    case Kind::kPositive:
      return arithmetic(budget_, "+", Value(std::int64_t{0}), eval(*e.parts[0]));
    case Kind::kArithmetic:
      return eval_arithmetic(e);
    case Kind::kConcat:
      return eval_concat(e);
    case Kind::kAnd:
    case Kind::kOr:
      return eval_logic(e);
    case Kind::kCompare:
      return eval_compare(e);
    case Kind::kConditional:
      break;
  }
  if (eval(*e.parts[1]).truthy()) return eval(*e.parts[0]);
  return e.parts[2] != nullptr
             ? eval(*e.parts[2])
             : Value::undefined("the conditional expression has no else and its test was false");
}

std::vector<Value> Interpreter::eval_all(const Expression& e) {
  std::vector<Value> values;
  values.reserve(e.parts.size());
  for (const ExpressionPtr& part : e.parts) values.push_back(eval(*part));
  return values;
}

Value Interpreter::eval_name(const Expression& e) {
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->outer.get()) {
    const auto it = scope->names.find(e.name);
    if (it != scope->names.end()) return it->second;
  }
  return Value::undefined(absl::StrCat("'", e.name, "' is undefined"));
}

Value Interpreter::eval_dict(const Expression& e) {
  auto dict = std::make_shared<Dict>();
  for (std::size_t i = 0; i + 1 < e.parts.size(); i += 2) {
    Value key = eval(*e.parts[i]);
    dict->set(std::move(key), eval(*e.parts[i + 1]));
  }
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

Value Interpreter::eval_arithmetic(const Expression& e) {
  Value result = eval(*e.parts[0]);
  for (std::size_t i = 1; i < e.parts.size(); ++i) {
    result = arithmetic(budget_, e.operators[i - 1], result, eval(*e.parts[i]));
  }
  return result;
}

Value Interpreter::eval_concat(const Expression& e) {
  std::string text;
  for (const ExpressionPtr& part : e.parts) {
    text += to_text(budget_, eval(*part));
    budget_.text(text.size());
  }
  return Value(std::move(text));
}

Value Interpreter::eval_logic(const Expression& e) {
  const bool stop_at = e.kind == Kind::kOr;
  Value value;
  for (const ExpressionPtr& part : e.parts) {
    value = eval(*part);
    if (value.truthy() == stop_at) break;
  }
  return value;
}

Value Interpreter::eval_compare(const Expression& e) {
  Value left = eval(*e.parts[0]);
  for (std::size_t i = 1; i < e.parts.size(); ++i) {
    Value right = eval(*e.parts[i]);
    if (!compare(budget_, e.operators[i - 1], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Arguments Interpreter::eval_arguments(const Expression& e) {
  Arguments arguments;
  for (std::size_t i = 1; i < e.parts.size(); ++i)
    arguments.positional.push_back(eval(*e.parts[i]));
  for (const auto& [name, value] : e.named) arguments.named.emplace_back(name, eval(*value));
  return arguments;
}

Value Interpreter::eval_call(const Expression& e) {
  const Expression& callee = *e.parts[0];
  if (callee.kind != Kind::kAttribute) {
    const Value function = eval(callee);
    const Arguments arguments = eval_arguments(e);
    line_ = e.line;
    return call(function, arguments);
  }
  const Value object = eval(*callee.parts[0]);
  if (object.is_undefined()) fail(object.undefined_reason());
  const Function method = find_method(object, callee.name);
  if (method == nullptr) {
    const Value function = attribute(object, callee.name);
    return call(function, eval_arguments(e));
  }
  return method(*this, object, eval_arguments(e));
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) fail(callee.undefined_reason());
  const auto callable = callee.callable();
  if (callable == nullptr) fail("'", callee.type_name(), "' object is not callable");
  return callable->run(*this, arguments);
}

// A chain of filters, innermost first; the innermost subject may be the text of a block.
Value Interpreter::eval_filters(const Expression* e, const Value& block_text) {
  if (e == nullptr) return block_text;
  const bool inner_filter = e->parts[0] != nullptr && e->parts[0]->kind == Kind::kFilter;
  const Frame frame(frames_);
  const Value subject = e->parts[0] == nullptr ? block_text
                        : inner_filter         ? eval_filters(e->parts[0].get(), block_text)
                                               : eval(*e->parts[0]);
  const Arguments arguments = eval_arguments(*e);
  line_ = e->line;
  return filter(e->name, subject, arguments);
}

Value Interpreter::filter(absl::string_view name, const Value& subject,
                          const Arguments& arguments) {
  const Function function = find_filter(name);
  if (function == nullptr) fail("there is no filter named '", name, "'");
  return function(*this, subject, arguments);
}

bool Interpreter::test(absl::string_view name, const Value& subject, const Arguments& arguments) {
  const Function function = find_test(name);
  if (function == nullptr) fail("there is no test named '", name, "'");
  return function(*this, subject, arguments).truthy();
}

// value.name: a method, an attribute, then an item.
Value Interpreter::attribute(const Value& value, const std::string& name) {
  if (value.is_undefined()) fail(value.undefined_reason());
  if (const auto name_space = value.name_space()) {
    const auto it = name_space->attributes.find(name);
    if (it != name_space->attributes.end()) return it->second;
  } else if (const LoopState* loop = value.loop()) {
    return loop_attribute(*loop, name);
  } else if (const Function method = find_method(value, name)) {
    return Value::function(
        name,
        [method, value](Interpreter& interpreter, const Arguments& arguments) {
          return method(interpreter, value, arguments);
        },
        nesting_over(value.nesting()));
  }
  return get_item(budget_, value, Value(name));
}

// value[key]: an item, then an attribute.
Value Interpreter::item(const Value& value, const Value& key) {
  if (value.is_undefined()) fail(value.undefined_reason());
  if (!key.is_string() || (value.dict() != nullptr && value.dict()->find(key) != nullptr)) {
    return get_item(budget_, value, key);
  }
  return attribute(value, key.string());
}

Value Interpreter::loop_attribute(const LoopState& loop, const std::string& name) {
  const std::size_t size = loop.items->size();
  if (name == "index") return Value::integer(loop.index + 1);
  if (name == "index0") return Value::integer(loop.index);
  if (name == "revindex") return Value::integer(size - loop.index);
  if (name == "revindex0") return Value::integer(size - loop.index - 1);
  if (name == "first") return Value(loop.index == 0);
  if (name == "last") return Value(loop.index + 1 == size);
  if (name == "length") return Value::integer(size);
  if (name == "depth") return Value(static_cast<std::int64_t>(loop.depth));
  if (name == "depth0") return Value(static_cast<std::int64_t>(loop.depth - 1));
  if (name == "previtem") {
    return loop.index > 0 ? (*loop.items)[loop.index - 1]
                          : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return loop.index + 1 < size ? (*loop.items)[loop.index + 1]
                                 : Value::undefined("there is no next item");
  }
  if (name == "cycle") {
    return Value::function("cycle", [i = loop.index](Interpreter&, const Arguments& arguments) {
      if (arguments.positional.empty()) fail("no items for cycling given");
      return arguments.positional[i % arguments.positional.size()];
    });
  }
  return Value::undefined(absl::StrCat("'loop' has no attribute '", name, "'"));
}

}  // namespace quire::jinja
