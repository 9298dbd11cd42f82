// A scheduler with a fake worker, one event at a time, for tests that look at single plans.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "coordinator/schedule/scheduler.h"
#include "tests/fakes/hash_worker.h"

namespace quire::test {

class SchedulerTest : public testing::Test {
 protected:
  SchedulerTest() {
    config_.max_num_seqs = 4;
    config_.max_num_batched_tokens = 16;
    config_.steps_in_flight = 1;
    config_.block_size = 4;
    config_.max_model_len = 64;
    config_.vocab = 1000;
    config_.prefix_caching = false;  // prompts of tests are alike
    config_.long_prefill_token_threshold = 0;
  }

  // For prompts and answers of hundreds of tokens.
  void allow_long_requests() {
    config_.max_num_seqs = 8;
    config_.max_num_batched_tokens = 1024;
    config_.block_size = 16;
    config_.max_model_len = 1024;
    config_.vocab = 300;
  }

  void start(int num_blocks, EpochId epoch = 1, int num_host_blocks = 0) {
    if (scheduler_ == nullptr) scheduler_ = std::make_unique<Scheduler>(config_);
    HashWorkerConfig worker;
    worker.epoch = epoch;
    worker.num_blocks = num_blocks;
    worker.num_host_blocks = num_host_blocks;
    worker.block_size = config_.block_size;
    worker.num_kv_groups = config_.num_kv_groups;
    worker.max_num_seqs = config_.max_num_seqs;
    worker.max_num_batched_tokens = config_.max_num_batched_tokens;
    worker.model = model_;
    worker.model.vocab = config_.vocab;
    worker_ = std::make_unique<HashWorker>(worker);
    model_ = worker.model;
    refused_ = scheduler_->start_group(epoch, num_blocks, 1, num_host_blocks, one_answer_);
  }

  // A request for the prompt 0, 1, 2, …
  NewRequest wish(int num_prompt, int max_tokens) {
    NewRequest wish;
    wish.id = next_request_++;
    for (int i = 0; i < num_prompt; ++i) wish.prompt.push_back(i);
    wish.params.max_tokens = max_tokens;
    wish.params.seed = wish.id;
    wish.arrival = absl::FromUnixSeconds(1000) + absl::Milliseconds(wish.id);
    return wish;
  }
  RequestId add(const NewRequest& wish) {
    const absl::Status status = scheduler_->add(wish);
    EXPECT_TRUE(status.ok()) << status;
    return wish.id;
  }
  RequestId add(int num_prompt, int max_tokens, std::vector<TokenId> stops = {}) {
    NewRequest request = wish(num_prompt, max_tokens);
    request.params.stop_token_ids = std::move(stops);
    return add(request);
  }

  StepPlan plan() {
    StepPlan plan = scheduler_->plan();
    EXPECT_TRUE(scheduler_->verify().ok()) << scheduler_->verify();
    return plan;
  }
  StepResult run(const StepPlan& plan) {
    StepResult result;
    const absl::Status status = worker_->run(plan, &result);
    EXPECT_TRUE(status.ok()) << status;
    return result;
  }
  std::vector<Gain> apply(StepResult result) {
    absl::StatusOr<std::vector<Gain>> gains = scheduler_->apply(std::move(result));
    EXPECT_TRUE(gains.ok()) << gains.status();
    EXPECT_TRUE(scheduler_->verify().ok()) << scheduler_->verify();
    return gains.ok() ? *std::move(gains) : std::vector<Gain>();
  }
  // One whole step.
  std::vector<Gain> step() { return apply(run(plan())); }
  bool is_done() const { return scheduler_->num_running() + scheduler_->num_waiting() == 0; }
  // Steps until nothing is left, at most `most`; all gains in order.
  std::vector<Gain> finish(int most = 1000) {
    std::vector<Gain> all;
    for (; !is_done() && most > 0; --most) {
      for (Gain& gain : step()) all.push_back(std::move(gain));
    }
    EXPECT_EQ(scheduler_->num_running() + scheduler_->num_waiting(), 0);
    return all;
  }

  SchedulerConfig config_;
  HashModel model_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<HashWorker> worker_;
  std::vector<RequestId> refused_;
  bool one_answer_ = true;  // of the group
  RequestId next_request_ = 1;
};

}  // namespace quire::test
