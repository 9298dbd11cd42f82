// The tokens of a sequence, in order. The newest few stand in the object itself: the rest of each
// of thousands of sequences is on a page of its own, and to reach for as many pages in every step
// takes longer (a page walk each) than all else that is done with the tokens.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/ids.h"

namespace quire {

class TokenList {
 public:
  TokenList() = default;
  explicit TokenList(std::vector<TokenId> tokens)
      : num_settled_(static_cast<int>(tokens.size())), settled_(std::move(tokens)) {}

  int size() const { return num_settled_ + num_newest_; }
  TokenId back() const {
    return num_newest_ > 0 ? newest_[static_cast<std::size_t>(num_newest_ - 1)] : settled_.back();
  }
  void push_back(TokenId token) {
    if (num_newest_ == kMostNewest) settle();
    newest_[static_cast<std::size_t>(num_newest_++)] = token;
  }
  // All of them; good until the list changes.
  const std::vector<TokenId>& all() {
    if (num_newest_ > 0) settle();
    return settled_;
  }

 private:
  static constexpr int kMostNewest = 8;

  void settle() {
    settled_.insert(settled_.end(), newest_.begin(), newest_.begin() + num_newest_);
    num_settled_ += std::exchange(num_newest_, 0);
  }

  int num_settled_ = 0;  // settled_.size(), which is not at hand
  int num_newest_ = 0;
  std::array<TokenId, kMostNewest> newest_ = {};
  std::vector<TokenId> settled_;
};

}  // namespace quire
