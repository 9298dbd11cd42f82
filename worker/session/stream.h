// One Attach stream on the client's side: a bounded queue of messages up with one write in flight,
// one read at a time. Knows nothing of what the messages mean.
//
// gRPC may run OnReadDone of a reply before OnWriteDone of its request, so a write starts only when
// the previous one is done, whatever has been read.
#pragma once

#include <grpcpp/support/client_callback.h>

#include <deque>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "fleet.grpc.pb.h"

namespace quire {

class Stream final : public grpc::ClientBidiReactor<v1::Up, v1::Down> {
 public:
  using OnMessage = std::function<void(const v1::Down&)>;
  using OnEnd = std::function<void(const grpc::Status&)>;

  // Callbacks run on gRPC's threads, one at a time; on_end is the last.
  Stream(v1::Fleet::Stub& stub, OnMessage on_message, OnEnd on_end);
  // Cancels what is open and waits for gRPC to let go.
  ~Stream() override;

  // False when the peer takes so little that the queue is full. Dropped once the stream has ended.
  bool send(v1::Up message);
  // Half-close after what is queued; true when the peer closed its side within `timeout`.
  bool finish(absl::Duration timeout);
  void cancel() { context_.TryCancel(); }

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;
  void pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void release_hold() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::ClientContext context_;
  const OnMessage on_message_;
  const OnEnd on_end_;
  v1::Down down_;  // touched only between StartRead and OnReadDone

  absl::Mutex mutex_;
  std::deque<std::unique_ptr<const v1::Up>> queue_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<const v1::Up> writing_ ABSL_GUARDED_BY(mutex_);
  bool held_ ABSL_GUARDED_BY(mutex_) = true;  // our hold: writes may start outside reactions
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace quire
