// Filters over any value: defaults, numbers, lengths, JSON, look-ups.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/filter_tables.h"
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/strings.h"

namespace quire::jinja {
namespace {

Value default_filter(Interpreter&, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("default", arguments);
  Value otherwise = reader.take("default_value", Value(""));
  const bool boolean = reader.flag("boolean", false);
  reader.finish();
  return subject.is_undefined() || (boolean && !subject.truthy()) ? std::move(otherwise) : subject;
}

Value length(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("length", arguments).finish();
  if (subject.is_undefined()) return Value(std::int64_t{0});
  if (const Dict* dict = subject.dict()) return Value::integer(dict->entries.size());
  if (const LoopState* loop = subject.loop()) return Value::integer(loop->items->size());
  if (subject.is_string()) {
    in.budget().text(subject.string().size());
    return Value::integer(num_characters(subject.string()));
  }
  const Sequence* sequence = subject.sequence();
  if (sequence == nullptr || sequence->form == Sequence::Form::kGenerator) {
    fail("object of type '", subject.type_name(), "' has no len()");
  }
  return Value::integer(sequence->items.size());
}

Value abs_filter(Interpreter&, const Value& subject, const Arguments& arguments) {
  ArgumentReader("abs", arguments).finish();
  if (subject.is_integral()) {
    return subject.as_integer() < 0 ? negative(subject) : Value(subject.as_integer());
  }
  if (subject.is_number()) return Value(std::fabs(subject.as_double()));
  fail("bad operand type for abs(): '", subject.type_name(), "'");
}

bool parse_double(absl::string_view text, double* number) {
  return absl::SimpleAtod(strip(text, Side::kBoth), number);
}

// int(): of a number, or of a text in the base; false where it is none.
bool to_integer(const Value& value, std::int64_t base, std::int64_t* number) {
  double real = 0.0;
  if (value.is_integral()) {
    *number = value.as_integer();
    return true;
  }
  if (value.is_string()) {
    std::string text(strip(value.string(), Side::kBoth));
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    char* end = nullptr;
    errno = 0;
    *number = std::strtoll(text.c_str(), &end, static_cast<int>(base));
    if (!text.empty() && end == text.c_str() + text.size() && errno == 0) return true;
    if (!parse_double(text, &real)) return false;
  } else if (value.is_number()) {
    real = value.as_double();
  } else {
    return false;
  }
  if (!(std::fabs(real) < 9.2e18)) return false;
  *number = static_cast<std::int64_t>(real);
  return true;
}

Value int_filter(Interpreter&, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("int", arguments);
  Value otherwise = reader.take("default", Value(std::int64_t{0}));
  const std::int64_t base = reader.integer("base", 10);
  reader.finish();
  if (base < 2 || base > 36) fail("int() wants a base between 2 and 36");
  if (subject.is_undefined()) fail(subject.undefined_reason());
  std::int64_t number = 0;
  return to_integer(subject, base, &number) ? Value(number) : std::move(otherwise);
}

Value float_filter(Interpreter&, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("float", arguments);
  Value otherwise = reader.take("default", Value(0.0));
  reader.finish();
  if (subject.is_undefined()) fail(subject.undefined_reason());
  if (subject.is_number()) return Value(subject.as_double());
  double number = 0.0;
  return subject.is_string() && parse_double(subject.string(), &number) ? Value(number)
                                                                        : std::move(otherwise);
}

Value round_filter(Interpreter&, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("round", arguments);
  const std::int64_t precision =
      std::clamp<std::int64_t>(reader.integer("precision", 0), -300, 300);
  const std::string method = reader.text("method", "common");
  reader.finish();
  if (!subject.is_number()) fail("round() wants a number, not ", subject.type_name());
  // Python rounds an integer to an integer.
  const bool whole = subject.is_integral() && method == "common";
  if (whole && precision >= 0) return Value(subject.as_integer());
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = subject.as_double() * scale;
  if (method == "ceil") return Value(std::ceil(scaled) / scale);
  if (method == "floor") return Value(std::floor(scaled) / scale);
  if (method != "common") fail("round() knows the methods common, ceil and floor");
  if (precision <= 0) {
    const double rounded = std::nearbyint(scaled) / scale;
    return whole ? Value(static_cast<std::int64_t>(rounded)) : Value(rounded);
  }
  char buffer[1024];
  std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(precision), subject.as_double());
  return Value(std::strtod(buffer, nullptr));
}

Value tojson(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("tojson", arguments);
  JsonStyle style;
  // Hugging Face's order of parameters.
  style.ensure_ascii = reader.flag("ensure_ascii", false);
  const Value indent = reader.take("indent", Value::none());
  const Value separators = reader.take("separators", Value::none());
  style.sort_keys = reader.flag("sort_keys", false);
  reader.finish();
  if (!indent.is_none() && !indent.is_undefined()) {
    style.pretty = true;
    style.item_separator.pop_back();  // no blank before a line's end
    if (indent.is_string()) {
      style.indent = indent.string();
    } else if (indent.is_integral()) {
      style.indent.assign(
          static_cast<std::size_t>(std::clamp<std::int64_t>(indent.as_integer(), 0, 1000)), ' ');
    } else {
      fail("tojson() wants a number or a text for 'indent'");
    }
  }
  if (!separators.is_none()) {
    const auto pair = items_of(in.budget(), separators);
    if (pair->size() != 2 || !(*pair)[0].is_string() || !(*pair)[1].is_string()) {
      fail("tojson() wants two texts for 'separators'");
    }
    style.item_separator = (*pair)[0].string();
    style.key_separator = (*pair)[1].string();
  }
  return Value(to_json(in.budget(), subject, style));
}

Value items_filter(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("items", arguments).finish();
  std::vector<Value> pairs;
  if (subject.is_undefined()) return Value::generator({});
  if (subject.dict() == nullptr) fail("Can only get item pairs from a mapping.");
  in.budget().steps(subject.dict()->entries.size());
  for (const auto& [key, value] : subject.dict()->entries) {
    pairs.push_back(Value::tuple({key, value}));
  }
  return Value::generator(std::move(pairs));
}

Value attr(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("attr", arguments);
  const std::string name = reader.required_text("name");
  reader.finish();
  // Attributes only, as in Jinja: a dict's keys are items.
  if (subject.dict() != nullptr && find_method(subject, name) == nullptr) {
    return Value::undefined(absl::StrCat("'dict object' has no attribute '", name, "'"));
  }
  return in.attribute(subject, name);
}

constexpr NamedFunction kFilters[] = {
    {"abs", abs_filter},         {"attr", attr},
    {"count", length},           {"d", default_filter},
    {"default", default_filter}, {"float", float_filter},
    {"int", int_filter},         {"items", items_filter},
    {"length", length},          {"round", round_filter},
    {"tojson", tojson},
};

}  // namespace

absl::Span<const NamedFunction> value_filters() {
  return kFilters;
}

}  // namespace quire::jinja
