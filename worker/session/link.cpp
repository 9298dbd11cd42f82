// The rules of the stream: attach and retry, order, heartbeats, lease.
#include "worker/session/link.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/clock.h"
#include "common/wire.h"
#include "spdlog/spdlog.h"
#include "worker/session/attach_messages.h"
#include "worker/session/stream.h"

namespace quire {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
// Between two tries: of a patience, and at most.
constexpr int kTriesPerPatience = 20;
constexpr absl::Duration kLongestPause = absl::Seconds(2);
constexpr absl::Duration kFinishPatience = absl::Seconds(2);
constexpr int kMaxPlanBytes = 256 << 20;
// After so much of its patience whoever started this rank is told what it waits for.
constexpr int kQuietPart = 20;

// Not there yet is worth another try; somebody else at that address is not. gRPC tells them apart
// in words only.
bool is_impostor(const std::string& why) {
  return absl::StrContains(why, "certificate verify failed") ||
         absl::StrContains(why, "CERTIFICATE_VERIFY_FAILED") ||
         absl::StrContains(why, "Hostname Verification Check failed") ||
         absl::StrContains(why, "is not in peer certificate");
}

std::shared_ptr<grpc::ChannelCredentials> credentials_of(const TlsPem& tls) {
  if (tls.cert.empty()) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials({tls.ca, tls.key, tls.cert});
}

absl::Status ended(const grpc::Status& status) {
  const std::string why =
      status.error_message().empty() ? std::string("it closed the stream") : status.error_message();
  switch (status.error_code()) {
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return absl::UnauthenticatedError(absl::StrCat("the coordinator does not let us in: ", why));
    case grpc::StatusCode::FAILED_PRECONDITION:
      return absl::FailedPreconditionError(absl::StrCat("the coordinator refused: ", why));
    case grpc::StatusCode::ABORTED:
      return absl::AbortedError(absl::StrCat("the coordinator ended the epoch: ", why));
    default:
      return absl::UnavailableError(absl::StrCat("the coordinator's stream ended: ", why));
  }
}

}  // namespace

class Link::Impl {
 public:
  Impl(v1::Fleet::Stub& stub, const Introduction& introduction)
      : rank_(introduction.rank),
        stream_(std::make_unique<Stream>(
            stub, [this](const v1::Down& down) { on_message(down); },
            [this](const grpc::Status& status) { fail(ended(status)); })) {
    stream_->send(hello_message(introduction));
  }

  ~Impl() {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    pacer_.stop();
    if (ticker_.joinable()) ticker_.join();
    stream_.reset();
  }

