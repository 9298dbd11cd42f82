// json.dumps() for the tojson filter; see text_form.h. No HTML escapes, as Hugging Face renders.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "common/utf8.h"
#include "coordinator/text/jinja/text_form.h"

namespace quire::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Budget& budget, const JsonStyle& style) : budget_(budget), style_(style) {}

  void write(const Value& value, int level) {
    budget_.steps();
    if (value.is_string()) {
      write_text(value.string());
    } else if (value.is_none()) {
      out_ += "null";
    } else if (const bool* flag = value.get_if<bool>()) {
      out_ += *flag ? "true" : "false";
    } else if (value.is_number()) {
      out_ += number_text(value);
    } else if (const Dict* dict = value.dict()) {
      write_dict(*dict, level);
    } else if (is_list(value)) {
      write_list(value.sequence()->items, level);
    } else {
      fail("Object of type ", value.type_name(), " is not JSON serializable");
    }
    if (out_.size() > kMaxTextBytes) budget_.text(out_.size());
  }

  std::string finish() && { return std::move(out_); }

 private:
  static bool is_list(const Value& value) {
    return value.sequence() != nullptr && value.sequence()->indexed();
  }

  static std::string number_text(const Value& value) {
    if (value.is<std::int64_t>()) return absl::StrCat(value.as_integer());
    const double number = value.as_double();
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
    return float_text(number);
  }

  void new_line(int level) {
    if (!style_.pretty) return;
    out_ += '\n';
    for (int i = 0; i < level; ++i) out_ += style_.indent;
  }

  void write_list(const std::vector<Value>& items, int level) {
    out_ += '[';
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      new_line(level + 1);
      write(items[i], level + 1);
    }
    if (!items.empty()) new_line(level);
    out_ += ']';
  }

  void write_dict(const Dict& dict, int level) {
    std::vector<std::pair<std::string, const Value*>> entries;
    for (const auto& [key, item] : dict.entries) entries.emplace_back(key_text(key), &item);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
    }
    out_ += '{';
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      new_line(level + 1);
      write_text(entries[i].first);
      out_ += style_.key_separator;
      write(*entries[i].second, level + 1);
    }
    if (!entries.empty()) new_line(level);
    out_ += '}';
  }

  static std::string key_text(const Value& key) {
    if (key.is_string()) return key.string();
    if (key.is_none()) return "null";
    if (const bool* flag = key.get_if<bool>()) return *flag ? "true" : "false";
    if (key.is_number()) return number_text(key);
    fail("keys must be str, int, float, bool or None, not ", key.type_name());
  }

  void write_text(absl::string_view text) {
    budget_.text(text.size());
    out_ += '"';
    while (!text.empty()) {
      const utf8::Decoded next = utf8::decode(text);
      const auto size = static_cast<std::size_t>(std::max(next.size, 1));
      write_char(next.code, text.substr(0, size));
      text.remove_prefix(size);
    }
    out_ += '"';
  }

  void write_char(char32_t code, absl::string_view bytes) {
    static constexpr absl::string_view kEscaped = "\"\\\n\r\t\b\f";
    static constexpr absl::string_view kLetters = "\"\\nrtbf";
    const std::size_t simple = code < 0x80 ? kEscaped.find(bytes[0]) : absl::string_view::npos;
    if (simple != absl::string_view::npos) {
      out_ += '\\';
      out_ += kLetters[simple];
    } else if (code < 0x20 || (style_.ensure_ascii && code > 0x7E)) {
      write_unicode_escape(code);
    } else {
      out_.append(bytes.data(), bytes.size());
    }
  }

  void write_unicode_escape(char32_t code) {
    if (code >= 0x10000) {
      const auto rest = static_cast<unsigned>(code - 0x10000);
      absl::StrAppendFormat(&out_, "\\u%04x\\u%04x", 0xD800 + (rest >> 10),
                            0xDC00 + (rest & 0x3FF));
    } else {
      absl::StrAppendFormat(&out_, "\\u%04x", static_cast<unsigned>(code));
    }
  }

  Budget& budget_;
  const JsonStyle& style_;
  std::string out_;
};

}  // namespace

std::string to_json(Budget& budget, const Value& value, const JsonStyle& style) {
  JsonWriter writer(budget, style);
  writer.write(value, 0);
  return std::move(writer).finish();
}

}  // namespace quire::jinja
