// The door to the engine: checks and messages from any thread. The loop itself is in step_loop.
#include "coordinator/engine/engine.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "coordinator/engine/admission.h"
#include "coordinator/engine/mailbox.h"
#include "coordinator/engine/step_loop.h"

namespace quire {
namespace {

// Long enough for a full budget of tokens on the slowest machine that is of any use (ten tokens a
// second), and never so short that a page-in or a busy host ends a healthy epoch. A group that
// really died is noticed by its streams long before; this only bounds a silent hang.
constexpr absl::Duration kMinStepDeadline = absl::Seconds(60);
constexpr absl::Duration kStepDeadlinePerToken = absl::Milliseconds(100);

absl::Duration step_deadline_of(const EngineConfig& config) {
  return std::max(kMinStepDeadline, kStepDeadlinePerToken * config.max_num_batched_tokens);
}

int max_model_len_of(const EngineConfig& config, const ModelSpec& spec) {
  return config.max_model_len > 0 ? config.max_model_len : spec.max_positions;
}

SchedulerConfig scheduler_config(const EngineConfig& config, const ModelSpec& spec) {
  return {.max_num_seqs = config.max_num_seqs,
          .max_num_batched_tokens = config.max_num_batched_tokens,
          .steps_in_flight = config.steps_in_flight,
          .block_size = config.block_size,
          .num_kv_groups = 1,
          .max_model_len = max_model_len_of(config, spec),
          .vocab = spec.vocab,
          .eos = spec.eos};
}

}  // namespace

class Engine::Impl {
 public:
  Impl(const EngineConfig& config, const ModelSpec& spec, absl::Duration step_deadline)
      : limits_{spec.vocab, max_model_len_of(config, spec), config.block_size, 0},
        loop_(scheduler_config(config, spec),
              step_deadline > absl::ZeroDuration() ? step_deadline : step_deadline_of(config),
              &mailbox_) {}
  ~Impl() { stop(); }

  absl::StatusOr<RequestId> submit(Request request) {
    QUIRE_CHECK(request.deliver);
    RequestLimits limits = limits_;
    limits.total_blocks = total_blocks_.load();
    QUIRE_RETURN_IF_ERROR(check_request(request, limits));
    const RequestId id = next_id_.fetch_add(1);
    request.id = id;
    if (!mailbox_.push(std::move(request))) {
      return absl::FailedPreconditionError("The server is stopping and takes no new requests.");
    }
    return id;
  }

  void on_ready(const GroupReady& ready) {
    total_blocks_.store(ready.num_blocks);
    mailbox_.push(ready);
  }

  void start(GroupPort* group) {
    QUIRE_CHECK(!thread_.joinable());
    thread_ = std::thread([this, group] { loop_.run(group); });
  }

  void stop() {
    if (std::exchange(stopped_, true)) return;
    mailbox_.close();
    if (thread_.joinable()) {
      thread_.join();
    } else {
      loop_.run(nullptr);  // never started: only ends what waits in the mailbox
    }
  }

  Mailbox& mailbox() { return mailbox_; }
  const StepLoop& loop() const { return loop_; }
  int max_model_len() const { return limits_.max_model_len; }

 private:
  const RequestLimits limits_;         // without the group's blocks
  std::atomic<int> total_blocks_ = 0;  // of the last group that was ready
  std::atomic<RequestId> next_id_ = 1;
  Mailbox mailbox_;
  StepLoop loop_;
  std::thread thread_;
  bool stopped_ = false;  // the owner's
};

Engine::Engine(const EngineConfig& config, const ModelSpec& spec, absl::Duration step_deadline)
    : impl_(std::make_unique<Impl>(config, spec, step_deadline)) {}
Engine::~Engine() = default;

absl::StatusOr<RequestId> Engine::submit(Request request) {
  return impl_->submit(std::move(request));
}
void Engine::cancel(RequestId id) {
  impl_->mailbox().push(CancelRequest{id});
}
void Engine::stop_choice(RequestId id, int choice) {
  impl_->mailbox().push(StopChoice{id, choice});
}
absl::Duration Engine::retry_after() const {
  return absl::Seconds(1);
}
EngineStats Engine::stats() const {
  return impl_->loop().stats();
}
int Engine::max_model_len() const {
  return impl_->max_model_len();
}

void Engine::on_ready(const GroupReady& ready) {
  impl_->on_ready(ready);
}
void Engine::on_result(StepResult result) {
  impl_->mailbox().push(std::move(result));
}
void Engine::on_lost(const std::string& why) {
  impl_->mailbox().push(GroupLost{why});
}

void Engine::start(GroupPort* group) {
  impl_->start(group);
}
void Engine::stop() {
  impl_->stop();
}

}  // namespace quire
