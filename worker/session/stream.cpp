// Reads, writes and the end of one stream.
#include "worker/session/stream.h"

#include <utility>

namespace quire {
namespace {

constexpr std::size_t kMaxQueued = 256;  // messages; one result a step is the normal load

}  // namespace

Stream::Stream(v1::Fleet::Stub& stub, OnMessage on_message, OnEnd on_end)
    : on_message_(std::move(on_message)), on_end_(std::move(on_end)) {
  stub.async()->Attach(&context_, this);
  AddHold();
  StartRead(&down_);
  StartCall();
}

Stream::~Stream() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
    queue_.clear();
    release_hold();
  }
  context_.TryCancel();
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&done_));
}

bool Stream::send(v1::Up message) {
  absl::MutexLock lock(&mutex_);
  if (!held_ || closing_) return true;
  if (queue_.size() >= kMaxQueued) return false;
  queue_.push_back(std::make_unique<const v1::Up>(std::move(message)));
  pump();
  return true;
}

bool Stream::finish(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  closing_ = true;
  pump();
  return mutex_.AwaitWithTimeout(absl::Condition(&done_), timeout);
}

void Stream::pump() {
  if (!held_ || writing_ != nullptr) return;
  if (!queue_.empty()) {
    writing_ = std::move(queue_.front());
    queue_.pop_front();
    StartWrite(writing_.get());
  } else if (closing_) {
    StartWritesDone();
    release_hold();
  }
}

void Stream::release_hold() {
  if (std::exchange(held_, false)) RemoveHold();
}

void Stream::OnReadDone(bool ok) {
  if (ok) {
    on_message_(down_);
    StartRead(&down_);
    return;
  }
  absl::MutexLock lock(&mutex_);
  release_hold();
}

void Stream::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  writing_.reset();
  if (ok) {
    pump();
  } else {
    release_hold();
  }
}

void Stream::OnDone(const grpc::Status& status) {
  on_end_(status);
  absl::MutexLock lock(&mutex_);
  done_ = true;
}

}  // namespace quire
