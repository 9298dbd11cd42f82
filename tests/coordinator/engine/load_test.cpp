// Many clients on several threads, with cancels, deadlines, dying groups and a stop in the middle.
#include <gmock/gmock.h>

#include <algorithm>
#include <latch>
#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "tests/coordinator/engine/engine_fixture.h"

namespace quire::test {
namespace {

constexpr int kThreads = 6;
constexpr TokenId kEos = 7;

// A request's wish and what became of it.
struct Order {
  std::vector<TokenId> prompt;
  int max_tokens = 0;
  int n = 1;
  std::uint64_t seed = 0;
  bool disturbed = false;  // may end early: cancelled, stopped, or with a deadline
  std::shared_ptr<Client> client;
};

class LoadTest : public EngineTest {
 protected:
  LoadTest() {
    spec_.vocab = worker_.model.vocab = 100;
    spec_.eos = {kEos};
  }

  Order random_order(std::mt19937* random) {
    Order order;
    order.prompt.resize(1 + (*random)() % 40);
    for (TokenId& token : order.prompt) token = static_cast<TokenId>((*random)() % 100);
    order.max_tokens = static_cast<int>(1 + (*random)() % 50);
    order.n = (*random)() % 4 == 0 ? 3 : 1;
    order.seed = (*random)();
    order.client = std::make_shared<Client>(order.n);
    return order;
  }

  absl::StatusOr<RequestId> place(Order* order, absl::Time deadline) {
    Request wish = request(order->prompt, order->max_tokens, order->n);
    wish.params.seed = order->seed;
    wish.deadline = deadline;
    return submit(std::move(wish), order->client);
  }

  // Every choice has ended, and whatever came is what the oracle says.
  void check(const Order& order) {
    ASSERT_TRUE(order.client->wait());
    for (int i = 0; i < order.n; ++i) {
      const Client::Choice choice = order.client->choice(i);
      const int count = static_cast<int>(choice.tokens.size());
      EXPECT_FALSE(choice.late);
      EXPECT_EQ(choice.tokens, oracle(order.prompt, count, i, order.seed));
      const auto eos = std::count(choice.tokens.begin(), choice.tokens.end(), kEos);
      EXPECT_EQ(eos, choice.finish == FinishReason::kStop ? 1 : 0);
      if (choice.finish == FinishReason::kLength) {
        EXPECT_EQ(count, order.max_tokens);
      } else if (choice.finish == FinishReason::kStop) {
        EXPECT_EQ(choice.tokens.back(), kEos);
        EXPECT_EQ(choice.stop_token, kEos);
      } else if (choice.closed) {
        EXPECT_EQ(choice.finish, FinishReason::kNone);
      } else {
        EXPECT_TRUE(order.disturbed);
        EXPECT_THAT(choice.finish,
                    testing::AnyOf(FinishReason::kCancelled, FinishReason::kDeadline));
      }
    }
  }

  void run_client(int thread, int orders) {
    std::mt19937 random(static_cast<unsigned>(thread));
    for (int i = 0; i < orders; ++i) {
      Order order = random_order(&random);
      const unsigned fate = random() % 6;
      order.disturbed = fate < 3;
      const absl::StatusOr<RequestId> id =
          place(&order, fate == 0 ? absl::Now() + absl::Microseconds(random() % 3000)
                                  : absl::InfiniteFuture());
      if (fate == 0 && absl::IsDeadlineExceeded(id.status())) continue;  // refused at once
      ASSERT_TRUE(id.ok()) << id.status();
      if (fate == 1) {
        absl::SleepFor(absl::Microseconds(random() % 1000));
        engine_->cancel(*id);
      }
      if (fate == 2) {
        absl::SleepFor(absl::Microseconds(random() % 1000));
        engine_->stop_choice(*id, order.n - 1);
        order.client->close(order.n - 1);
      }
      if (random() % 3 == 0) {
        check(order);
      } else {  // the next one comes at once
        open_orders_[static_cast<std::size_t>(thread)].push_back(std::move(order));
      }
    }
    for (const Order& order : open_orders_[static_cast<std::size_t>(thread)]) check(order);
  }

  std::vector<Order> open_orders_[kThreads];
};

TEST_F(LoadTest, EveryClientGetsItsOwnAnswerThroughLosses) {
  make_and_attach();
  std::vector<std::thread> clients;
  for (int t = 0; t < kThreads; ++t) clients.emplace_back([this, t] { run_client(t, 60); });
  for (int i = 0; i < 20; ++i) {
    absl::SleepFor(absl::Milliseconds(3));
    group_->kill();
  }
  for (std::thread& client : clients) client.join();
  engine_->stop();
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.used_blocks, 0);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_EQ(stats.finished_error, 0u);
  EXPECT_EQ(stats.group_losses, 20u);
  EXPECT_THAT(group_->ended(), testing::IsEmpty());
}

TEST_F(LoadTest, StopUnderLoadEndsEveryRequest) {
  make_and_attach();
  std::latch all_at_work(kThreads);
  std::vector<std::thread> clients;
  for (int t = 0; t < kThreads; ++t) {
    clients.emplace_back([this, t, &all_at_work] {
      std::mt19937 random(static_cast<unsigned>(t + 100));
      auto& orders = open_orders_[static_cast<std::size_t>(t)];
      while (true) {
        Order order = random_order(&random);
        order.disturbed = true;
        if (!place(&order, absl::InfiniteFuture()).ok()) return;
        orders.push_back(std::move(order));
        if (orders.size() == 1) all_at_work.count_down();
        absl::SleepFor(absl::Microseconds(200));
      }
    });
  }
  all_at_work.wait();
  absl::SleepFor(absl::Milliseconds(50));
  engine_->stop();
  for (std::thread& client : clients) client.join();
  for (const auto& orders : open_orders_) {
    EXPECT_FALSE(orders.empty());
    for (const Order& order : orders) check(order);
  }
  EXPECT_EQ(engine_->stats().used_blocks, 0);
}

}  // namespace
}  // namespace quire::test
