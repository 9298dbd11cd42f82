// A worker group on a thread of its own, for tests of the engine: it runs plans with a HashWorker
// and answers after an optional delay. It can be killed, made to hang, or made to lie.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "coordinator/engine/engine.h"
#include "tests/fakes/hash_worker.h"

namespace quire::test {

class HashGroup final : public GroupPort {
 public:
  // `worker.epoch` is the first epoch; each later life gets the next one.
  HashGroup(HashWorkerConfig worker, absl::Duration delay)
      : config_(worker), delay_(delay), thread_([this] { loop(); }) {}

  // Before this object dies the engine must have stopped.
  ~HashGroup() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }

  // A new life: the engine hears of it. Call once the engine has started.
  void attach(Engine* engine) {
    std::lock_guard lock(mutex_);
    engine_ = engine;
    start_life();
  }

  void send(const StepPlan& plan) override {
    std::lock_guard lock(mutex_);
    if (worker_ == nullptr || plan.epoch != config_.epoch) return;
    plans_.push_back(plan);
    changed_.notify_all();
  }

  void end_epoch(EpochId, EndCause, const std::string& why) override {
    std::lock_guard lock(mutex_);
    ended_.push_back(why);
    replace();
  }

  // The group dies and a new one attaches at once.
  void kill() {
    std::lock_guard lock(mutex_);
    replace();
  }
  // The group dies and nobody comes: attach() brings the next.
  void leave() {
    std::lock_guard lock(mutex_);
    end_life();
  }
  // Plans are swallowed until the epoch ends.
  void hang() {
    std::lock_guard lock(mutex_);
    hanging_ = true;
  }
  // From now on every group dies when it is to compute anything of a request whose tokens include
  // this one; another attaches at once.
  void die_of(TokenId poison) {
    std::lock_guard lock(mutex_);
    poison_ = poison;
  }
  // Lives from the next one on compute by another numerics id; its fingerprint.
  void set_numerics(std::uint64_t numerics) {
    std::lock_guard lock(mutex_);
    numerics_ = numerics;
  }
  // The next result names a row that no plan has.
  void lie_once() {
    std::lock_guard lock(mutex_);
    lying_ = true;
  }

  std::vector<std::string> ended() const {  // reasons the engine gave
    std::lock_guard lock(mutex_);
    return ended_;
  }
  std::string protocol_error() const {  // the first plan that broke a rule, or empty
    std::lock_guard lock(mutex_);
    return protocol_error_;
  }
  std::uint64_t steps() const {
    std::lock_guard lock(mutex_);
    return steps_;
  }

 private:
  void start_life() {
    worker_ = std::make_unique<HashWorker>(config_);
    hanging_ = false;
    poisoned_.clear();
    GroupReady ready;
    ready.epoch = config_.epoch;
    ready.num_blocks = config_.num_blocks;
    ready.num_host_blocks = config_.num_host_blocks;
    ready.next_step = config_.first_step;
    ready.numerics = numerics_;
    engine_->on_ready(ready);
  }
  void end_life() {
    if (worker_ == nullptr) return;
    worker_.reset();
    plans_.clear();
    engine_->on_lost(config_.epoch++);
  }
  void replace() {
    end_life();
    start_life();
  }

  void loop() {
    while (true) {
      StepResult result;
      Engine* engine = nullptr;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || (!plans_.empty() && !hanging_); });
        if (stopping_) return;
        if (is_deadly(plans_.front())) {
          replace();
          continue;
        }
        run_one(&result);
        engine = engine_;
      }
      // Outside the lock, so that a life can end meanwhile: the answer is stale then.
      if (delay_ > absl::ZeroDuration()) absl::SleepFor(delay_);
      engine->on_result(std::move(result));
    }
  }

  bool is_deadly(const StepPlan& plan) {
    for (const SlotId slot : plan.releases) poisoned_.erase(slot);
    for (const AdmitRow& admit : plan.admits) {
      const auto& tokens = admit.tokens;
      if (std::find(tokens.begin(), tokens.end(), poison_) != tokens.end()) {
        poisoned_.insert(admit.slot);
      }
    }
    return std::any_of(plan.rows.begin(), plan.rows.end(),
                       [this](const PlanRow& row) { return poisoned_.contains(row.slot); });
  }

  void run_one(StepResult* result) {
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

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  HashWorkerConfig config_;
  std::uint64_t numerics_ = 0;
  const absl::Duration delay_;
  Engine* engine_ = nullptr;
  std::unique_ptr<HashWorker> worker_;  // null while nobody is there
  std::deque<StepPlan> plans_;
  std::vector<std::string> ended_;
  std::string protocol_error_;
  std::uint64_t steps_ = 0;
  TokenId poison_ = -1;        // none
  std::set<SlotId> poisoned_;  // that hold it
  bool hanging_ = false;
  bool lying_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace quire::test
