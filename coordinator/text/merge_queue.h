// Merges neighbouring symbols of a text, best pair first, leftmost among equals, until no pair can
// be merged: the loop that byte-pair encoding by rank and SentencePiece's by score have in common.
// O(n log n) for n symbols, whatever the text is.
#pragma once

#include <cstddef>
#include <queue>
#include <vector>

#include "common/ids.h"

namespace quire {

struct MergeSymbol {
  std::size_t begin = 0;  // bytes of the text
  std::size_t size = 0;   // 0: merged into a symbol on its left
  TokenId id = -1;
  int previous = -1;
  int next = -1;
};

// `find(left, right, &priority, &id)` says whether two neighbours merge: the lowest priority goes
// first. `symbols` are linked in order.
template <typename Find>
void merge_symbols(std::vector<MergeSymbol>& symbols, const Find& find) {
  struct Candidate {
    double priority;
    int left;
    int right;
    std::size_t size;  // of both together when it was queued; another size means out of date
    TokenId id;
    bool operator<(const Candidate& other) const {  // the queue's top is its largest
      return priority != other.priority ? priority > other.priority : left > other.left;
    }
  };
  std::priority_queue<Candidate> queue;
  const auto offer = [&](int left, int right) {
    if (left < 0 || right < 0) return;
    const MergeSymbol& a = symbols[static_cast<std::size_t>(left)];
    const MergeSymbol& b = symbols[static_cast<std::size_t>(right)];
    double priority = 0.0;
    TokenId id = -1;
    if (find(a, b, &priority, &id)) queue.push({priority, left, right, a.size + b.size, id});
  };
  for (const MergeSymbol& symbol : symbols) {
    if (symbol.next >= 0)
      offer(symbols[static_cast<std::size_t>(symbol.next)].previous, symbol.next);
  }
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    MergeSymbol& left = symbols[static_cast<std::size_t>(best.left)];
    MergeSymbol& right = symbols[static_cast<std::size_t>(best.right)];
    if (left.size == 0 || right.size == 0 || left.size + right.size != best.size) continue;
    left.size += right.size;
    left.id = best.id;
    left.next = right.next;
    right.size = 0;
    if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = best.left;
    offer(left.previous, best.left);
    offer(best.left, left.next);
  }
}

}  // namespace quire
