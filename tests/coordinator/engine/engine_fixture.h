// An engine with a fake worker group on another thread, and clients that collect what they get.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/engine/engine.h"
#include "tests/fakes/hash_group.h"

namespace quire::test {

// What one request's reader has received.
class Client {
 public:
  struct Choice {
    std::vector<TokenId> tokens;
    FinishReason finish = FinishReason::kNone;
    TokenId stop_token = -1;
    std::string error, error_code;
    bool late = false;    // something came after the end: always a bug
    bool closed = false;  // the reader has stopped it and waits for nothing more
  };

  explicit Client(int n = 1) : choices_(static_cast<std::size_t>(n)), open_(n) {}

  void take(OutputDelta delta) {
    std::lock_guard lock(mutex_);
    Choice& choice = choices_[static_cast<std::size_t>(delta.choice)];
    choice.late |= choice.finish != FinishReason::kNone;
    choice.tokens.insert(choice.tokens.end(), delta.tokens.begin(), delta.tokens.end());
    num_tokens_ += static_cast<int>(delta.tokens.size());
    changed_.notify_all();
    if (delta.finish == FinishReason::kNone) return;
    choice.finish = delta.finish;
    choice.stop_token = delta.stop_token;
    choice.error = delta.error;
    choice.error_code = delta.error_code;
    open_ -= choice.closed ? 0 : 1;
  }
  // Beside Engine::stop_choice(): no end is delivered, unless it was already on its way.
  void close(int i) {
    std::lock_guard lock(mutex_);
    Choice& choice = choices_[static_cast<std::size_t>(i)];
    if (choice.closed || choice.finish != FinishReason::kNone) return;
    choice.closed = true;
    --open_;
    changed_.notify_all();
  }
  // Waits for the end of every choice; false after kPatience, far longer than any test needs.
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [this] { return open_ == 0; });
  }
  bool wait_for_tokens(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return num_tokens_ >= count; });
  }
  int num_tokens() {
    std::lock_guard lock(mutex_);
    return num_tokens_;
  }
  Choice choice(int i) {
    std::lock_guard lock(mutex_);
    return choices_[static_cast<std::size_t>(i)];
  }

 private:
  static constexpr std::chrono::seconds kPatience{60};

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<Choice> choices_;
  int open_;
  int num_tokens_ = 0;
};

class EngineTest : public testing::Test {
 protected:
  EngineTest() {
    config_.max_num_seqs = 8;
    config_.max_num_batched_tokens = 32;
    config_.block_size = 4;
    config_.max_model_len = 100;
    spec_.vocab = 5000;
    spec_.max_positions = 200;
    worker_.num_blocks = 40;
    worker_.block_size = config_.block_size;
    worker_.max_num_seqs = config_.max_num_seqs;
    worker_.max_num_batched_tokens = config_.max_num_batched_tokens;
    worker_.model.vocab = spec_.vocab;
  }
  ~EngineTest() override {
    if (engine_ != nullptr) engine_->stop();
    if (group_ != nullptr) {
      EXPECT_EQ(group_->protocol_error(), "");
    }
  }

  void make(absl::Duration step_deadline = absl::ZeroDuration(),
            absl::Duration delay = absl::ZeroDuration()) {
    engine_ = std::make_unique<Engine>(config_, spec_, step_deadline);
    group_ = std::make_unique<HashGroup>(worker_, delay);
    engine_->start(group_.get());
  }
  void make_and_attach(absl::Duration step_deadline = absl::ZeroDuration(),
                       absl::Duration delay = absl::ZeroDuration()) {
    make(step_deadline, delay);
    group_->attach(engine_.get());
  }

  Request request(std::vector<TokenId> prompt, int max_tokens, int n = 1) {
    Request request;
    request.prompt = std::move(prompt);
    request.params.max_tokens = max_tokens;
    request.params.seed = 42;
    request.n = n;
    return request;
  }
  absl::StatusOr<RequestId> submit(Request request, const std::shared_ptr<Client>& client) {
    request.deliver = [client](OutputDelta delta) { client->take(std::move(delta)); };
    return engine_->submit(std::move(request));
  }
  // What `count` tokens of a choice must be.
  std::vector<TokenId> oracle(std::vector<TokenId> tokens, int count, int choice,
                              std::uint64_t seed = 42) const {
    const std::size_t prompt = tokens.size();
    for (int i = 0; i < count; ++i) {
      tokens.push_back(worker_.model.next(tokens, seed, choice));
    }
    return {tokens.begin() + static_cast<std::ptrdiff_t>(prompt), tokens.end()};
  }

  EngineConfig config_;
  ModelSpec spec_;
  HashWorkerConfig worker_;
  std::unique_ptr<Engine> engine_;  // stops before the group dies
  std::unique_ptr<HashGroup> group_;
};

}  // namespace quire::test
