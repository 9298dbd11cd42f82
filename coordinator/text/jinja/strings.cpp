// Text helpers over UTF-8 and ICU's character data; see strings.h.
#include "coordinator/text/jinja/strings.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/utf8.h"

namespace quire::jinja {
namespace {

struct Char {
  char32_t code;
  std::size_t size;
};

Char first_char(absl::string_view text) {
  const utf8::Decoded next = utf8::decode(text);
  return {next.code, static_cast<std::size_t>(std::max(next.size, 1))};
}

Char last_char(absl::string_view text) {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return {utf8::decode(text.substr(begin)).code, text.size() - begin};
}

bool is_space(char32_t c) {
  return u_isUWhiteSpace(static_cast<UChar32>(c)) != 0 || (c >= 0x1C && c <= 0x1F);
}

bool is_line_end(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool in_set(absl::string_view chars, absl::string_view character) {
  while (!chars.empty()) {
    const std::size_t size = first_char(chars).size;
    if (chars.substr(0, size) == character) return true;
    chars.remove_prefix(size);
  }
  return false;
}

icu::UnicodeString to_icu(absl::string_view text) {
  return icu::UnicodeString::fromUTF8(
      icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
}

std::string from_icu(const icu::UnicodeString& text) {
  std::string out;
  text.toUTF8String(out);
  return out;
}

std::vector<absl::string_view> split_by_space(absl::string_view text, std::int64_t most) {
  std::vector<absl::string_view> parts;
  while (true) {
    text = strip(text, Side::kLeft);
    if (text.empty()) return parts;
    if (most >= 0 && static_cast<std::int64_t>(parts.size()) == most) {
      parts.push_back(text);
      return parts;
    }
    std::size_t end = 0;
    while (end < text.size()) {
      const Char c = first_char(text.substr(end));
      if (is_space(c.code)) break;
      end += c.size;
    }
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

std::vector<absl::string_view> split_by_space_from_right(absl::string_view text,
                                                         std::int64_t most) {
  std::vector<absl::string_view> parts;
  while (true) {
    text = strip(text, Side::kRight);
    if (text.empty()) break;
    if (most >= 0 && static_cast<std::int64_t>(parts.size()) == most) {
      parts.push_back(text);
      break;
    }
    std::size_t begin = text.size();
    while (begin > 0) {
      const Char c = last_char(text.substr(0, begin));
      if (is_space(c.code)) break;
      begin -= c.size;
    }
    parts.push_back(text.substr(begin));
    text = text.substr(0, begin);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

Characters::Characters(absl::string_view text)
    : text_(text), ascii_(std::all_of(text.begin(), text.end(), [](char c) {
        return static_cast<unsigned char>(c) < 0x80;
      })) {
  if (ascii_) return;
  std::size_t at = 0;
  while (at < text.size()) {
    starts_.push_back(at);
    at += first_char(text.substr(at)).size;
  }
  starts_.push_back(at);
}

std::size_t num_characters(absl::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

absl::string_view strip(absl::string_view text, Side side, const absl::string_view* chars) {
  const auto goes = [&](absl::string_view character, char32_t code) {
    return chars != nullptr ? in_set(*chars, character) : is_space(code);
  };
  while (side != Side::kRight && !text.empty()) {
    const Char c = first_char(text);
    if (!goes(text.substr(0, c.size), c.code)) break;
    text.remove_prefix(c.size);
  }
  while (side != Side::kLeft && !text.empty()) {
    const Char c = last_char(text);
    if (!goes(text.substr(text.size() - c.size), c.code)) break;
    text.remove_suffix(c.size);
  }
  return text;
}

std::vector<absl::string_view> split(absl::string_view text, const absl::string_view* separator,
                                     std::int64_t most, bool from_right) {
  if (separator == nullptr) {
    return from_right ? split_by_space_from_right(text, most) : split_by_space(text, most);
  }
  std::vector<absl::string_view> parts;
  while (most < 0 || static_cast<std::int64_t>(parts.size()) < most) {
    const std::size_t at = from_right ? text.rfind(*separator) : text.find(*separator);
    if (at == absl::string_view::npos) break;
    if (from_right) {
      parts.push_back(text.substr(at + separator->size()));
      text = text.substr(0, at);
    } else {
      parts.push_back(text.substr(0, at));
      text.remove_prefix(at + separator->size());
    }
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<absl::string_view> split_lines(absl::string_view text, bool keep_ends) {
  std::vector<absl::string_view> lines;
  while (!text.empty()) {
    std::size_t end = 0;
    std::size_t after = text.size();
    for (; end < text.size();) {
      const Char c = first_char(text.substr(end));
      if (is_line_end(c.code)) {
        after = end + c.size;
        if (c.code == U'\r' && after < text.size() && text[after] == '\n') ++after;
        break;
      }
      end += c.size;
    }
    lines.push_back(text.substr(0, keep_ends ? after : end));
    text.remove_prefix(after);
  }
  return lines;
}

std::string replace(absl::string_view text, absl::string_view from, absl::string_view to,
                    std::int64_t most) {
  std::string out;
  for (std::int64_t n = 0; most < 0 || n < most; ++n) {
    if (from.empty()) {  // Python puts `to` before every character and at the end
      absl::StrAppend(&out, to);
      if (text.empty()) return out;
      const std::size_t size = first_char(text).size;
      absl::StrAppend(&out, text.substr(0, size));
      text.remove_prefix(size);
      continue;
    }
    const std::size_t at = text.find(from);
    if (at == absl::string_view::npos) break;
    absl::StrAppend(&out, text.substr(0, at), to);
    text.remove_prefix(at + from.size());
  }
  absl::StrAppend(&out, text);
  return out;
}

std::size_t replaced_size(absl::string_view text, absl::string_view from, absl::string_view to) {
  std::size_t count = from.empty() ? num_characters(text) + 1 : 0;
  std::size_t at = from.empty() ? absl::string_view::npos : text.find(from);
  for (; at != absl::string_view::npos; at = text.find(from, at + from.size())) ++count;
  return text.size() + count * to.size() - count * from.size();
}

std::string upper(absl::string_view text) {
  return from_icu(to_icu(text).toUpper(icu::Locale::getRoot()));
}

std::string lower(absl::string_view text) {
  return from_icu(to_icu(text).toLower(icu::Locale::getRoot()));
}

std::string capitalize(absl::string_view text) {
  if (text.empty()) return {};
  const std::size_t size = first_char(text).size;
  return upper(text.substr(0, size)) + lower(text.substr(size));
}

std::string title(absl::string_view text) {
  std::string out;
  bool in_word = false;
  while (!text.empty()) {
    const Char c = first_char(text);
    const absl::string_view character = text.substr(0, c.size);
    const bool letter = u_isalpha(static_cast<UChar32>(c.code)) != 0;
    out += !letter ? std::string(character) : in_word ? lower(character) : upper(character);
    in_word = letter;
    text.remove_prefix(c.size);
  }
  return out;
}

std::string title_words(absl::string_view text) {
  std::string out;
  bool in_word = false;
  while (!text.empty()) {
    const Char c = first_char(text);
    const absl::string_view character = text.substr(0, c.size);
    const bool between = is_space(c.code) || (c.size == 1 && absl::StrContains("-({[<", character));
    out += between ? std::string(character) : in_word ? lower(character) : upper(character);
    in_word = !between;
    text.remove_prefix(c.size);
  }
  return out;
}

std::size_t num_words(absl::string_view text) {
  std::size_t count = 0;
  bool in_word = false;
  while (!text.empty()) {
    const Char c = first_char(text);
    const auto code = static_cast<UChar32>(c.code);
    const bool word =
        c.code == U'_' || u_isalpha(code) != 0 || (U_GET_GC_MASK(code) & U_GC_N_MASK) != 0;
    if (word && !in_word) ++count;
    in_word = word;
    text.remove_prefix(c.size);
  }
  return count;
}

std::string escape_html(absl::string_view text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}});
}

std::string pad(absl::string_view text, std::int64_t width, absl::string_view fill, Side side) {
  const auto length = static_cast<std::int64_t>(num_characters(text));
  if (width <= length) return std::string(text);
  const std::int64_t missing = width - length;
  const std::int64_t left = side == Side::kLeft    ? 0
                            : side == Side::kRight ? missing
                                                   : missing / 2 + (missing & width & 1);
  std::string out;
  for (std::int64_t i = 0; i < left; ++i) absl::StrAppend(&out, fill);
  absl::StrAppend(&out, text);
  for (std::int64_t i = left; i < missing; ++i) absl::StrAppend(&out, fill);
  return out;
}

bool all_of_kind(absl::string_view text, CharacterKind kind) {
  bool some = false;
  while (!text.empty()) {
    const Char c = first_char(text);
    const auto code = static_cast<UChar32>(c.code);
    text.remove_prefix(c.size);
    const bool letter = u_isalpha(code) != 0;
    if (kind == CharacterKind::kUpper || kind == CharacterKind::kLower) {
      const bool is_upper = u_isUUppercase(code) != 0 || u_istitle(code) != 0;
      const bool is_lower = u_isULowercase(code) != 0;
      if (kind == CharacterKind::kUpper ? is_lower : is_upper) return false;
      some = some || is_upper || is_lower;
      continue;
    }
    const bool digit = u_isdigit(code) != 0;
    const bool number = (U_GET_GC_MASK(code) & U_GC_N_MASK) != 0;
    const bool fits = kind == CharacterKind::kDigit            ? digit
                      : kind == CharacterKind::kLetter         ? letter
                      : kind == CharacterKind::kLetterOrNumber ? letter || number
                                                               : is_space(c.code);
    if (!fits) return false;
    some = true;
  }
  return some;
}

}  // namespace quire::jinja
