// The tags and the white space around them; see lexer.h. What is inside a tag is read by
// TagReader.
#include "coordinator/text/jinja/lexer.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "coordinator/text/jinja/tag_reader.h"

namespace quire::jinja {
namespace {

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : reader_(source) {}

  std::vector<Token> run() {
    while (reader_.pos < reader_.source.size()) read_text();
    add(Token::Kind::kEnd, "");
    return std::move(reader_.tokens);
  }

 private:
  absl::string_view rest() const { return reader_.source.substr(reader_.pos); }

  void add(Token::Kind kind, std::string text) {
    reader_.tokens.push_back({kind, std::move(text), reader_.line});
  }

  // Text up to the next tag, then that tag.
  void read_text() {
    const absl::string_view text = rest();
    std::size_t end = 0;
    for (;; ++end) {
      end = text.find('{', end);
      if (end == absl::string_view::npos || end + 1 >= text.size()) {
        end = text.size();
        break;
      }
      const char next = text[end + 1];
      if (next == '{' || next == '%' || next == '#') break;
    }
    const absl::string_view tag = text.substr(end);
    const char sign = tag.size() > 2 ? tag[2] : ' ';
    add_text(text.substr(0, end), tag, sign);
    reader_.advance(end);
    if (tag.empty()) return;
    reader_.advance(2 + (sign == '-' || sign == '+' ? 1 : 0));
    if (tag[1] == '#') {
      read_comment();
    } else if (tag[1] == '{') {
      add(Token::Kind::kVariableBegin, "");
      reader_.read_tag("}}");
      add(Token::Kind::kVariableEnd, "");
      end_tag(/*trims=*/false);
    } else if (!read_raw()) {
      add(Token::Kind::kBlockBegin, "");
      reader_.read_tag("%}");
      add(Token::Kind::kBlockEnd, "");
      end_tag(/*trims=*/true);
    }
  }

  // The text before a tag, less the white space that the tag takes away.
  void add_text(absl::string_view text, absl::string_view tag, char sign) {
    if (!tag.empty() && sign == '-') {
      text = absl::StripTrailingAsciiWhitespace(text);
    } else if (!tag.empty() && sign != '+' && tag[1] != '{') {
      const std::size_t newline = text.rfind('\n');
      const std::size_t begin = newline == absl::string_view::npos ? 0 : newline + 1;
      const absl::string_view indent = text.substr(begin);
      if ((begin > 0 || at_line_start_) && absl::StripAsciiWhitespace(indent).empty()) {
        text = text.substr(0, begin);
      }
    }
    if (!text.empty()) add(Token::Kind::kText, std::string(text));
  }

  // After "}}", "%}" or "#}", which is still ahead: takes it and what it takes away.
  void end_tag(bool trims) {
    const bool strips = absl::StartsWith(rest(), "-");
    const bool keeps = absl::StartsWith(rest(), "+");
    reader_.advance(strips || keeps ? 3 : 2);
    at_line_start_ = false;
    if (strips) {
      const absl::string_view kept = absl::StripLeadingAsciiWhitespace(rest());
      const std::size_t taken = rest().size() - kept.size();
      at_line_start_ = taken > 0 && rest()[taken - 1] == '\n';
      reader_.advance(taken);
    } else if (trims && !keeps && absl::StartsWith(rest(), "\n")) {
      reader_.advance(1);
      at_line_start_ = true;
    }
  }

  void read_comment() {
    const std::size_t end = rest().find("#}");
    if (end == absl::string_view::npos) {
      throw SyntaxError{reader_.line, "the comment is not closed with #}"};
    }
    const bool sign = end > 0 && (rest()[end - 1] == '-' || rest()[end - 1] == '+');
    reader_.advance(sign ? end - 1 : end);
    end_tag(/*trims=*/true);
  }

  // {% raw %} ... {% endraw %}, if that is what begins here.
  bool read_raw() {
    std::size_t size = 0;
    bool strips = false;
    if (!match_word_tag(rest(), "raw", &size, &strips)) return false;
    const int begin_line = reader_.line;
    reader_.advance(size);
    if (strips) {
      reader_.advance(rest().size() - absl::StripLeadingAsciiWhitespace(rest()).size());
    }
    at_line_start_ = false;
    for (std::size_t at = rest().find("{%"); at != absl::string_view::npos;
         at = rest().find("{%", at + 1)) {
      const absl::string_view tag = rest().substr(at);
      const char sign = tag.size() > 2 ? tag[2] : ' ';
      const std::size_t skip = sign == '-' || sign == '+' ? 3 : 2;
      if (tag.size() < skip || !match_word_tag(tag.substr(skip), "endraw", &size, &strips)) {
        continue;
      }
      add_text(rest().substr(0, at), tag, sign);
      reader_.advance(at + skip + size - (strips ? 3 : 2));
      end_tag(/*trims=*/true);
      return true;
    }
    throw SyntaxError{begin_line, "the raw block is not closed with {% endraw %}"};
  }

  // Whether `text` is "  word  %}" with an optional sign; `size` covers all of it.
  static bool match_word_tag(absl::string_view text, absl::string_view word, std::size_t* size,
                             bool* strips) {
    const std::size_t whole = text.size();
    text = absl::StripLeadingAsciiWhitespace(text);
    if (!absl::StartsWith(text, word)) return false;
    text = absl::StripLeadingAsciiWhitespace(text.substr(word.size()));
    *strips = absl::StartsWith(text, "-%}");
    if (!*strips && !absl::StartsWith(text, "%}")) return false;
    *size = whole - text.size() + (*strips ? 3 : 2);
    return true;
  }

  TagReader reader_;
  bool at_line_start_ = true;  // the text that comes begins a line
};

}  // namespace

std::vector<Token> tokenize(absl::string_view source) {
  std::string text = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return Lexer(text).run();
}

}  // namespace quire::jinja
