// The table of ngram_drafter.h: open addressing within a short window, so that no choice of tokens
// makes a lookup long. Where a window is full, the n-gram seen longest ago gives way.
#include "coordinator/schedule/ngram_drafter.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "common/check.h"

namespace quire {
namespace {

constexpr std::size_t kWindow = 64;  // slots in which a tag can lie: enough for honest tokens
constexpr std::size_t kFirstSlots = 64;

// One token more, in front of those that `hash` stands for.
std::uint64_t mixed(std::uint64_t hash, TokenId token) {
  hash = (hash ^ static_cast<std::uint32_t>(token)) * 0x9e3779b97f4a7c15ULL;
  return hash ^ (hash >> 29);
}
constexpr std::uint64_t kNoTokens = 0x243f6a8885a308d3ULL;

std::uint32_t tag_of(std::uint64_t hash) {
  return static_cast<std::uint32_t>(hash * 0xd6e8feb86659fd93ULL >> 32);
}

}  // namespace

NgramDrafter::NgramDrafter(int min_n, int max_n) : min_n_(min_n), max_n_(max_n) {
  QUIRE_CHECK_GE(min_n, 1);
  QUIRE_CHECK_LE(min_n, max_n);
  QUIRE_CHECK_LE(max_n, kMaxN);
}

std::uint32_t NgramDrafter::tag(absl::Span<const TokenId> ngram) {
  std::uint64_t hash = kNoTokens;
  for (std::size_t i = ngram.size(); i-- > 0;) hash = mixed(hash, ngram[i]);
  return tag_of(hash);
}

void NgramDrafter::extend(absl::Span<const TokenId> tokens) {
  for (const TokenId token : tokens) append(token);
}

// The n-grams that end before `token` become known now that something follows them: so the newest
// tokens are never found as their own earlier occurrence.
void NgramDrafter::append(TokenId token) {
  std::uint64_t hash = kNoTokens;
  const int size = static_cast<int>(tail_.size());
  for (int n = 1; n <= size; ++n) {
    hash = mixed(hash, tail_[static_cast<std::size_t>(size - n)]);
    if (n >= min_n_) insert(tag_of(hash), num_tokens_ - 1);
  }
  if (size == max_n_) tail_.erase(tail_.begin());
  tail_.push_back(token);
  ++num_tokens_;
}

void NgramDrafter::insert(std::uint32_t tag, std::int32_t end) {
  if (2 * (num_used_ + 1) > slots_.size()) grow();
  const std::size_t mask = slots_.size() - 1;
  Slot* oldest = nullptr;
  for (std::size_t i = 0; i < kWindow; ++i) {
    Slot& slot = slots_[(tag + i) & mask];
    if (slot.end < 0) {
      slot = {tag, end};
      ++num_used_;
      return;
    }
    if (slot.tag == tag) {
      slot.end = std::max(slot.end, end);
      return;
    }
    if (oldest == nullptr || slot.end < oldest->end) oldest = &slot;
  }
  if (oldest->end < end) *oldest = {tag, end};
}

void NgramDrafter::grow() {
  const std::vector<Slot> old = std::exchange(slots_, {});
  slots_.resize(old.empty() ? kFirstSlots : 2 * old.size());
  num_used_ = 0;
  for (const Slot& slot : old) {
    if (slot.end >= 0) insert(slot.tag, slot.end);
  }
}

// The end of the last n-gram of this tag, or of another one; -1 if there is none.
std::int32_t NgramDrafter::find(std::uint32_t tag) const {
  if (slots_.empty()) return -1;
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = 0; i < kWindow; ++i) {
    const Slot& slot = slots_[(tag + i) & mask];
    if (slot.end < 0 || slot.tag == tag) return slot.end;
  }
  return -1;
}

std::optional<std::size_t> NgramDrafter::source(absl::Span<const TokenId> tokens) const {
  QUIRE_CHECK_EQ(static_cast<int>(tokens.size()), num_tokens_);
  std::array<std::uint32_t, kMaxN + 1> tags = {};
  const int longest = std::min(max_n_, num_tokens_ - 1);
  std::uint64_t hash = kNoTokens;
  for (int n = 1; n <= longest; ++n) {
    hash = mixed(hash, tokens[tokens.size() - static_cast<std::size_t>(n)]);
    tags[static_cast<std::size_t>(n)] = tag_of(hash);
  }
  for (int n = longest; n >= min_n_; --n) {
    const std::int32_t end = find(tags[static_cast<std::size_t>(n)]);
    if (end < n - 1) continue;
    const auto length = static_cast<std::size_t>(n);
    const std::size_t next = static_cast<std::size_t>(end) + 1;
    if (tokens.subspan(next - length, length) == tokens.last(length)) return next;
  }
  return std::nullopt;
}

TokenId NgramDrafter::next(absl::Span<const TokenId> tokens) const {
  const std::optional<std::size_t> found = source(tokens);
  return found.has_value() ? tokens[*found] : -1;
}

std::vector<TokenId> NgramDrafter::draft(absl::Span<const TokenId> tokens, int max_tokens) const {
  if (max_tokens <= 0) return {};
  const std::optional<std::size_t> found = source(tokens);
  if (!found.has_value()) return {};
  std::vector<TokenId> drafts;
  for (std::size_t i = *found; static_cast<int>(drafts.size()) < max_tokens; ++i) {
    drafts.push_back(i < tokens.size() ? tokens[i] : drafts[i - tokens.size()]);
  }
  return drafts;
}

}  // namespace quire
