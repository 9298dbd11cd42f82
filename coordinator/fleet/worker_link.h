// One Attach stream: a bounded queue of messages down with one write in flight, one read at a time
// up. It deletes itself when gRPC is done with it, after telling its owner.
//
// Locks: the owner may call in while it holds its own lock; the link never calls the owner while it
// holds its own.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/fleet/group_action.h"
#include "fleet.pb.h"

namespace quire {

class LinkOwner {
 public:
  virtual ~LinkOwner() = default;
  virtual void on_up(LinkId link, const v1::Up& message) = 0;
  virtual void on_gone(LinkId link, const std::string& why) = 0;  // may come more than once
  virtual void on_done(LinkId link) = 0;  // the last call: the link no longer exists after it
};

class WorkerLink final : public grpc::ServerBidiReactor<v1::Up, v1::Down> {
 public:
  WorkerLink(LinkOwner& owner, LinkId id, grpc::CallbackServerContext* context);
  void start();  // the first read

  // False when the peer is so slow that the queue is full; nothing was queued then.
  bool send(std::shared_ptr<const v1::Down> message);
  // Finishes the stream, after what is queued (or without it).
  void close(const grpc::Status& status, bool drop_queued);
  void cancel();
  // A keep-alive is due, or a closing stream has hung for too long.
  bool idle_since(absl::Time time) const;
  bool closing_since(absl::Time time) const;

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);  // the next write, or Finish

  LinkOwner& owner_;
  const LinkId id_;
  grpc::CallbackServerContext* const context_;
  v1::Up up_;  // touched only between StartRead and OnReadDone

  mutable absl::Mutex mutex_;
  std::deque<std::shared_ptr<const v1::Down>> queue_ ABSL_GUARDED_BY(mutex_);
  std::size_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<const v1::Down> writing_ ABSL_GUARDED_BY(mutex_);  // at most one
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_send_ ABSL_GUARDED_BY(mutex_);
  absl::Time closing_at_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quire
