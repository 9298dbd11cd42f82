// Drafts for one sequence by looking up its own past: what followed the last time that the newest
// tokens were seen. draft_gain.h says how many of them are worth a try.
// The drafter holds no tokens, only where n-grams ended; every match is compared token by token,
// so a hash collision can lose a draft but never make a false one. No locks: one sequence, one
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "common/ids.h"
#include "coordinator/schedule/draft_gain.h"

namespace quire {

class NgramDrafter {
 public:
  // 1 <= min_n <= max_n <= kMaxN.
  static constexpr int kMaxN = 16;
  NgramDrafter(int min_n, int max_n);

  // The sequence grows. O(max_n) per token, amortised, whatever the tokens are.
  void append(TokenId token);
  void extend(absl::Span<const TokenId> tokens);
  int num_tokens() const { return num_tokens_; }

  // At most `max_tokens` tokens that followed the latest earlier place where the last n tokens
  // stood, for the largest n that has one. If that place overlaps the end, the period goes on.
  // `tokens`: all that were appended. Empty: nothing was found.
  std::vector<TokenId> draft(absl::Span<const TokenId> tokens, int max_tokens) const;
  // The first of them; -1: nothing was found.
  TokenId next(absl::Span<const TokenId> tokens) const;

  // What the table is indexed by. Public for tests, which look for collisions.
  static std::uint32_t tag(absl::Span<const TokenId> ngram);

 private:
  struct Slot {
    std::uint32_t tag = 0;
    std::int32_t end = -1;  // index of the n-gram's last token; -1: free
  };

  void insert(std::uint32_t tag, std::int32_t end);
  void grow();
  std::int32_t find(std::uint32_t tag) const;
  // Where the first draft stands.
  std::optional<std::size_t> source(absl::Span<const TokenId> tokens) const;

  const int min_n_;
  const int max_n_;
  int num_tokens_ = 0;
  std::vector<TokenId> tail_;  // the last max_n tokens, in order
  std::vector<Slot> slots_;    // a power of two, of every n together
  std::size_t num_used_ = 0;
};

}  // namespace quire
