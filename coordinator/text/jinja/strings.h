// Texts as Python sees them: sequences of characters, split and stripped by white space.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace quire::jinja {

// The characters of a text by position. The text must outlive it.
class Characters {
 public:
  explicit Characters(absl::string_view text);
  std::size_t size() const { return ascii_ ? text_.size() : starts_.size() - 1; }
  absl::string_view at(std::size_t i) const {
    return ascii_ ? text_.substr(i, 1) : text_.substr(starts_[i], starts_[i + 1] - starts_[i]);
  }
  std::size_t byte_offset(std::size_t i) const { return ascii_ ? i : starts_[i]; }

 private:
  absl::string_view text_;
  bool ascii_;
  std::vector<std::size_t> starts_;  // not ASCII: byte offset of each character, and the end
};

std::size_t num_characters(absl::string_view text);

enum class Side { kBoth, kLeft, kRight };
// Removes white space, or the characters in `chars` where it is given.
absl::string_view strip(absl::string_view text, Side side,
                        const absl::string_view* chars = nullptr);

// str.split() and str.rsplit(): by white space where `separator` is null; at most `most` cuts
// (negative: all).
std::vector<absl::string_view> split(absl::string_view text, const absl::string_view* separator,
                                     std::int64_t most, bool from_right);
std::vector<absl::string_view> split_lines(absl::string_view text, bool keep_ends);
// Replaces at most `most` occurrences (negative: all).
std::string replace(absl::string_view text, absl::string_view from, absl::string_view to,
                    std::int64_t most);

// The size that replacing all occurrences gives, so that it can be charged before.
std::size_t replaced_size(absl::string_view text, absl::string_view from, absl::string_view to);

std::string upper(absl::string_view text);
std::string lower(absl::string_view text);
std::string capitalize(absl::string_view text);  // the first letter upper, the rest lower
std::string title(absl::string_view text);       // so for every run of letters
// So for every word, as the filter sees words: after white space, hyphens and opening brackets.
std::string title_words(absl::string_view text);
std::size_t num_words(absl::string_view text);  // runs of letters, digits and underscores
std::string escape_html(absl::string_view text);
// Fills up to `width` characters: the text on the left, on the right or in the middle.
std::string pad(absl::string_view text, std::int64_t width, absl::string_view fill, Side side);

// All characters are of the kind, and there is one. kUpper and kLower look at letters with case.
enum class CharacterKind { kDigit, kLetter, kLetterOrNumber, kSpace, kUpper, kLower };
bool all_of_kind(absl::string_view text, CharacterKind kind);

}  // namespace quire::jinja
