// Merges neighbouring symbols of a text, best pair first, leftmost among equals, until no pair can
// be merged: the loop that byte-pair encoding by rank and SentencePiece's by score have in common.
// O(n log n) for n symbols, whatever the text is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <queue>
#include <vector>

#include "common/ids.h"

namespace quire {

struct MergeSymbol {
  std::size_t begin = 0;   // bytes of the text
  std::uint32_t size = 0;  // 0: merged into a symbol on its left
  TokenId id = -1;
  std::int32_t previous = -1;
  std::int32_t next = -1;
};

// `find(left, right, &order, &id)` says whether two neighbours merge: the lowest order goes first.
// `symbols` are linked in order, fewer than 2^31, their sizes below 2^32 together.
template <typename Find>
void merge_symbols(std::vector<MergeSymbol>& symbols, const Find& find) {
  struct Candidate {
    std::uint64_t key;   // order, then the left symbol's index
    std::uint32_t size;  // of both together when it was queued; another size means out of date
    TokenId id;
    bool operator<(const Candidate& other) const { return key > other.key; }  // top: the smallest
  };
  const auto at = [&](std::int32_t i) -> MergeSymbol& {
    return symbols[static_cast<std::size_t>(i)];
  };
  std::vector<Candidate> found;
  const auto look = [&](std::int32_t left, Candidate* candidate) {
    if (left < 0 || at(left).next < 0) return false;
    const MergeSymbol& a = at(left);
    const MergeSymbol& b = at(a.next);
    std::uint32_t order = 0;
    if (!find(a, b, &order, &candidate->id)) return false;
    candidate->key = static_cast<std::uint64_t>(order) << 32 | static_cast<std::uint32_t>(left);
    candidate->size = a.size + b.size;
    return true;
  };
  Candidate candidate{};
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    if (look(static_cast<std::int32_t>(i), &candidate)) found.push_back(candidate);
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(found));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    const auto index = static_cast<std::int32_t>(best.key & 0xFFFFFFFFu);
    MergeSymbol& left = at(index);
    if (left.size == 0 || left.next < 0 || left.size + at(left.next).size != best.size) continue;
    MergeSymbol& right = at(left.next);
    left.size = best.size;
    left.id = best.id;
    left.next = right.next;
    right.size = 0;
    if (left.next >= 0) at(left.next).previous = index;
    if (look(left.previous, &candidate)) queue.push(candidate);
    if (look(index, &candidate)) queue.push(candidate);
  }
}

}  // namespace quire