  // Waits for Welcome, Drain, a refusal, or the end of the stream.
  absl::Status await_admission(absl::Duration quiet) {
    absl::MutexLock lock(&mutex_);
    const auto settled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return admission_.has_value() || drained_ || !broken_.ok();
    };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&settled), quiet)) {
      spdlog::info(
          "rank {}: the coordinator has not admitted it yet: the group's other ranks are missing, "
          "or every place for a group is taken (--data-parallel-size of the coordinator); waiting",
          rank_);
      mutex_.Await(absl::Condition(&settled));
    }
    if (!broken_.ok()) return broken_;
    if (!admission_.has_value()) return absl::CancelledError("drained before it was admitted");
    ticker_ = std::thread([this] { keep_time(); });
    return absl::OkStatus();
  }

  const Admission& admission() {
    absl::MutexLock lock(&mutex_);
    return *admission_;
  }

  void on_broken(std::function<void()> callback) {
    {
      absl::MutexLock lock(&mutex_);
      if (broken_.ok()) {
        callback_ = std::move(callback);
        return;
      }
    }
    callback();
  }

  bool coordinator_lost() {
    absl::MutexLock lock(&mutex_);
    return absl::IsUnavailable(broken_);
  }

  absl::StatusOr<Event> next() {
    absl::MutexLock lock(&mutex_);
    const auto something = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !broken_.ok() || !events_.empty();
    };
    mutex_.Await(absl::Condition(&something));
    if (!broken_.ok()) return broken_;
    return take();
  }

  absl::StatusOr<std::optional<Event>> poll() {
    absl::MutexLock lock(&mutex_);
    if (!broken_.ok()) return broken_;
    if (events_.empty()) return std::nullopt;
    return take();
  }

  void send_collective_id(const std::string& id) {
    v1::Up up;
    up.mutable_collective_id()->set_epoch(admission().epoch);
    up.mutable_collective_id()->set_id(id);
    send(std::move(up));
  }

  absl::StatusOr<std::string> await_collective_id(absl::Duration patience) {
    absl::MutexLock lock(&mutex_);
    const auto settled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return collective_id_.has_value() || drained_ || !broken_.ok();
    };
    const bool came = mutex_.AwaitWithTimeout(absl::Condition(&settled), patience);
    if (!broken_.ok()) return broken_;
    if (!came) {
      return absl::DeadlineExceededError(
          absl::StrCat("the coordinator relayed no id for the ranks' communicator within ",
                       absl::FormatDuration(patience), "; did rank 0 fail to make it?"));
    }
    if (drained_) return absl::CancelledError("drained before the group could meet");
    return *collective_id_;
  }

  void send_result(const StepResult& result) {
    v1::Up up;
    wire::encode(result, up.mutable_result());
    send(std::move(up));
  }

  void confirm(StepId step, std::uint64_t digest, bool now) {
    bool taken = true;
    {
      absl::MutexLock lock(&mutex_);
      step_ = step;
      digest_ = digest;
      if (now) taken = beat();
    }
    if (!taken) fail(overrun());
  }

  void report_error(StepId step, const std::string& message) {
    v1::Up up;
    v1::WorkerError& error = *up.mutable_error();
    error.set_epoch(admission().epoch);
    error.set_step(step);
    error.set_message(message);
    send(std::move(up));
  }

  void finish() {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    pacer_.stop();
    if (!stream_->finish(kFinishPatience)) stream_->cancel();
  }

 private:
  Event take() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

  void on_message(const v1::Down& down) {
    absl::Status failure;
    {
      absl::MutexLock lock(&mutex_);
      last_heard_ = steady_now();
      switch (down.kind_case()) {
        case v1::Down::kWelcome:
          failure = admit(down.welcome());
          break;
        case v1::Down::kPlan:
          events_.push_back(PlanMessage{down.plan()});
          break;
        case v1::Down::kCollectiveId:
          failure = take_id(down.collective_id());
          break;
        case v1::Down::kDrain:
          events_.push_back(DrainMessage{down.drain().saved_prefixes()});
          drained_ = true;
          break;
        case v1::Down::kRefusal:
          failure = absl::FailedPreconditionError(
              absl::StrCat("the coordinator refused this worker: ", down.refusal().reason()));
          break;
        default:
          break;  // a heartbeat
      }
    }
    if (!failure.ok()) fail(failure);
  }

  absl::Status admit(const v1::Welcome& welcome) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (admission_.has_value()) return absl::FailedPreconditionError("a second Welcome arrived");
    absl::StatusOr<Admission> admission = read_welcome(welcome);
    if (!admission.ok()) return admission.status();
    admission_ = *admission;
    digest_ = admission->nonce;
    return absl::OkStatus();
  }

  absl::Status take_id(const v1::CollectiveId& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!admission_.has_value() || message.epoch() != admission_->epoch) {
      return absl::FailedPreconditionError(
          absl::StrCat("an id for the ranks' communicator came for epoch ", message.epoch()));
    }
    if (collective_id_.has_value()) {
      return absl::FailedPreconditionError("a second id for the ranks' communicator came");
    }
    collective_id_ = message.id();
    return absl::OkStatus();
  }

  // The first reason wins; after Drain the stream may end as it likes.
  void fail(const absl::Status& why) {
    std::function<void()> callback;
    {
      absl::MutexLock lock(&mutex_);
      if (!broken_.ok() || stopping_ || drained_) return;
      broken_ = why;
      callback = std::exchange(callback_, nullptr);
    }
    pacer_.stop();
    if (callback) callback();
  }

  static absl::Status overrun() {
    return absl::AbortedError("the coordinator does not take our messages any more");
  }

  void send(v1::Up up) {
    if (!stream_->send(std::move(up))) fail(overrun());
  }

  // Sent under the lock: steps must not be confirmed out of order.
  bool beat() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    v1::Up up;
    v1::Heartbeat& message = *up.mutable_heartbeat();
    message.set_epoch(admission_->epoch);
    message.set_step(step_);
    message.set_plan_digest(digest_);
    return stream_->send(std::move(up));
  }

  // Heartbeats up, and the lease: silence longer than it ends this worker.
  void keep_time() {
    const absl::Duration pause = absl::Milliseconds(admission().heartbeat_ms);
    const absl::Duration lease = absl::Milliseconds(admission().lease_ms);
    absl::Status failure;
    while (failure.ok()) {
      if (!pacer_.sleep(std::min(pause, lease / 4))) return;
      absl::MutexLock lock(&mutex_);
      if (stopping_ || !broken_.ok()) return;
      if (steady_now() - last_heard_ > lease) {
        failure = absl::DeadlineExceededError(
            absl::StrCat("heard nothing from the coordinator for ", absl::FormatDuration(lease)));
      } else if (!beat()) {
        failure = overrun();
      }
    }
    fail(failure);
  }

  absl::Mutex mutex_;
  std::optional<Admission> admission_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::string> collective_id_ ABSL_GUARDED_BY(mutex_);
  std::deque<Event> events_ ABSL_GUARDED_BY(mutex_);
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> callback_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_heard_ ABSL_GUARDED_BY(mutex_) = steady_now();
  StepId step_ ABSL_GUARDED_BY(mutex_) = 0;
  std::uint64_t digest_ ABSL_GUARDED_BY(mutex_) = 0;
  bool drained_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  const int rank_;
  Pacer pacer_;  // the ticker's
  std::thread ticker_;
  std::unique_ptr<Stream> stream_;  // last: its callbacks use all of the above
};

