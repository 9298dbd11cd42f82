// SentencePiece's BPE (Kudo and Richardson, arXiv 1808.06226) from a vocabulary with scores: two
// neighbours merge whenever their text is a token, highest score first. Immutable, thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/text/vocabulary.h"

namespace quire {

class Spm {
 public:
  struct Member {
    TokenId id;
    absl::string_view text;  // lives as long as the model; spaces are spelled U+2581
    float score;
  };
  // `byte_ids`: the <0xXX> tokens, or -1. InvalidArgument for two members with one text.
  static absl::StatusOr<Spm> make(const std::vector<Member>& members,
                                  const std::array<TokenId, 256>& byte_ids, TokenId unk);

  // Appends the tokens of a text; what no token spells becomes bytes, or the unknown token.
  void encode(absl::string_view text, std::vector<TokenId>* out) const;

 private:
  struct Found {
    TokenId id;
    float score;
  };

  absl::flat_hash_map<absl::string_view, Found> tokens_;
  std::size_t longest_ = 0;  // bytes of the longest token: longer texts need no look-up
  std::array<TokenId, 256> byte_ids_;
  TokenId unk_ = -1;
};

}  // namespace quire
