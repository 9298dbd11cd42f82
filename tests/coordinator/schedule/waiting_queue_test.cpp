#include "coordinator/schedule/waiting_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

namespace quire {
namespace {

using testing::ElementsAre;

class WaitingQueueTest : public testing::Test {
 protected:
  Sequence* make(int tenant, std::int64_t order_us) {
    auto request = std::make_shared<ScheduledRequest>();
    request->tenant = tenant;
    request->order_us = order_us;
    auto sequence = std::make_unique<Sequence>();
    sequence->id = made_.size() + 1;
    sequence->request = std::move(request);
    sequence->num_prompt_tokens = 10;
    made_.push_back(std::move(sequence));
    return made_.back().get();
  }

  static std::shared_ptr<const TenantShares> shares_of(std::vector<double> weights) {
    return std::make_shared<const TenantShares>(std::move(weights));
  }

 private:
  std::vector<std::unique_ptr<Sequence>> made_;
};

TEST_F(WaitingQueueTest, TheSmallestOrderIsNextAndThenTheFirstToArrive) {
  WaitingQueue queue(Policy::kFcfs, shares_of({1.0, 1.0}));
  Sequence* late = make(0, 30);
  Sequence* early = make(1, 10);
  Sequence* twin = make(0, 10);
  for (Sequence* sequence : {late, twin, early}) queue.push(sequence);
  EXPECT_EQ(queue.size(), 3);
  EXPECT_EQ(queue.num_tokens(), 30);
  std::vector<Sequence*> line;
  queue.first(8, &line);
  EXPECT_THAT(line, ElementsAre(early, twin, late));
  queue.first(2, &line);
  EXPECT_THAT(line, ElementsAre(early, twin));
  queue.remove(early);
  EXPECT_EQ(queue.head(), twin);
  queue.remove(twin);
  queue.remove(late);
  EXPECT_EQ(queue.head(), nullptr);
  EXPECT_EQ(queue.num_tokens(), 0);
}

TEST_F(WaitingQueueTest, TokensBeforeAreOfThoseWhoGoFirstInAnyCase) {
  WaitingQueue queue(Policy::kFcfs, shares_of({1.0}));
  for (int i = 0; i < 5; ++i) queue.push(make(0, 10 * i));
  EXPECT_EQ(queue.tokens_before(25, 0), 30);
  EXPECT_EQ(queue.tokens_before(20, 0), 20) << "of equals nobody knows";
  EXPECT_EQ(queue.tokens_before(25, 2), 10);
  EXPECT_EQ(queue.tokens_before(25, 3), 0);
  EXPECT_EQ(queue.tokens_before(0, 0), 0);
  WaitingQueue fair(Policy::kFair, shares_of({1.0, 1.0}));
  fair.push(make(0, 10));
  EXPECT_EQ(fair.tokens_before(100, 0), 0) << "another tenant may pass";
}

TEST_F(WaitingQueueTest, TheTenantThatHadLeastIsNext) {
  const auto shares = std::make_shared<TenantShares>(std::vector<double>{1.0, 2.0});
  WaitingQueue queue(Policy::kFair, shares);
  shares->enter(0);
  shares->enter(1);
  Sequence* of_first = make(0, 1);
  Sequence* of_second = make(1, 2);
  queue.push(of_first);
  queue.push(of_second);
  EXPECT_EQ(queue.head(), of_first);
  shares->charge(0, 10);
  EXPECT_EQ(queue.head(), of_second);
  shares->charge(1, 18);  // 9 by weight
  EXPECT_EQ(queue.head(), of_second);
  shares->charge(1, 4);
  EXPECT_EQ(queue.head(), of_first);
  queue.remove(of_first);
  EXPECT_EQ(queue.head(), of_second);  // nobody idles because of a share
}

TEST_F(WaitingQueueTest, AWalkGoesTheWayThatServiceWould) {
  const auto shares = std::make_shared<TenantShares>(std::vector<double>{1.0, 2.0});
  WaitingQueue queue(Policy::kFair, shares);
  for (int i = 0; i < 6; ++i) queue.push(make(i % 2, i));
  // Ten tokens each: the second tenant's weigh half.
  std::vector<int> tenants;
  WaitingQueue::Walk walk(queue, {0.0, 0.0});
  while (const Sequence* sequence = walk.next()) {
    tenants.push_back(sequence->request->tenant);
    walk.count(sequence->request->tenant, 10);
  }
  EXPECT_THAT(tenants, ElementsAre(0, 1, 1, 0, 1, 0));
  // The first one has more on its way than the other will ever get.
  WaitingQueue::Walk later(queue, {100.0, 0.0});
  tenants.clear();
  while (const Sequence* sequence = later.next()) tenants.push_back(sequence->request->tenant);
  EXPECT_THAT(tenants, ElementsAre(1, 1, 1, 0, 0, 0));
  WaitingQueue one_line(Policy::kFcfs, shares);
  for (int i = 0; i < 3; ++i) one_line.push(make(1 - i % 2, 10 - i));
  WaitingQueue::Walk order(one_line, {0.0, 100.0});
  for (const std::int64_t us : {8, 9, 10}) EXPECT_EQ(order.next()->request->order_us, us);
  EXPECT_EQ(order.next(), nullptr);
}

}  // namespace
}  // namespace quire
