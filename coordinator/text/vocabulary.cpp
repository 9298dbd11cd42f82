// Storage of the tokens; see vocabulary.h.
#include "coordinator/text/vocabulary.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace quire {
namespace {

int hex_digit(char c) {
  if (absl::ascii_isdigit(static_cast<unsigned char>(c))) return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

absl::Status Vocabulary::add(TokenId id, std::string name) {
  if (id < 0 || id > kMaxTokenId) {
    return absl::InvalidArgumentError(
        absl::StrCat("token \"", name, "\" has the id ", id, "; allowed are 0 to ", kMaxTokenId));
  }
  if (id >= size()) entries_.resize(static_cast<std::size_t>(id) + 1);
  Entry& entry = at(id);
  if (entry.present && entry.name != name) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens \"", entry.name, "\" and \"", name, "\" have the same id ", id));
  }
  entry.name = std::move(name);
  entry.present = true;
  return absl::OkStatus();
}

void Vocabulary::set_bytes(TokenId id, std::string bytes) {
  Entry& entry = at(id);
  entry.bytes = bytes == entry.name ? std::string() : std::move(bytes);
}

int parse_byte_token(absl::string_view name) {
  if (name.size() != 6 || name.substr(0, 3) != "<0x" || name[5] != '>') return -1;
  const int high = hex_digit(name[3]);
  const int low = hex_digit(name[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace quire
