// The tokens inside a tag; see tag_reader.h.
#include "coordinator/text/jinja/tag_reader.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/utf8.h"

namespace quire::jinja {
namespace {

constexpr absl::string_view kOperators[] = {"**", "//", "==", "!=", "<=", ">=", "+", "-", "*",
                                            "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                            "]",  "{",  "}",  ".",  ",",  ":",  "|"};

bool is_digit(char c) {
  return absl::ascii_isdigit(static_cast<unsigned char>(c));
}

bool is_name_start(char c) {
  return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

bool is_name_part(char c) {
  return is_name_start(c) || is_digit(c);
}

std::size_t span(absl::string_view text, bool (*accept)(char)) {
  return static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), accept) -
                                  text.begin());
}

int digit_value(char c) {
  if (is_digit(c)) return c - '0';
  const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : 99;
}

// Up to `most` digits of the base at the front of `text`; returns how many were read.
std::size_t read_digits(absl::string_view text, int base, std::size_t most, char32_t* value) {
  std::size_t n = 0;
  *value = 0;
  while (n < most && n < text.size() && digit_value(text[n]) < base) {
    *value = *value * static_cast<char32_t>(base) + static_cast<char32_t>(digit_value(text[n++]));
  }
  return n;
}

// Resolves the escape after a backslash at the front of `text` (Python's string literals); returns
// how many bytes it took.
std::size_t append_escaped(absl::string_view text, std::string* out) {
  static constexpr absl::string_view kLetters = "\\'\"abfnrtv\n";
  static constexpr absl::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
  const char c = text[0];
  if (const std::size_t at = kLetters.find(c); at != absl::string_view::npos) {
    if (c != '\n') out->push_back(kValues[at]);
    return 1;
  }
  char32_t code = 0;
  if (const std::size_t n = read_digits(text, 8, 3, &code); n > 0) {
    utf8::append(code, out);
    return n;
  }
  const std::size_t wanted = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  if (wanted > 0 && read_digits(text.substr(1), 16, wanted, &code) == wanted) {
    utf8::append(code, out);
    return 1 + wanted;
  }
  out->push_back('\\');
  return 0;
}

}  // namespace

void TagReader::advance(std::size_t count) {
  line +=
      static_cast<int>(std::count(source.begin() + static_cast<std::ptrdiff_t>(pos),
                                  source.begin() + static_cast<std::ptrdiff_t>(pos + count), '\n'));
  pos += count;
}

void TagReader::add(Token::Kind kind, std::size_t size) {
  tokens.push_back({kind, std::string(source.substr(pos, size)), line});
  advance(size);
}

void TagReader::read_tag(absl::string_view end) {
  const int begin_line = line;
  brackets_.clear();
  while (true) {
    advance(source.size() - pos - absl::StripLeadingAsciiWhitespace(source.substr(pos)).size());
    const absl::string_view rest = source.substr(pos);
    if (rest.empty()) {
      throw SyntaxError{begin_line, absl::StrCat("the tag is not closed with ", end)};
    }
    const bool sign = rest[0] == '-' || (rest[0] == '+' && end == "%}");
    if (brackets_.empty() && absl::StartsWith(rest.substr(sign ? 1 : 0), end)) return;
    read_token();
  }
}

void TagReader::read_token() {
  const absl::string_view rest = source.substr(pos);
  if (is_name_start(rest[0])) {
    add(Token::Kind::kName, span(rest, is_name_part));
  } else if (is_digit(rest[0])) {
    read_number();
  } else if (rest[0] == '\'' || rest[0] == '"') {
    read_string();
  } else {
    read_operator();
  }
}

void TagReader::read_number() {
  const absl::string_view rest = source.substr(pos);
  const auto digit_or_blank = [](char c) { return is_digit(c) || c == '_'; };
  if (rest.size() > 2 && rest[0] == '0' &&
      absl::ascii_isalpha(static_cast<unsigned char>(rest[1]))) {
    add(Token::Kind::kInteger, 1 + span(rest.substr(1), is_name_part));
    return;
  }
  std::size_t size = span(rest, digit_or_blank);
  bool is_float = false;
  const bool after_dot = pos > 0 && source[pos - 1] == '.';  // list.1.2: two look-ups
  if (!after_dot && size + 1 < rest.size() && rest[size] == '.' && is_digit(rest[size + 1])) {
    is_float = true;
    size += 1 + span(rest.substr(size + 1), digit_or_blank);
  }
  if (!after_dot && size < rest.size() && (rest[size] == 'e' || rest[size] == 'E')) {
    std::size_t at = size + 1;
    if (at < rest.size() && (rest[at] == '+' || rest[at] == '-')) ++at;
    if (at < rest.size() && is_digit(rest[at])) {
      is_float = true;
      size = at + span(rest.substr(at), digit_or_blank);
    }
  }
  add(is_float ? Token::Kind::kFloat : Token::Kind::kInteger, size);
}

void TagReader::read_string() {
  const absl::string_view rest = source.substr(pos);
  std::string value;
  std::size_t i = 1;
  while (i < rest.size() && rest[i] != rest[0]) {
    if (rest[i] == '\\' && i + 1 < rest.size()) {
      i += 1 + append_escaped(rest.substr(i + 1), &value);
    } else {
      value.push_back(rest[i++]);
    }
  }
  if (i >= rest.size()) throw SyntaxError{line, "the text is not closed with its quote"};
  tokens.push_back({Token::Kind::kString, std::move(value), line});
  advance(i + 1);
}

void TagReader::read_operator() {
  const absl::string_view rest = source.substr(pos);
  for (const absl::string_view op : kOperators) {
    if (!absl::StartsWith(rest, op)) continue;
    if (op == "(" || op == "[" || op == "{") {
      brackets_.push_back(op == "(" ? ')' : op == "[" ? ']' : '}');
    } else if (op == ")" || op == "]" || op == "}") {
      if (brackets_.empty() || brackets_.back() != op[0]) {
        throw SyntaxError{line, absl::StrCat("unexpected '", op, "'")};
      }
      brackets_.pop_back();
    }
    add(Token::Kind::kOperator, op.size());
    return;
  }
  throw SyntaxError{line, absl::StrCat("unexpected character '", rest.substr(0, 1), "'")};
}

}  // namespace quire::jinja
