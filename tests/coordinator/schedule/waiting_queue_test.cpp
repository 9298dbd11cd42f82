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

 private:
  std::vector<std::unique_ptr<Sequence>> made_;
};

TEST_F(WaitingQueueTest, TheSmallestOrderIsNextAndThenTheFirstToArrive) {
  WaitingQueue queue(Policy::kFcfs, {1.0, 1.0});
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
  WaitingQueue queue(Policy::kFcfs, {1.0});
  for (int i = 0; i < 5; ++i) queue.push(make(0, 10 * i));
  EXPECT_EQ(queue.tokens_before(25, 0), 30);
  EXPECT_EQ(queue.tokens_before(20, 0), 20) << "of equals nobody knows";
  EXPECT_EQ(queue.tokens_before(25, 2), 10);
  EXPECT_EQ(queue.tokens_before(25, 3), 0);
  EXPECT_EQ(queue.tokens_before(0, 0), 0);
  WaitingQueue fair(Policy::kFair, {1.0, 1.0});
  fair.push(make(0, 10));
  EXPECT_EQ(fair.tokens_before(100, 0), 0) << "another tenant may pass";
}

TEST_F(WaitingQueueTest, TheTenantThatHadLeastIsNext) {
  WaitingQueue queue(Policy::kFair, {1.0, 2.0});
  queue.enter(0);
  queue.enter(1);
  Sequence* of_first = make(0, 1);
  Sequence* of_second = make(1, 2);
  queue.push(of_first);
  queue.push(of_second);
  EXPECT_EQ(queue.head(), of_first);
  queue.charge(0, 10);
  EXPECT_EQ(queue.head(), of_second);
  queue.charge(1, 18);  // 9 by weight
  EXPECT_EQ(queue.head(), of_second);
  queue.charge(1, 4);
  EXPECT_EQ(queue.head(), of_first);
  queue.remove(of_first);
  EXPECT_EQ(queue.head(), of_second);  // nobody idles because of a share
}

TEST_F(WaitingQueueTest, NobodySavesUpAClaimByBeingAway) {
  WaitingQueue queue(Policy::kFair, {1.0, 1.0});
  queue.enter(0);
  queue.charge(0, 1000);
  queue.enter(1);
  EXPECT_THAT(queue.service(), ElementsAre(1000, 1000));
  queue.charge(1, 50);
  queue.leave(1);
  queue.charge(0, 500);
  queue.enter(1);
  EXPECT_THAT(queue.service(), ElementsAre(1500, 1500));
  queue.leave(0);
  queue.charge(1, 700);
  queue.leave(1);
  queue.enter(0);  // alone after a pause: where the last one left
  EXPECT_THAT(queue.service(), ElementsAre(2200, 2200));
}

TEST_F(WaitingQueueTest, WhoHadMoreKeepsItWhenItComesBack) {
  WaitingQueue queue(Policy::kFair, {1.0, 1.0});
  queue.enter(0);
  queue.enter(1);
  queue.charge(0, 900);
  queue.leave(0);
  queue.enter(0);
  EXPECT_THAT(queue.service(), ElementsAre(900, 0));
}

}  // namespace
}  // namespace quire
