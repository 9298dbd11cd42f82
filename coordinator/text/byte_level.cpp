// The table: printable Latin-1 characters stand for themselves, the other bytes for U+0100 upwards
// in byte order (GPT-2's encoder, OpenAI 2019).
#include "coordinator/text/byte_level.h"

#include "common/utf8.h"

namespace quire::byte_level {
namespace {

constexpr std::size_t kAlphabetEnd = 0x100 + 68;  // 68 bytes are not printable

bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

std::array<char32_t, 256> make_alphabet() {
  std::array<char32_t, 256> table{};
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    table[static_cast<std::size_t>(byte)] =
        stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
  }
  return table;
}

std::array<int, kAlphabetEnd> make_inverse() {
  std::array<int, kAlphabetEnd> table{};
  table.fill(-1);
  for (std::size_t byte = 0; byte < 256; ++byte) table[alphabet()[byte]] = static_cast<int>(byte);
  return table;
}

}  // namespace

const std::array<char32_t, 256>& alphabet() {
  static const std::array<char32_t, 256> table = make_alphabet();
  return table;
}

std::optional<std::string> to_bytes(absl::string_view spelled) {
  static const std::array<int, kAlphabetEnd> inverse = make_inverse();
  std::string out;
  while (!spelled.empty()) {
    const utf8::Decoded next = utf8::decode(spelled);
    if (next.size == 0 || next.code >= kAlphabetEnd || inverse[next.code] < 0) return std::nullopt;
    out.push_back(static_cast<char>(inverse[next.code]));
    spelled.remove_prefix(static_cast<std::size_t>(next.size));
  }
  return out;
}

}  // namespace quire::byte_level
