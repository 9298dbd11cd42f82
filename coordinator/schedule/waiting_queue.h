// The sequences that wait to be admitted, in order; where tenants get fair shares, in a line for
// each.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/btree_set.h"
#include "coordinator/schedule/policy.h"
#include "coordinator/schedule/tenant_shares.h"

namespace quire {

class WaitingQueue {
 public:
  WaitingQueue(Policy policy, std::shared_ptr<const TenantShares> shares);

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

  // Walks along the line(s) as head() would be served, if each one that next() returned had
  // counted for its tenant as it was granted its `worth`. Good until the queue changes.
  class Walk {
   public:
    // `ahead`: what tenants are to have counted beside their service. [tenant]
    Walk(const WaitingQueue& queue, std::vector<double> ahead);
    Sequence* next();  // null at the end
    void count(int tenant, double tokens) {
      ahead_[static_cast<std::size_t>(tenant)] += queue_->shares_->worth(tenant, tokens);
    }

   private:
    const WaitingQueue* queue_;
    std::vector<double> ahead_;
    std::vector<absl::btree_set<Sequence*, Earlier>::const_iterator> at_;  // [line]
  };

 private:
  using Line = absl::btree_set<Sequence*, Earlier>;
  const Line* next_line() const;
  std::size_t line_of(const Sequence& sequence) const;

  const Policy policy_;
  const std::shared_ptr<const TenantShares> shares_;
  std::vector<Line> lines_;  // [tenant] if fair, else one
  int size_ = 0;
  std::int64_t num_tokens_ = 0;
};

}  // namespace quire
