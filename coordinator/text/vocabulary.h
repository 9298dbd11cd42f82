// The tokens by id: the name a token is stored under, the bytes it stands for, and whether it is
// special. Ids need not be dense; an id without a token has an empty name and no bytes.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"

namespace quire {

inline constexpr TokenId kMaxTokenId = (1 << 24) - 1;

class Vocabulary {
 public:
  struct Entry {
    std::string name;
    std::string bytes;  // empty: the same as the name (most tokens of SentencePiece kind)
    bool present = false;
    bool special = false;
  };

  // InvalidArgument if the id is out of range or already taken by another name.
  absl::Status add(TokenId id, std::string name);
  void set_bytes(TokenId id, std::string bytes);
  void mark_special(TokenId id) { at(id).special = true; }

  int size() const { return static_cast<int>(entries_.size()); }
  bool has(TokenId id) const { return id >= 0 && id < size() && get(id).present; }
  absl::string_view name(TokenId id) const { return has(id) ? get(id).name : absl::string_view(); }
  absl::string_view bytes(TokenId id) const {
    if (!has(id)) return {};
    return get(id).bytes.empty() ? get(id).name : get(id).bytes;
  }
  bool special(TokenId id) const { return has(id) && get(id).special; }

 private:
  const Entry& get(TokenId id) const { return entries_[static_cast<std::size_t>(id)]; }
  Entry& at(TokenId id) { return entries_[static_cast<std::size_t>(id)]; }

  std::vector<Entry> entries_;
};

// "<0xE2>" -> 0xE2; -1 for any other text. Exactly two hexadecimal digits.
int parse_byte_token(absl::string_view name);

}  // namespace quire