absl::StatusOr<std::unique_ptr<Link>> Link::attach(const CoordinatorAddress& to,
                                                   const Introduction& introduction,
                                                   absl::Duration patience) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxPlanBytes);
  const absl::Duration longest_pause = std::min(kLongestPause, patience / kTriesPerPatience);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(longest_pause)));
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(kFirstPause)));
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Or a new channel would wait as long as the last one's failures made it.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (!to.tls_name.empty()) arguments.SetSslTargetNameOverride(to.tls_name);
  const std::unique_ptr<v1::Fleet::Stub> stub = v1::Fleet::NewStub(
      grpc::CreateCustomChannel(to.host_port, credentials_of(to.tls), arguments));
  const absl::Time began = steady_now();
  const absl::Time deadline = began + patience;
  absl::Duration pause = kFirstPause;
  const absl::Duration quiet = patience / kQuietPart;
  bool said = false;
  for (;;) {
    auto impl = std::make_unique<Impl>(*stub, introduction);
    const absl::Status status = impl->await_admission(quiet);
    if (status.ok()) return std::unique_ptr<Link>(new Link(std::move(impl)));
    if (!absl::IsUnavailable(status)) return status;
    if (is_impostor(std::string(status.message()))) {
      return absl::UnauthenticatedError(absl::StrCat(
          "whoever answers at ", to.host_port,
          " has no certificate for that name from "
          "--grpc-ssl-ca-certs; if its certificate has another name, give --grpc-ssl-server-name (",
          status.message(), ")"));
    }
    if (steady_now() + pause > deadline) {
      return absl::UnavailableError(absl::StrCat(
          "no coordinator took us in at ", to.host_port, " within ", absl::FormatDuration(patience),
          "; check --coordinator and that it runs (", status.message(), ")"));
    }
    if (!said && steady_now() - began > quiet) {
      said = true;
      spdlog::warn("rank {}: no coordinator at {} yet ({}); trying until {} have passed",
                   introduction.rank, to.host_port, std::string(status.message()),
                   absl::FormatDuration(patience));
    }
    absl::SleepFor(pause);
    pause = std::min(pause * 2, longest_pause);
  }
}

Link::Link(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Link::~Link() = default;

const Admission& Link::admission() const {
  return impl_->admission();
}
void Link::on_broken(std::function<void()> callback) {
  impl_->on_broken(std::move(callback));
}
bool Link::coordinator_lost() const {
  return impl_->coordinator_lost();
}
absl::StatusOr<Event> Link::next() {
  return impl_->next();
}
absl::StatusOr<std::optional<Event>> Link::poll() {
  return impl_->poll();
}
void Link::send_collective_id(const std::string& id) {
  impl_->send_collective_id(id);
}
absl::StatusOr<std::string> Link::await_collective_id(absl::Duration patience) {
  return impl_->await_collective_id(patience);
}
void Link::send_result(const StepResult& result) {
  impl_->send_result(result);
}
void Link::confirm(StepId step, std::uint64_t plan_digest, bool now) {
  impl_->confirm(step, plan_digest, now);
}
void Link::report_error(StepId step, const std::string& message) {
  impl_->report_error(step, message);
}
void Link::finish() {
  impl_->finish();
}

}  // namespace quire
