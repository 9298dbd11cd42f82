// One Attach stream; the rules are in worker_link.h.
#include "coordinator/fleet/worker_link.h"

#include <utility>

#include "common/clock.h"

namespace quire {
namespace {

constexpr std::size_t kMaxQueued = 64;  // messages; two plans in flight is the normal load
constexpr std::size_t kMaxQueuedBytes = std::size_t{64} << 20;

}  // namespace

WorkerLink::WorkerLink(LinkOwner& owner, LinkId id, grpc::CallbackServerContext* context)
    : owner_(owner), id_(id), context_(context), last_send_(steady_now()) {}

void WorkerLink::start() {
  StartRead(&up_);
}

bool WorkerLink::send(std::shared_ptr<const v1::Down> message) {
  const std::size_t bytes = message->ByteSizeLong();
  absl::MutexLock lock(&mutex_);
  if (closing_) return true;
  if (queue_.size() >= kMaxQueued || queued_bytes_ + bytes > kMaxQueuedBytes) return false;
  queued_bytes_ += bytes;
  queue_.push_back(std::move(message));
  pump();
  return true;
}

void WorkerLink::close(const grpc::Status& status, bool drop_queued) {
  absl::MutexLock lock(&mutex_);
  if (drop_queued) queue_.clear();
  if (!closing_) {
    closing_ = true;
    closing_at_ = steady_now();
    status_ = status;
  }
  pump();
}

void WorkerLink::cancel() {
  context_->TryCancel();
}

bool WorkerLink::idle_since(absl::Time time) const {
  absl::MutexLock lock(&mutex_);
  return !closing_ && writing_ == nullptr && last_send_ <= time;
}

bool WorkerLink::closing_since(absl::Time time) const {
  absl::MutexLock lock(&mutex_);
  return closing_ && closing_at_ <= time;
}

void WorkerLink::pump() {
  if (writing_ != nullptr || finished_) return;
  if (!queue_.empty()) {
    writing_ = std::move(queue_.front());
    queue_.pop_front();
    queued_bytes_ -= writing_->ByteSizeLong();
    last_send_ = steady_now();
    StartWrite(writing_.get());
  } else if (closing_) {
    finished_ = true;
    Finish(status_);
  }
}

void WorkerLink::OnReadDone(bool ok) {
  if (ok) {
    owner_.on_up(id_, up_);
    absl::MutexLock lock(&mutex_);
    if (!finished_) StartRead(&up_);
    return;
  }
  owner_.on_gone(id_, "its stream ended");
  close(grpc::Status::OK, /*drop_queued=*/true);
}

void WorkerLink::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_.reset();
    if (ok) {
      pump();
      return;
    }
  }
  owner_.on_gone(id_, "a message could not be written to its stream");
  close(grpc::Status(grpc::StatusCode::UNAVAILABLE, "write failed"), /*drop_queued=*/true);
}

void WorkerLink::OnCancel() {
  owner_.on_gone(id_, "its connection was lost");
  close(grpc::Status(grpc::StatusCode::CANCELLED, "connection lost"), /*drop_queued=*/true);
}

void WorkerLink::OnDone() {
  owner_.on_done(id_);
  delete this;
}

}  // namespace quire
