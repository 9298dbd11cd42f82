// What can stand after `is`.
#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/filter_tables.h"
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/strings.h"

namespace quire::jinja {
namespace {

template <bool (*Holds)(const Value&)>
Value is_kind(Interpreter&, const Value& subject, const Arguments& arguments) {
  ArgumentReader("test", arguments).finish();
  return Value(Holds(subject));
}

bool is_defined(const Value& v) {
  return !v.is_undefined();
}
bool is_undefined(const Value& v) {
  return v.is_undefined();
}
bool is_none(const Value& v) {
  return v.is_none();
}
bool is_boolean(const Value& v) {
  return v.is<bool>();
}
bool is_true(const Value& v) {
  return v.is<bool>() && v.truthy();
}
bool is_false(const Value& v) {
  return v.is<bool>() && !v.truthy();
}
bool is_integer(const Value& v) {
  return v.is<std::int64_t>();
}
bool is_float(const Value& v) {
  return v.is<double>();
}
bool is_number(const Value& v) {
  return v.is_number();
}
bool is_string(const Value& v) {
  return v.is_string();
}
bool is_mapping(const Value& v) {
  return v.dict() != nullptr;
}
bool is_callable(const Value& v) {
  return v.callable() != nullptr;
}
bool is_iterable(const Value& v) {
  return v.is_undefined() || v.is_string() || v.dict() != nullptr || v.sequence() != nullptr;
}
// Python's notion: it has a length and items.
bool is_sequence(const Value& v) {
  return v.is_undefined() || v.is_string() || v.dict() != nullptr ||
         (v.sequence() != nullptr && v.sequence()->indexed());
}

template <CharacterKind Kind>
Value is_case(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("test", arguments).finish();
  return Value(all_of_kind(to_text(in.budget(), subject), Kind));
}

Value divisible(const Value& subject, const Value& divisor, std::int64_t rest) {
  if (!subject.is_integral() || !divisor.is_integral()) fail("the test wants integers");
  if (divisor.as_integer() == 0) fail("division by zero");
  if (divisor.as_integer() == -1) return Value(rest == 0);
  const std::int64_t remainder = subject.as_integer() % divisor.as_integer();
  return Value((remainder < 0 ? -remainder : remainder) == rest);
}

template <int Rest>
Value is_parity(Interpreter&, const Value& subject, const Arguments& arguments) {
  ArgumentReader("test", arguments).finish();
  return divisible(subject, Value(std::int64_t{2}), Rest);
}

Value is_divisible_by(Interpreter&, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("divisibleby", arguments);
  const Value divisor = reader.required("num");
  reader.finish();
  return divisible(subject, divisor, 0);
}

struct Equals {
  static constexpr const char* kOp = "==";
};
struct Differs {
  static constexpr const char* kOp = "!=";
};
struct Less {
  static constexpr const char* kOp = "<";
};
struct LessOrEqual {
  static constexpr const char* kOp = "<=";
};
struct Greater {
  static constexpr const char* kOp = ">";
};
struct GreaterOrEqual {
  static constexpr const char* kOp = ">=";
};
struct In {
  static constexpr const char* kOp = "in";
};

template <typename Operator>
Value compares(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("test", arguments);
  const Value other = reader.required("other");
  reader.finish();
  return Value(compare(in.budget(), Operator::kOp, subject, other));
}

// Identity: for values without one, the same kind and equal.
Value same_as(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("sameas", arguments);
  const Value other = reader.required("other");
  reader.finish();
  if (const Sequence* sequence = subject.sequence()) return Value(sequence == other.sequence());
  if (const Dict* dict = subject.dict()) return Value(dict == other.dict());
  return Value(std::string(subject.type_name()) == other.type_name() &&
               equal(in.budget(), subject, other));
}

Value is_filter_name(Interpreter&, const Value& subject, const Arguments&) {
  return Value(subject.is_string() && find_filter(subject.string()) != nullptr);
}

Value is_test_name(Interpreter&, const Value& subject, const Arguments&) {
  return Value(subject.is_string() && find_test(subject.string()) != nullptr);
}

constexpr NamedFunction kTests[] = {
    {"!=", compares<Differs>},
    {"<", compares<Less>},
    {"<=", compares<LessOrEqual>},
    {"==", compares<Equals>},
    {">", compares<Greater>},
    {">=", compares<GreaterOrEqual>},
    {"boolean", is_kind<is_boolean>},
    {"callable", is_kind<is_callable>},
    {"defined", is_kind<is_defined>},
    {"divisibleby", is_divisible_by},
    {"eq", compares<Equals>},
    {"equalto", compares<Equals>},
    {"even", is_parity<0>},
    {"false", is_kind<is_false>},
    {"filter", is_filter_name},
    {"float", is_kind<is_float>},
    {"ge", compares<GreaterOrEqual>},
    {"greaterthan", compares<Greater>},
    {"gt", compares<Greater>},
    {"in", compares<In>},
    {"integer", is_kind<is_integer>},
    {"iterable", is_kind<is_iterable>},
    {"le", compares<LessOrEqual>},
    {"lessthan", compares<Less>},
    {"lower", is_case<CharacterKind::kLower>},
    {"lt", compares<Less>},
    {"mapping", is_kind<is_mapping>},
    {"ne", compares<Differs>},
    {"none", is_kind<is_none>},
    {"number", is_kind<is_number>},
    {"odd", is_parity<1>},
    {"sameas", same_as},
    {"sequence", is_kind<is_sequence>},
    {"string", is_kind<is_string>},
    {"test", is_test_name},
    {"true", is_kind<is_true>},
    {"undefined", is_kind<is_undefined>},
    {"upper", is_case<CharacterKind::kUpper>},
};

}  // namespace

absl::Span<const NamedFunction> tests() {
  return kTests;
}

}  // namespace quire::jinja
