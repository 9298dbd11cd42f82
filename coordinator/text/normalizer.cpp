// The steps of a normalizer; Unicode knowledge comes from ICU.
#include "coordinator/text/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/status.h"
#include "common/utf8.h"

namespace quire {
namespace {

using Kind = NormalizerStep::Kind;

bool is_ascii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

const icu::Normalizer2* normal_form(Kind kind, UErrorCode& error) {
  switch (kind) {
    case Kind::kNfc:
      return icu::Normalizer2::getNFCInstance(error);
    case Kind::kNfd:
      return icu::Normalizer2::getNFDInstance(error);
    case Kind::kNfkc:
      return icu::Normalizer2::getNFKCInstance(error);
    default:
      return icu::Normalizer2::getNFKDInstance(error);
  }
}

absl::StatusOr<std::string> to_normal_form(Kind kind, absl::string_view text) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* form = normal_form(kind, error);
  std::string out;
  if (U_SUCCESS(error)) {
    icu::StringByteSink<std::string> sink(&out, static_cast<int32_t>(text.size()));
    form->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink,
                        nullptr, error);
  }
  if (U_FAILURE(error)) {
    return absl::InternalError(
        absl::StrCat("Unicode normalization failed: ICU says ", u_errorName(error)));
  }
  return out;
}

// Character by character, as the tokenizers library does: no rule looks at the context.
std::string to_lowercase(absl::string_view text) {
  std::string out;
  while (!text.empty()) {
    const utf8::Decoded next = utf8::decode(text);
    icu::UnicodeString lower(static_cast<UChar32>(next.code));
    lower.toLower(icu::Locale::getRoot()).toUTF8String(out);
    text.remove_prefix(static_cast<std::size_t>(std::max(next.size, 1)));
  }
  return out;
}

absl::StatusOr<std::string> replace(const NormalizerStep& step, absl::string_view text) {
  if (!step.regex.has_value()) return absl::StrReplaceAll(text, {{step.pattern, step.content}});
  std::string out;
  Regex::Cursor cursor(*step.regex);
  Regex::Match match;
  std::size_t done = 0;
  std::size_t from = 0;
  while (from <= text.size() && cursor.find(text, from, &match)) {
    absl::StrAppend(&out, text.substr(done, match.begin - done), step.content);
    done = match.end;
    from = match.end;
    if (match.begin == match.end) {  // an empty match: step over one character
      from += from < text.size()
                  ? static_cast<std::size_t>(std::max(utf8::decode(text.substr(from)).size, 1))
                  : 1;
    }
  }
  QUIRE_RETURN_IF_ERROR(cursor.status());
  absl::StrAppend(&out, text.substr(done));
  return out;
}

std::string strip(const NormalizerStep& step, absl::string_view text) {
  const auto is_space = [](char32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)) != 0; };
  while (step.left && !text.empty()) {
    const utf8::Decoded first = utf8::decode(text);
    if (!is_space(first.code)) break;
    text.remove_prefix(static_cast<std::size_t>(first.size));
  }
  while (step.right && !text.empty()) {
    std::size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    if (!is_space(utf8::decode(text.substr(begin)).code)) break;
    text = text.substr(0, begin);
  }
  return std::string(text);
}

absl::StatusOr<std::string> run(const NormalizerStep& step, absl::string_view text) {
  switch (step.kind) {
    case Kind::kLowercase:
      return to_lowercase(text);
    case Kind::kPrepend:
      return text.empty() ? std::string() : absl::StrCat(step.content, text);
    case Kind::kReplace:
      return replace(step, text);
    case Kind::kStrip:
      return strip(step, text);
    default:
      return to_normal_form(step.kind, text);
  }
}

bool leaves_ascii_alone(Kind kind) {
  return kind == Kind::kNfc || kind == Kind::kNfd || kind == Kind::kNfkc || kind == Kind::kNfkd;
}

}  // namespace

absl::StatusOr<absl::string_view> Normalizer::apply(absl::string_view text,
                                                    std::string* storage) const {
  for (const NormalizerStep& step : steps_) {
    if (leaves_ascii_alone(step.kind) && is_ascii(text)) continue;
    QUIRE_ASSIGN_OR_RETURN(*storage, run(step, text));
    text = *storage;
  }
  return text;
}

}  // namespace quire
