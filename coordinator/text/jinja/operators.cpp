// Arithmetic and comparison; see operators.h. Integers are 64 bits wide and never wrap.
#include "coordinator/text/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "coordinator/text/jinja/printf_form.h"
#include "coordinator/text/jinja/strings.h"

namespace quire::jinja {
namespace {

[[noreturn]] void fail_types(absl::string_view op, const Value& a, const Value& b) {
  fail("unsupported operand type(s) for ", op, ": '", a.type_name(), "' and '", b.type_name(), "'");
}

std::int64_t checked(bool overflow, const std::int64_t& result) {
  if (overflow) fail("an integer grows beyond 64 bits");
  return result;
}

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == -1) {
    std::int64_t result = 0;
    return checked(__builtin_sub_overflow(std::int64_t{0}, a, &result), result);
  }
  const std::int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

std::int64_t floor_modulo(std::int64_t a, std::int64_t b) {
  if (b == -1) return 0;
  const std::int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

std::int64_t power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  bool overflow = false;
  while (exponent > 0 && !overflow) {
    if (exponent % 2 == 1) overflow = __builtin_mul_overflow(result, base, &result);
    exponent /= 2;
    if (exponent > 0) overflow = overflow || __builtin_mul_overflow(base, base, &base);
  }
  return checked(overflow, result);
}

Value integer_arithmetic(absl::string_view op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (op == "+") return Value(checked(__builtin_add_overflow(a, b, &result), result));
  if (op == "-") return Value(checked(__builtin_sub_overflow(a, b, &result), result));
  if (op == "*") return Value(checked(__builtin_mul_overflow(a, b, &result), result));
  if (op == "**") {
    if (a == 0 && b < 0) fail("0.0 cannot be raised to a negative power");
    return b >= 0 ? Value(power(a, b))
                  : Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
  }
  if (b == 0) fail("division by zero");
  if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
  return op == "//" ? Value(floor_divide(a, b)) : Value(floor_modulo(a, b));
}

Value float_arithmetic(absl::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0.0) fail("division by zero");
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(std::floor(a / b));
  const double rest = std::fmod(a, b);
  return Value(rest != 0.0 && (rest < 0) != (b < 0) ? rest + b : rest);
}

Value repeat(Budget& budget, const Value& value, std::int64_t count) {
  const auto times = static_cast<std::size_t>(std::max<std::int64_t>(count, 0));
  if (value.is_string()) {
    const std::string& text = value.string();
    if (!text.empty() && times > kMaxTextBytes / text.size()) budget.text(kMaxTextBytes + 1);
    budget.text(text.size() * times);
    std::string out;
    out.reserve(text.size() * times);
    for (std::size_t i = 0; i < times; ++i) out += text;
    return Value(std::move(out));
  }
  const Sequence& sequence = *value.sequence();
  if (sequence.items.empty()) return value;
  if (times > static_cast<std::size_t>(kMaxSteps)) budget.steps(kMaxSteps + 1);
  budget.steps(sequence.items.size() * times);
  std::vector<Value> items;
  for (std::size_t i = 0; i < times; ++i) {
    items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  }
  return sequence.form == Sequence::Form::kTuple ? Value::tuple(std::move(items))
                                                 : Value::list(std::move(items));
}

bool is_repeatable(const Value& value) {
  return value.is_string() || (value.sequence() != nullptr && value.sequence()->indexed());
}

Value add(Budget& budget, const Value& a, const Value& b) {
  if (a.is_string()) {
    if (!b.is_string()) {
      fail("can only concatenate str (not \"", b.type_name(), "\") to str");
    }
    budget.text(a.string().size() + b.string().size());
    if (a.is_markup() || b.is_markup()) {
      return Value::markup((a.is_markup() ? a.string() : escape_html(a.string())) +
                           (b.is_markup() ? b.string() : escape_html(b.string())));
    }
    return Value(absl::StrCat(a.string(), b.string()));
  }
  const Sequence* left = a.sequence();
  const Sequence* right = b.sequence();
  if (left == nullptr || right == nullptr || left->form != right->form || !is_repeatable(a)) {
    fail_types("+", a, b);
  }
  budget.steps(left->items.size() + right->items.size());
  std::vector<Value> items = left->items;
  items.insert(items.end(), right->items.begin(), right->items.end());
  return left->form == Sequence::Form::kTuple ? Value::tuple(std::move(items))
                                              : Value::list(std::move(items));
}

void refuse_undefined(const Value& value) {
  if (value.is_undefined()) fail(value.undefined_reason());
}

int sign(double difference) {
  return difference < 0 ? -1 : difference > 0 ? 1 : 0;
}

