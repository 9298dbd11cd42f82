// Formatting; see printf_form.h. Both notations become one Spec, which one function applies.
#include "coordinator/text/jinja/printf_form.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "common/utf8.h"
#include "coordinator/text/jinja/strings.h"
#include "coordinator/text/jinja/text_form.h"

namespace quire::jinja {
namespace {

constexpr std::int64_t kMaxWidth = 4096;

struct Spec {
  std::string fill = " ";
  char align = 0;  // '<' '>' '^' '=', 0: the type's own
  char sign = '-';
  bool commas = false;
  std::int64_t width = 0;
  std::int64_t precision = -1;
  char type = 0;
};

bool is_digit(char c) {
  return absl::ascii_isdigit(static_cast<unsigned char>(c));
}

std::int64_t read_number(absl::string_view* text) {
  std::int64_t number = 0;
  while (!text->empty() && is_digit(text->front())) {
    number = number * 10 + (text->front() - '0');
    if (number > kMaxWidth) fail("a format wants more than ", kMaxWidth, " characters");
    text->remove_prefix(1);
  }
  return number;
}

std::string digits_of(std::int64_t number, int base, bool upper_case) {
  auto rest =
      number < 0 ? 0 - static_cast<std::uint64_t>(number) : static_cast<std::uint64_t>(number);
  std::string digits;
  do {
    const char* alphabet = upper_case ? "0123456789ABCDEF" : "0123456789abcdef";
    digits.insert(digits.begin(), alphabet[rest % static_cast<unsigned>(base)]);
    rest /= static_cast<unsigned>(base);
  } while (rest > 0);
  return digits;
}

std::string float_digits(double number, const Spec& spec) {
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  const char format[] = {'%', '.', '*', spec.type == '%' ? 'f' : spec.type, 0};
  char buffer[kMaxWidth + 512];
  const int size = std::snprintf(buffer, sizeof(buffer), format, precision, std::fabs(number));
  if (size < 0 || size >= static_cast<int>(sizeof(buffer))) fail("a number is too long to format");
  return std::string(buffer, static_cast<std::size_t>(size));
}

void add_commas(std::string* digits) {
  std::size_t end = digits->find_first_not_of("0123456789");
  if (end == std::string::npos) end = digits->size();
  while (end > 3) digits->insert(end -= 3, ",");
}

// The digits of a number without its sign.
std::string number_digits(const Value& value, const Spec& spec) {
  switch (spec.type) {
    case 'x':
    case 'X':
      return digits_of(value.as_integer(), 16, spec.type == 'X');
    case 'o':
      return digits_of(value.as_integer(), 8, false);
    case 'b':
      return digits_of(value.as_integer(), 2, false);
    case 'f':
    case 'F':
    case 'e':
    case 'E':
    case 'g':
    case 'G':
      return float_digits(value.as_double(), spec);
    case '%':
      return float_digits(value.as_double() * 100.0, spec) + "%";
    default:
      break;
  }
  if (value.is_integral()) return digits_of(value.as_integer(), 10, false);
  if (spec.precision >= 0) {
    Spec general = spec;
    general.type = 'g';
    return float_digits(value.as_double(), general);
  }
  return float_text(std::fabs(value.as_double()));
}

// Where the filling is odd, the larger half goes to the right.
std::string pad_middle(const std::string& text, const Spec& spec) {
  const auto length = static_cast<std::int64_t>(num_characters(text));
  const std::int64_t left = spec.width > length ? (spec.width - length) / 2 : 0;
  return pad(pad(text, length + left, spec.fill, Side::kRight), spec.width, spec.fill, Side::kLeft);
}

std::string apply_to_number(const Value& value, const Spec& spec) {
  const bool integer_type =
      std::string("dxXob").find(spec.type) != std::string::npos && spec.type != 0;
  if (integer_type && !value.is_integral()) {
    fail("format '", std::string(1, spec.type), "' wants an integer, not ", value.type_name());
  }
  std::string digits = number_digits(value, spec);
  if (spec.commas) add_commas(&digits);
  const bool negative =
      value.is_integral() ? value.as_integer() < 0 : std::signbit(value.as_double());
  const std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  if (spec.align == '=') {
    const auto width = spec.width - static_cast<std::int64_t>(sign.size());
    return sign + pad(digits, width, spec.fill, Side::kRight);
  }
  if (spec.align == '^') return pad_middle(sign + digits, spec);
  const Side side = spec.align == '<' ? Side::kLeft : Side::kRight;
  return pad(sign + digits, spec.width, spec.fill, side);
}

std::string apply_to_text(absl::string_view text, const Spec& spec) {
  if (spec.align == '=') fail("'=' alignment is not allowed for a text");
  if (spec.precision >= 0) {
    const Characters characters(text);
    if (characters.size() > static_cast<std::size_t>(spec.precision)) {
      text = text.substr(0, characters.byte_offset(static_cast<std::size_t>(spec.precision)));
    }
  }
  if (spec.align == '^') return pad_middle(std::string(text), spec);
  return pad(text, spec.width, spec.fill, spec.align == '>' ? Side::kRight : Side::kLeft);
}

Spec parse_spec(absl::string_view text) {
  Spec spec;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  const auto fill_size = static_cast<std::size_t>(std::max(utf8::decode(text).size, 1));
  if (text.size() > fill_size && is_align(text[fill_size])) {
    spec.fill = std::string(text.substr(0, fill_size));
    spec.align = text[fill_size];
    text.remove_prefix(fill_size + 1);
  } else if (!text.empty() && is_align(text[0])) {
    spec.align = text[0];
    text.remove_prefix(1);
  }
  if (!text.empty() && (text[0] == '+' || text[0] == '-' || text[0] == ' ')) {
    spec.sign = text[0];
    text.remove_prefix(1);
  }
  if (!text.empty() && text[0] == '0') {
    if (spec.align == 0) spec.align = '=';
    spec.fill = "0";
  }
  spec.width = read_number(&text);
  if (!text.empty() && text[0] == ',') {
    spec.commas = true;
    text.remove_prefix(1);
  }
  if (!text.empty() && text[0] == '.') {
    text.remove_prefix(1);
    spec.precision = read_number(&text);
  }
  if (text.size() == 1 && std::string("sdxXobfFeEgG%").find(text[0]) != std::string::npos) {
    spec.type = text[0];
    text.remove_prefix(1);
  }
  if (!text.empty()) fail("the format '", text, "' is not supported");
  return spec;
}

// The values of a % format, taken in order or by name.
class PrintfValues {
 public:
  explicit PrintfValues(const Value& values) : values_(values) {
    const Sequence* sequence = values.sequence();
    tuple_ = sequence != nullptr && sequence->form == Sequence::Form::kTuple ? sequence : nullptr;
  }

