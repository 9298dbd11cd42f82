// Byte-pair encoding with ranked merges (Sennrich et al., arXiv 1508.07909), over bytes (GPT-2) or
// over characters with byte fallback (Llama-2 as a tokenizer.json). Immutable, thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/text/merge_queue.h"
#include "coordinator/text/vocabulary.h"

namespace quire {

struct BpeOptions {
  bool byte_level = true;      // symbols are bytes; else characters
  bool ignore_merges = false;  // a piece that is a token is that token, whatever the merges say
  bool byte_fallback = false;  // unknown characters become <0xXX> tokens
  bool fuse_unk = false;       // neighbouring unknown characters become one unknown token
  TokenId unk = -1;            // for what no token spells; -1: it is dropped
};

class Bpe {
 public:
  // `members` are the tokens the model may produce, by their bytes in `vocabulary`, which must
  // outlive the model. `merges` are in rank order, both halves spelled as bytes.
  // InvalidArgument names a merge whose halves or result are no tokens.
  static absl::StatusOr<Bpe> make(const Vocabulary& vocabulary, const std::vector<TokenId>& members,
                                  const std::vector<std::pair<std::string, std::string>>& merges,
                                  const BpeOptions& options);

  // Appends the tokens of one piece.
  void encode(absl::string_view piece, std::vector<TokenId>* out) const;

 private:
  struct Merge {
    std::int32_t rank;
    TokenId id;
  };
  enum Reachable : std::uint8_t { kUnknown, kYes, kNo };

  TokenId find(absl::string_view bytes) const;
  const Merge* find_merge(TokenId left, TokenId right) const;
  void first_symbols(absl::string_view piece, std::vector<TokenId>* symbols) const;
  void add_unknown(absl::string_view character, std::vector<TokenId>* symbols) const;
  void merge_few(std::vector<TokenId>* symbols) const;
  void merge_many(std::vector<TokenId>* symbols) const;

  BpeOptions options_;
  absl::flat_hash_map<absl::string_view, TokenId> ids_;  // keys live in the vocabulary
  absl::flat_hash_map<std::uint64_t, Merge> merges_;     // key: left id, right id
  std::array<TokenId, 256> byte_ids_;                    // byte_level: of each byte, or -1
  std::array<TokenId, 256> fallback_ids_;                // <0xXX> tokens, or -1
  bool has_fallback_ = false;                            // all 256 are there
  // By token: do the merges of its own bytes give the token again? Found out once, on first use.
  std::unique_ptr<std::atomic<std::uint8_t>[]> reachable_;
};

}  // namespace quire