int order_sequences(Budget& budget, const Sequence& a, const Sequence& b) {
  const std::size_t both = std::min(a.items.size(), b.items.size());
  for (std::size_t i = 0; i < both; ++i) {
    if (!equal(budget, a.items[i], b.items[i])) return order(budget, a.items[i], b.items[i]);
  }
  return a.items.size() < b.items.size() ? -1 : a.items.size() > b.items.size() ? 1 : 0;
}

bool equal_dicts(Budget& budget, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  return std::all_of(a.entries.begin(), a.entries.end(), [&](const auto& entry) {
    const Value* other = b.find(entry.first);
    return other != nullptr && equal(budget, entry.second, *other);
  });
}

}  // namespace

Value arithmetic(Budget& budget, absl::string_view op, const Value& a, const Value& b) {
  refuse_undefined(a);
  refuse_undefined(b);
  if (a.is_integral() && b.is_integral()) {
    return integer_arithmetic(op, a.as_integer(), b.as_integer());
  }
  if (a.is_number() && b.is_number()) return float_arithmetic(op, a.as_double(), b.as_double());
  if (op == "+" && !a.is_number()) return add(budget, a, b);
  if (op == "*" && is_repeatable(a) && b.is_integral()) return repeat(budget, a, b.as_integer());
  if (op == "*" && is_repeatable(b) && a.is_integral()) return repeat(budget, b, a.as_integer());
  if (op == "%" && a.is_string()) return Value(printf_text(budget, a.string(), b));
  fail_types(op, a, b);
}

Value negative(const Value& value) {
  refuse_undefined(value);
  if (value.is_integral()) return integer_arithmetic("-", 0, value.as_integer());
  if (value.is_number()) return Value(-value.as_double());
  fail("bad operand type for unary -: '", value.type_name(), "'");
}

bool equal(Budget& budget, const Value& a, const Value& b) {
  budget.steps();
  if (a.is_integral() && b.is_integral()) return a.as_integer() == b.as_integer();
  if (a.is_number() && b.is_number()) return a.as_double() == b.as_double();
  if (a.is_string() && b.is_string()) {
    budget.text(std::min(a.string().size(), b.string().size()));
    return a.string() == b.string();
  }
  if (a.sequence() != nullptr && b.sequence() != nullptr) {
    const Sequence& left = *a.sequence();
    const Sequence& right = *b.sequence();
    if (left.form != right.form || left.items.size() != right.items.size()) return false;
    return std::equal(left.items.begin(), left.items.end(), right.items.begin(),
                      [&](const Value& x, const Value& y) { return equal(budget, x, y); });
  }
  if (a.dict() != nullptr && b.dict() != nullptr) return equal_dicts(budget, *a.dict(), *b.dict());
  if (a.name_space() != nullptr) return a.name_space() == b.name_space();
  if (a.callable() != nullptr) return a.callable() == b.callable();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

int order(Budget& budget, const Value& a, const Value& b) {
  budget.steps();
  refuse_undefined(a);
  refuse_undefined(b);
  if (a.is_integral() && b.is_integral()) {
    return a.as_integer() < b.as_integer() ? -1 : a.as_integer() > b.as_integer() ? 1 : 0;
  }
  if (a.is_number() && b.is_number()) return sign(a.as_double() - b.as_double());
  if (a.is_string() && b.is_string()) {
    budget.text(std::min(a.string().size(), b.string().size()));
    return a.string().compare(b.string());  // bytes of UTF-8 are in the order of code points
  }
  if (a.sequence() != nullptr && b.sequence() != nullptr &&
      a.sequence()->form == b.sequence()->form && is_repeatable(a)) {
    return order_sequences(budget, *a.sequence(), *b.sequence());
  }
  fail("'<' not supported between instances of '", a.type_name(), "' and '", b.type_name(), "'");
}

bool contains(Budget& budget, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) {
      fail("'in <string>' requires string as left operand, not ", item.type_name());
    }
    budget.text(container.string().size());
    return container.string().find(item.string()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) return dict->find(item) != nullptr;
  if (container.sequence() == nullptr && !container.is_undefined()) {
    fail("argument of type '", container.type_name(), "' is not iterable");
  }
  const auto items = items_of(budget, container);
  return std::any_of(items->begin(), items->end(),
                     [&](const Value& other) { return equal(budget, item, other); });
}

bool compare(Budget& budget, absl::string_view op, const Value& a, const Value& b) {
  if (op == "==") return equal(budget, a, b);
  if (op == "!=") return !equal(budget, a, b);
  if (op == "in") return contains(budget, b, a);
  if (op == "not in") return !contains(budget, b, a);
  const int result = order(budget, a, b);
  if (op == "<") return result < 0;
  if (op == "<=") return result <= 0;
  return op == ">" ? result > 0 : result >= 0;
}

}  // namespace quire::jinja
