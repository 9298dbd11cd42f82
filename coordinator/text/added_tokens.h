// Finds the texts of added tokens ("<|im_start|>", "<think>") in a text: leftmost, then longest.
// Such tokens are cut out before anything else of the tokenizer sees the text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"

namespace quire {

inline constexpr std::size_t kMaxAddedTokenBytes = 1024;  // bounds the work per position

struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool special = false;      // becomes a token only where special tokens are asked for
  bool lstrip = false;       // takes the white space on its left with it
  bool rstrip = false;       // and on its right
  bool single_word = false;  // only where no word character touches it
};

class AddedTokens {
 public:
  // InvalidArgument for an empty or overlong content.
  absl::Status add(AddedToken token);

  // A part of the text: a token, or (id < 0) text between tokens. Never empty.
  struct Part {
    TokenId id = -1;
    absl::string_view text;
  };
  std::vector<Part> split(absl::string_view text, bool with_special) const;

  bool empty() const { return tokens_.empty(); }

 private:
  const AddedToken* match_at(absl::string_view text, std::size_t begin, bool with_special) const;

  // A trie over bytes; node 0 is the root. Edges are keyed by node * 256 + byte.
  std::vector<AddedToken> tokens_;
  std::vector<int> token_of_node_ = {-1};
  absl::flat_hash_map<std::uint64_t, int> edges_;
  std::array<bool, 256> first_bytes_{};
};

}  // namespace quire
