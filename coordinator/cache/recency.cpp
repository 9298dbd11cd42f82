// Doubly linked lists in one array, one list for each class.
#include "coordinator/cache/recency.h"

#include "common/check.h"

namespace quire {

void Recency::clear() {
  links_.clear();
  classes_.clear();
  size_ = 0;
}

bool Recency::contains(std::int32_t id) const {
  return static_cast<std::size_t>(id) < links_.size() && at(id).listed;
}

void Recency::push(std::int32_t id, int priority) {
  QUIRE_CHECK(!contains(id));
  if (static_cast<std::size_t>(id) >= links_.size()) {
    links_.resize(static_cast<std::size_t>(id) + 1);
  }
  Ends& ends = classes_[priority];
  at(id) = {ends.newest, kNone, priority, true};
  if (ends.newest == kNone) {
    ends.oldest = id;
  } else {
    at(ends.newest).newer = id;
  }
  ends.newest = id;
  ++size_;
}

void Recency::remove(std::int32_t id) {
  QUIRE_CHECK(contains(id));
  const Link link = at(id);
  const auto found = classes_.find(link.priority);
  Ends& ends = found->second;
  (link.older == kNone ? ends.oldest : at(link.older).newer) = link.newer;
  (link.newer == kNone ? ends.newest : at(link.newer).older) = link.older;
  if (ends.oldest == kNone) classes_.erase(found);
  at(id).listed = false;
  --size_;
}

std::int32_t Recency::first() const {
  return classes_.empty() ? kNone : classes_.begin()->second.oldest;
}

std::int32_t Recency::after(std::int32_t id) const {
  const Link& link = at(id);
  if (link.newer != kNone) return link.newer;
  const auto next = classes_.upper_bound(link.priority);  // in descending order: less
  return next == classes_.end() ? kNone : next->second.oldest;
}

}  // namespace quire
