// The thread that turns token ids into text for gRPC streams, so that the engine's thread only
// leaves a message. Deltas of one stream keep their order.
#pragma once

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/api/grpc_stream.h"

namespace quire {

class DeliveryThread {
 public:
  DeliveryThread() : thread_([this] { run(); }) {}
  ~DeliveryThread() {  // everything that was left has been delivered when it returns
    {
      absl::MutexLock lock(&mutex_);
      quit_ = true;
    }
    thread_.join();
  }

  void leave(std::shared_ptr<GenerateStream> stream, OutputDelta delta) {
    absl::MutexLock lock(&mutex_);
    left_.emplace_back(std::move(stream), std::move(delta));
  }

 private:
  using Letter = std::pair<std::shared_ptr<GenerateStream>, OutputDelta>;

  bool has_news() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return quit_ || !left_.empty(); }

  void run() {
    std::vector<Letter> letters;
    while (true) {
      letters.clear();
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(this, &DeliveryThread::has_news));
        if (left_.empty()) return;
        letters.swap(left_);
      }
      for (auto& [stream, delta] : letters) stream->take(std::move(delta));
    }
  }

  absl::Mutex mutex_;
  std::vector<Letter> left_ ABSL_GUARDED_BY(mutex_);
  bool quit_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace quire
