// A thread that runs what is left for it, in order. The gRPC side has two: one checks and tokenizes
// new calls, one turns token ids into text; so neither gRPC's few threads (which also carry the
// workers' streams) nor the engine's thread ever do such work.
#pragma once

#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace quire {

class TaskThread {
 public:
  TaskThread() : thread_([this] { run(); }) {}
  ~TaskThread() {  // everything that was left has run when it returns
    {
      absl::MutexLock lock(&mutex_);
      quit_ = true;
    }
    thread_.join();
  }

  void leave(std::function<void()> task) {
    absl::MutexLock lock(&mutex_);
    left_.push_back(std::move(task));
  }

 private:
  bool has_news() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return quit_ || !left_.empty(); }

  void run() {
    std::vector<std::function<void()>> tasks;
    while (true) {
      tasks.clear();
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(this, &TaskThread::has_news));
        if (left_.empty()) return;
        tasks.swap(left_);
      }
      for (const auto& task : tasks) task();
    }
  }

  absl::Mutex mutex_;
  std::vector<std::function<void()>> left_ ABSL_GUARDED_BY(mutex_);
  bool quit_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace quire
