// The rules of the stream: attach and retry, order, heartbeats, lease.
#include "worker/session/link.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <unistd.h>

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
#include "worker/session/stream.h"

namespace quire {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
// Between two tries: of a patience, and at most.
constexpr int kTriesPerPatience = 20;
constexpr absl::Duration kLongestPause = absl::Seconds(2);
constexpr absl::Duration kFinishPatience = absl::Seconds(2);
constexpr int kMaxPlanBytes = 256 << 20;

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

v1::Up hello_message(const Introduction& in) {
  v1::Up up;
  v1::Hello& hello = *up.mutable_hello();
  hello.set_protocol(wire::kProtocolVersion);
  hello.set_instance_id(in.instance_id);
  hello.set_rank(static_cast<std::uint32_t>(in.rank));
  hello.set_world(static_cast<std::uint32_t>(in.world));
  hello.set_host(host_name());
  hello.set_pid(static_cast<std::uint64_t>(::getpid()));
  hello.set_build(QUIRE_VERSION);
  hello.set_model_hash(in.model_hash);
  hello.set_numerics_id(in.numerics_id);
  hello.set_layout_digest(in.layout_digest);
  hello.set_kv_capacity_blocks(in.kv_capacity_blocks);
  hello.set_kv_block_bytes(in.kv_block_bytes);
  hello.set_weight_bytes(in.weight_bytes);
  hello.set_device(in.device);
  hello.set_secret(in.secret);
  hello.set_collective(in.collective);
  hello.set_host_blocks(in.host_blocks);
  hello.set_saved_prefixes(in.saved_prefixes);
  hello.set_last_epoch(in.last_epoch);
  v1::KvGroupSpec& group = *hello.add_kv_groups();
  group.set_k_dim(static_cast<std::uint32_t>(in.kv_group.k_dim));
  group.set_v_dim(static_cast<std::uint32_t>(in.kv_group.v_dim));
  group.set_window(static_cast<std::uint32_t>(in.kv_group.window));
  group.set_num_layers(static_cast<std::uint32_t>(in.kv_group.num_layers));
  group.set_dtype(in.kv_dtype);
  group.set_local_heads(static_cast<std::uint32_t>(in.kv_local_heads));
  group.set_replicated(in.kv_replicated);
  return up;
}

absl::StatusOr<Admission> read_welcome(const v1::Welcome& in) {
  Admission out;
  out.epoch = in.epoch();
  out.nonce = in.nonce();
  out.keep_saved = in.keep_saved();
  struct Field {
    const char* name;
    std::uint32_t value;
    int* out;
    std::uint32_t low, high;
  };
  const Field fields[] = {
      {"num_blocks", in.num_blocks(), &out.num_blocks, 1, 1u << 30},
      {"block_size", in.block_size(), &out.block_size, 1, 1024},
      {"max_num_seqs", in.max_num_seqs(), &out.max_num_seqs, 1, 1u << 16},
      {"max_num_batched_tokens", in.max_num_batched_tokens(), &out.max_num_batched_tokens, 1,
       1u << 20},
      {"max_model_len", in.max_model_len(), &out.max_model_len, 1, 1u << 26},
      {"sampling_rank", in.sampling_rank(), &out.sampling_rank, 0, 1u << 16},
      {"heartbeat_ms", in.heartbeat_ms(), &out.heartbeat_ms, 1, 60000},
      {"lease_ms", in.lease_ms(), &out.lease_ms, 1, 3600000},
      {"host_blocks", in.host_blocks(), &out.host_blocks, 0, 1u << 30},
  };
  for (const Field& field : fields) {
    if (field.value < field.low || field.value > field.high) {
      return absl::FailedPreconditionError(
          absl::StrCat("the coordinator's Welcome has `", field.name, "` = ", field.value,
                       ", outside [", field.low, ", ", field.high, "]"));
    }
    *field.out = static_cast<int>(field.value);
  }
  return out;
}

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
      : stream_(std::make_unique<Stream>(
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
  absl::Status await_admission() {
    absl::MutexLock lock(&mutex_);
    const auto settled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return admission_.has_value() || drained_ || !broken_.ok();
    };
    mutex_.Await(absl::Condition(&settled));
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
  const absl::Time deadline = steady_now() + patience;
  absl::Duration pause = kFirstPause;
  for (;;) {
    auto impl = std::make_unique<Impl>(*stub, introduction);
    const absl::Status status = impl->await_admission();
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