  const Value& next() {
    const std::size_t count = tuple_ != nullptr ? tuple_->items.size() : 1;
    if (taken_ >= count) fail("not enough arguments for format string");
    const std::size_t i = taken_++;
    return tuple_ != nullptr ? tuple_->items[i] : values_;
  }

  const Value& named(absl::string_view name) {
    taken_ = 1;
    const Value* value = values_.dict() != nullptr ? values_.dict()->find(Value(name)) : nullptr;
    if (value == nullptr) fail("the format wants a value named '", name, "'");
    return *value;
  }

  void finish() const {
    // Python lets a list or dict go unused, for a format may look into it by name.
    const bool optional = values_.dict() != nullptr || values_.sequence() != nullptr;
    const std::size_t count = tuple_ != nullptr ? tuple_->items.size() : optional ? 0 : 1;
    if (taken_ < count) fail("not all arguments converted during string formatting");
  }

 private:
  const Value& values_;
  const Sequence* tuple_;
  std::size_t taken_ = 0;
};

std::string apply_printf(Budget& budget, const Value& value, Spec spec) {
  switch (spec.type) {
    case 's':
      return apply_to_text(to_text(budget, value), spec);
    case 'r':
      return apply_to_text(to_repr(budget, value), spec);
    case 'c':
      return apply_to_text(value.is_string() ? value.string() : "", spec);
    case 'i':
    case 'u':
      spec.type = 'd';
      break;
    default:
      break;
  }
  if (!value.is_number()) {
    fail("%", std::string(1, spec.type), " format: a real number is required, not ",
         value.type_name());
  }
  if (spec.type == 'd' && !value.is_integral()) {
    return apply_to_number(Value(static_cast<std::int64_t>(value.as_double())), spec);
  }
  return apply_to_number(value, spec);
}

}  // namespace

std::string printf_text(Budget& budget, absl::string_view format, const Value& values) {
  PrintfValues arguments(values);
  std::string out;
  while (!format.empty()) {
    const std::size_t at = format.find('%');
    absl::StrAppend(&out, format.substr(0, at));
    budget.text(out.size());
    if (at == absl::string_view::npos) break;
    format.remove_prefix(at + 1);
    const Value* value = nullptr;
    if (!format.empty() && format[0] == '(') {
      const std::size_t end = format.find(')');
      if (end == absl::string_view::npos) fail("incomplete format key");
      value = &arguments.named(format.substr(1, end - 1));
      format.remove_prefix(end + 1);
    }
    Spec spec;
    spec.align = '>';
    for (; !format.empty() && std::string("-+ 0#").find(format[0]) != std::string::npos;
         format.remove_prefix(1)) {
      if (format[0] == '-') spec.align = '<';
      if (format[0] == '+' || format[0] == ' ') spec.sign = format[0];
      if (format[0] == '0' && spec.align != '<') {
        spec.align = '=';
        spec.fill = "0";
      }
    }
    spec.width = read_number(&format);
    if (!format.empty() && format[0] == '.') {
      format.remove_prefix(1);
      spec.precision = read_number(&format);
    }
    if (format.empty()) fail("incomplete format");
    spec.type = format[0];
    format.remove_prefix(1);
    if (spec.type == '%') {
      out += '%';
      continue;
    }
    if (std::string("srcdiuxXofFeEgG").find(spec.type) == std::string::npos) {
      fail("unsupported format character '", std::string(1, spec.type), "'");
    }
    if (value == nullptr) value = &arguments.next();
    out += apply_printf(budget, *value, spec);
  }
  arguments.finish();
  return out;
}

std::string format_value(Budget& budget, const Value& value, absl::string_view spec_text) {
  if (spec_text.empty()) return to_text(budget, value);
  const Spec spec = parse_spec(spec_text);
  if (value.is_number() && !(value.is<bool>() && spec.type == 0)) {
    return apply_to_number(value, spec);
  }
  if (spec.type != 0 && spec.type != 's') {
    fail("unknown format code '", std::string(1, spec.type), "' for object of type '",
         value.type_name(), "'");
  }
  return apply_to_text(to_text(budget, value), spec);
}

namespace {

const Value& find_field(absl::string_view name, const Arguments& arguments, std::size_t* next) {
  std::int64_t index = 0;
  const bool numbered = absl::SimpleAtoi(name, &index);
  if (name.empty() || numbered) {
    const std::size_t at = name.empty() ? (*next)++ : static_cast<std::size_t>(index);
    if (at >= arguments.positional.size()) fail("format() has no argument ", at);
    return arguments.positional[at];
  }
  for (const auto& [given, value] : arguments.named) {
    if (given == name) return value;
  }
  fail("format() has no argument '", name, "'");
}

}  // namespace

std::string format_text(Budget& budget, absl::string_view format, const Arguments& arguments) {
  std::string out;
  std::size_t next = 0;
  while (!format.empty()) {
    const std::size_t at = format.find_first_of("{}");
    absl::StrAppend(&out, format.substr(0, at));
    budget.text(out.size());
    if (at == absl::string_view::npos) break;
    const char brace = format[at];
    format.remove_prefix(at + 1);
    if (!format.empty() && format[0] == brace) {  // {{ and }} stand for themselves
      out += brace;
      format.remove_prefix(1);
      continue;
    }
    const std::size_t end = format.find_first_of("{}");
    if (brace == '}' || end == absl::string_view::npos) fail("a single brace in a format");
    if (format[end] == '{') fail("nested fields in a format are not supported");
    absl::string_view field = format.substr(0, end);
    format.remove_prefix(end + 1);
    absl::string_view spec;
    if (const std::size_t colon = field.find(':'); colon != absl::string_view::npos) {
      spec = field.substr(colon + 1);
      field = field.substr(0, colon);
    }
    absl::string_view conversion;
    if (const std::size_t mark = field.find('!'); mark != absl::string_view::npos) {
      conversion = field.substr(mark + 1);
      field = field.substr(0, mark);
    }
    const Value& value = find_field(field, arguments, &next);
    if (conversion.empty()) {
      out += format_value(budget, value, spec);
    } else if (conversion == "s" || conversion == "r") {
      const std::string text = conversion == "r" ? to_repr(budget, value) : to_text(budget, value);
      out += format_value(budget, Value(text), spec);
    } else {
      fail("the conversion '!", conversion, "' is not supported");
    }
  }
  return out;
}

}  // namespace quire::jinja
