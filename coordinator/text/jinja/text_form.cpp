// str() and repr(); see text_form.h.
#include "coordinator/text/jinja/text_form.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_format.h"
#include "common/utf8.h"

namespace quire::jinja {
namespace {

// str.isprintable(), which decides what repr() escapes.
bool is_printable(char32_t c) {
  if (c == U' ') return true;
  const auto mask = U_GET_GC_MASK(static_cast<UChar32>(c));
  return (mask & (U_GC_C_MASK | U_GC_Z_MASK)) == 0;
}

void append_escape(char32_t c, std::string* out) {
  const auto code = static_cast<unsigned>(c);
  if (c == U'\n') {
    out->append("\\n");
  } else if (c == U'\r') {
    out->append("\\r");
  } else if (c == U'\t') {
    out->append("\\t");
  } else if (code < 0x100) {
    absl::StrAppendFormat(out, "\\x%02x", code);
  } else if (code < 0x10000) {
    absl::StrAppendFormat(out, "\\u%04x", code);
  } else {
    absl::StrAppendFormat(out, "\\U%08x", code);
  }
}

void append_quoted(absl::string_view text, std::string* out) {
  const bool has_single = text.find('\'') != absl::string_view::npos;
  const char quote = has_single && text.find('"') == absl::string_view::npos ? '"' : '\'';
  out->push_back(quote);
  while (!text.empty()) {
    const utf8::Decoded next = utf8::decode(text);
    const auto size = static_cast<std::size_t>(std::max(next.size, 1));
    if (text[0] == '\\' || text[0] == quote) {
      out->push_back('\\');
      out->push_back(text[0]);
    } else if (is_printable(next.code)) {
      absl::StrAppend(out, text.substr(0, size));
    } else {
      append_escape(next.code, out);
    }
    text.remove_prefix(size);
  }
  out->push_back(quote);
}

void append_repr(Budget& budget, const Value& value, std::string* out);

void append_items(Budget& budget, const std::vector<Value>& items, std::string* out) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out->append(", ");
    append_repr(budget, items[i], out);
  }
}

void append_dict(Budget& budget, const Dict& dict, std::string* out) {
  out->push_back('{');
  bool first = true;
  for (const auto& [key, item] : dict.entries) {
    if (!first) out->append(", ");
    first = false;
    append_repr(budget, key, out);
    out->append(": ");
    append_repr(budget, item, out);
  }
  out->push_back('}');
}

void append_sequence(Budget& budget, const Sequence& sequence, std::string* out) {
  if (sequence.form == Sequence::Form::kGenerator) {
    out->append("<generator object>");
    return;
  }
  if (sequence.form == Sequence::Form::kView) {
    out->append("dict_view([");
    append_items(budget, sequence.items, out);
    out->append("])");
    return;
  }
  const bool tuple = sequence.form == Sequence::Form::kTuple;
  out->push_back(tuple ? '(' : '[');
  append_items(budget, sequence.items, out);
  if (tuple && sequence.items.size() == 1) out->push_back(',');
  out->push_back(tuple ? ')' : ']');
}

void append_repr(Budget& budget, const Value& value, std::string* out) {
  budget.steps();
  if (value.is_string()) {
    budget.text(value.string().size());
    append_quoted(value.string(), out);
  } else if (value.is_undefined()) {
    out->append("Undefined");
  } else if (value.is_none()) {
    out->append("None");
  } else if (const bool* flag = value.get_if<bool>()) {
    out->append(*flag ? "True" : "False");
  } else if (value.is<std::int64_t>()) {
    absl::StrAppend(out, value.as_integer());
  } else if (value.is<double>()) {
    out->append(float_text(value.as_double()));
  } else if (const Sequence* sequence = value.sequence()) {
    append_sequence(budget, *sequence, out);
  } else if (const Dict* dict = value.dict()) {
    append_dict(budget, *dict, out);
  } else if (const auto callable = value.callable()) {
    absl::StrAppend(out, "<function ", callable->name, ">");
  } else {
    absl::StrAppend(out, "<", value.type_name(), ">");
  }
  if (out->size() > kMaxTextBytes) budget.text(out->size());
}

}  // namespace

// The shortest digits that read back as the same number, in Python's choice of notation.
std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::scientific).ptr;
  const absl::string_view text(buffer, static_cast<std::size_t>(end - buffer));
  const std::size_t e = text.find('e');
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) return std::string(text);
  const auto fixed =
      std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::fixed).ptr;
  std::string out(buffer, fixed);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::string to_text(Budget& budget, const Value& value) {
  if (value.is_string()) return value.string();
  return value.is_undefined() ? std::string() : to_repr(budget, value);
}

std::string to_repr(Budget& budget, const Value& value) {
  std::string out;
  append_repr(budget, value, &out);
  return out;
}

}  // namespace quire::jinja
