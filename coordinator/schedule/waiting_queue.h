// The sequences that wait to be admitted, in order; with several tenants also how much service each
// has had. Fairness is by a virtual counter (Sheng et al., "Fairness in Serving Large Language
// Models", 2024): what a tenant is granted is added to its counter, divided by its weight, and of
// those that have something waiting the one with the smallest counter is next. A tenant that comes
// back after a pause starts at the smallest counter of those present: nobody saves up a claim.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/types/span.h"
#include "coordinator/schedule/policy.h"

namespace quire {

class WaitingQueue {
 public:
  // `weights` of the tenants, at least one.
  WaitingQueue(Policy policy, std::vector<double> weights);

  void push(Sequence* sequence);
  void remove(Sequence* sequence);  // in the queue
  bool empty() const { return size_ == 0; }
  int size() const { return size_; }
  std::int64_t num_tokens() const { return num_tokens_; }  // of their prompts

  // Who is next: null if nobody waits. Constant time beside the number of tenants.
  Sequence* head() const;
  // The first in order of one request; null if nothing of it waits. Walks over all.
  Sequence* first_of(RequestId request) const;
  // The first few in line where head() stands, at most `count`.
  void first(int count, std::vector<Sequence*>* out) const;
  // Of the prompts of those who are served before `order_us` in any case, without the first `skip`;
  // too few where the order is not known (several lines) or the queue is very long.
  std::int64_t tokens_before(std::int64_t order_us, int skip) const;
  // Every one; for checks and for changes of the group.
  std::vector<Sequence*> all() const;

  // A tenant has so many requests unfinished: present while there are any.
  void enter(int tenant);
  void leave(int tenant);
  void charge(int tenant, double tokens);
  absl::Span<const double> service() const { return service_; }  // [tenant], by weight

 private:
  using Line = absl::btree_set<Sequence*, Earlier>;
  const Line* next_line() const;
  std::size_t line_of(const Sequence& sequence) const;

  const Policy policy_;
  const std::vector<double> weights_;
  std::vector<Line> lines_;  // [tenant] if fair, else one
  std::vector<double> service_;
  std::vector<int> present_;  // [tenant] unfinished requests
  double last_floor_ = 0.0;   // the counter of whoever left last
  int size_ = 0;
  std::int64_t num_tokens_ = 0;
};

}  // namespace quire
