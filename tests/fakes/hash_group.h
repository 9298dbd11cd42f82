// A worker group on a thread of its own, for tests of the engine: it runs plans with a HashWorker
// and answers after an optional delay. It can be killed, made to hang, or made to lie.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "coordinator/engine/engine.h"
#include "tests/fakes/hash_model.h"

namespace quire::test {

class HashGroup final : public GroupPort {
 public:
  // `worker.epoch` is the first epoch; each later life gets the next one.
  HashGroup(HashWorkerConfig worker, absl::Duration delay)
      : config_(worker), delay_(delay), thread_([this] { loop(); }) {}

  // Before this object dies the engine must have stopped.
  ~HashGroup() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    thread_.join();
  }

  // A new life: the engine hears of it. Call once the engine has started.
  void attach(Engine* engine) {
    absl::MutexLock lock(&mutex_);
    engine_ = engine;
    start_life();
  }

  void send(const StepPlan& plan) override {
    absl::MutexLock lock(&mutex_);
    if (worker_ != nullptr && plan.epoch == config_.epoch) plans_.push_back(plan);
  }

  void end_epoch(const std::string& why) override {
    absl::MutexLock lock(&mutex_);
    ended_.push_back(why);
    replace(why);
  }

  // The group dies and a new one attaches at once.
  void kill() {
    absl::MutexLock lock(&mutex_);
    replace("killed by the test");
  }
  // The group dies and nobody comes: attach() brings the next.
  void leave() {
    absl::MutexLock lock(&mutex_);
    end_life("gone");
  }
  // Plans are swallowed until the epoch ends.
  void hang() {
    absl::MutexLock lock(&mutex_);
    hanging_ = true;
  }
  // The next result names a row that no plan has.
  void lie_once() {
    absl::MutexLock lock(&mutex_);
    lying_ = true;
  }

  std::vector<std::string> ended() const {  // reasons the engine gave
    absl::MutexLock lock(&mutex_);
    return ended_;
  }
  std::string protocol_error() const {  // the first plan that broke a rule, or empty
    absl::MutexLock lock(&mutex_);
    return protocol_error_;
  }
  std::uint64_t steps() const {
    absl::MutexLock lock(&mutex_);
    return steps_;
  }

 private:
  void start_life() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    worker_ = std::make_unique<HashWorker>(config_);
    hanging_ = false;
    engine_->on_ready({config_.epoch, config_.num_blocks, 1, config_.first_step});
  }
  void end_life(const std::string& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (worker_ == nullptr) return;
    worker_.reset();
    plans_.clear();
    ++config_.epoch;
    engine_->on_lost(why);
  }
  void replace(const std::string& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    end_life(why);
    start_life();
  }

  bool has_work() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || (!plans_.empty() && !hanging_);
  }

  void loop() {
    while (true) {
      StepResult result;
      Engine* engine = nullptr;
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(this, &HashGroup::has_work));
        if (stopping_) return;
        run_one(&result);
        engine = engine_;
      }
      // Outside the lock, so that a life can end meanwhile: the answer is stale then.
      if (delay_ > absl::ZeroDuration()) absl::SleepFor(delay_);
      engine->on_result(std::move(result));
    }
  }

  void run_one(StepResult* result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Status status = worker_->run(plans_.front(), result);
    if (!status.ok() && protocol_error_.empty()) protocol_error_ = std::string(status.message());
    plans_.pop_front();
    ++steps_;
    if (std::exchange(lying_, false)) {
      RowResult extra;
      extra.row = 1 << 20;
      result->rows.push_back(extra);
    }
  }

  mutable absl::Mutex mutex_;
  HashWorkerConfig config_ ABSL_GUARDED_BY(mutex_);
  const absl::Duration delay_;
  Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::unique_ptr<HashWorker> worker_ ABSL_GUARDED_BY(mutex_);  // null while nobody is there
  std::deque<StepPlan> plans_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> ended_ ABSL_GUARDED_BY(mutex_);
  std::string protocol_error_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t steps_ ABSL_GUARDED_BY(mutex_) = 0;
  bool hanging_ ABSL_GUARDED_BY(mutex_) = false;
  bool lying_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace quire::test
