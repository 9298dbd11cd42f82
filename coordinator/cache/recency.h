// Ids in the order in which they were left, the least important class first: who goes when room is
// needed. Every operation takes constant time beside the look-up of the class.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

namespace quire {

class Recency {
 public:
  static constexpr std::int32_t kNone = -1;

  void clear();
  void push(std::int32_t id, int priority);  // the newest of its class; not in the list yet
  void remove(std::int32_t id);              // in the list
  bool contains(std::int32_t id) const;
  int size() const { return size_; }

  // The oldest of the least important class (the largest priority); kNone if empty.
  std::int32_t first() const;
  std::int32_t after(std::int32_t id) const;  // in that order

 private:
  struct Link {
    std::int32_t older = kNone;
    std::int32_t newer = kNone;
    int priority = 0;
    bool listed = false;
  };
  struct Ends {
    std::int32_t oldest = kNone;
    std::int32_t newest = kNone;
  };
  Link& at(std::int32_t id) { return links_[static_cast<std::size_t>(id)]; }
  const Link& at(std::int32_t id) const { return links_[static_cast<std::size_t>(id)]; }

  std::vector<Link> links_;                         // [id]
  std::map<int, Ends, std::greater<int>> classes_;  // without empty ones
  int size_ = 0;
};

}  // namespace quire
