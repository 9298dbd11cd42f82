#include "common/utf8.h"

#include <algorithm>
#include <cstring>

namespace quire::utf8 {
namespace {

constexpr char32_t kReplacement = 0xfffd;

unsigned byte_at(absl::string_view text, std::size_t i) {
  return static_cast<unsigned char>(text[i]);
}

// What a lead byte promises: the length, and the range of the second byte (which is what excludes
// overlong forms, surrogates and too large values; Unicode table 3-7).
struct Lead {
  int size = 0;  // 0: not a lead byte
  unsigned low = 0x80;
  unsigned high = 0xbf;
};

Lead lead_of(unsigned byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xc2) return {0};
  if (byte < 0xe0) return {2};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};
  if (byte < 0xf0) return {3};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {0};
}

// How many bytes at the front could begin a valid character, counting the lead; whole if == size.
int matching_bytes(absl::string_view text, const Lead& lead) {
  if (lead.size == 0) return 0;
  int n = 1;
  for (; n < lead.size && static_cast<std::size_t>(n) < text.size(); ++n) {
    const unsigned byte = byte_at(text, static_cast<std::size_t>(n));
    const unsigned low = n == 1 ? lead.low : 0x80;
    const unsigned high = n == 1 ? lead.high : 0xbf;
    if (byte < low || byte > high) break;
  }
  return n;
}

}  // namespace

Decoded decode(absl::string_view text) {
  if (text.empty()) return {0, 0, true};
  const Lead lead = lead_of(byte_at(text, 0));
  const int n = matching_bytes(text, lead);
  if (lead.size == 0) return {};
  if (n < lead.size) return {0, 0, static_cast<std::size_t>(n) == text.size()};
  if (n == 1) return {static_cast<char32_t>(byte_at(text, 0)), 1, false};
  char32_t code = byte_at(text, 0) & (0xffu >> (lead.size + 1));
  for (int i = 1; i < n; ++i)
    code = code << 6 | (byte_at(text, static_cast<std::size_t>(i)) & 0x3f);
  return {code, n, false};
}

std::size_t first_invalid(absl::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t word = 0;  // eight ASCII bytes at a time
    if (text.size() - at >= sizeof(word)) {
      std::memcpy(&word, text.data() + at, sizeof(word));
      if ((word & 0x8080808080808080u) == 0) {
        at += sizeof(word);
        continue;
      }
    }
    const int size = decode(text.substr(at)).size;
    if (size == 0) return at;
    at += static_cast<std::size_t>(size);
  }
  return npos;
}

std::size_t complete_prefix(absl::string_view text) {
  const std::size_t longest = std::min<std::size_t>(text.size(), 3);
  for (std::size_t tail = 1; tail <= longest; ++tail) {
    const absl::string_view end = text.substr(text.size() - tail);
    if ((byte_at(end, 0) & 0xc0) == 0x80) continue;  // inside a character: look further back
    return decode(end).incomplete ? text.size() - tail : text.size();
  }
  return text.size();
}

void append(char32_t code, std::string* out) {
  if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) code = kReplacement;
  const auto put = [&](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6);
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3f));
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

std::string to_valid(absl::string_view text) {
  std::string out;
  while (!text.empty()) {
    std::size_t good = first_invalid(text);
    if (good == npos) good = text.size();
    out.append(text.data(), good);
    text.remove_prefix(good);
    if (text.empty()) break;
    append(kReplacement, &out);
    const int bad = matching_bytes(text, lead_of(byte_at(text, 0)));
    text.remove_prefix(static_cast<std::size_t>(std::max(bad, 1)));
  }
  return out;
}

}  // namespace quire::utf8
