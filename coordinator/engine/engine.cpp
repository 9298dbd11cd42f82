// The door to the engine: checks and messages from any thread. The loop itself is in step_loop.
#include "coordinator/engine/engine.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/status.h"
#include "coordinator/engine/intake.h"
#include "coordinator/engine/mailbox.h"
#include "coordinator/engine/step_loop.h"

namespace quire {
namespace {

// For a step of which nothing is known: long enough for a full budget of tokens on the slowest
// machine that is of any use (ten tokens a second), and never so short that a page-in or a busy
// host ends a healthy epoch. A group that really died is noticed by its streams long before; this
// only bounds a silent hang.
constexpr absl::Duration kMinStepDeadline = absl::Seconds(60);
constexpr absl::Duration kStepDeadlinePerToken = absl::Milliseconds(100);

// The loop answers between two steps; if it is not running yet, nobody is refused.
constexpr absl::Duration kVerdictPatience = absl::Milliseconds(200);

// The loop takes its messages between two steps of its own, which take milliseconds; a step that is
// overdue ends its epoch. Longer than this, on however busy a host, something hangs.
constexpr absl::Duration kStuck = absl::Seconds(10);
constexpr absl::Duration kOverdue = absl::Seconds(5);

absl::Duration longest_step_of(const EngineConfig& config) {
  return std::max(kMinStepDeadline, kStepDeadlinePerToken * config.max_num_batched_tokens);
}

int max_model_len_of(const EngineConfig& config, const ModelSpec& spec) {
  return config.max_model_len > 0 ? config.max_model_len : spec.max_positions;
}

Policy policy_of(const EngineConfig& config, const std::vector<Tenant>& tenants) {
  if (config.scheduling_policy == "priority") return Policy::kPriority;
  if (config.scheduling_policy == "spf") return Policy::kSpf;
  if (config.scheduling_policy == "lpm") return Policy::kLpm;
  if (config.scheduling_policy == "fair") return Policy::kFair;
  if (config.scheduling_policy == "auto" && tenants.size() > 1) return Policy::kFair;
  return Policy::kFcfs;
}

SchedulerConfig scheduler_config(const EngineConfig& config, const ModelSpec& spec,
                                 const std::vector<Tenant>& tenants) {
  std::vector<double> weights;
  for (const Tenant& tenant : tenants) weights.push_back(tenant.weight);
  if (weights.empty()) weights.push_back(1.0);
  return {.max_num_seqs = config.max_num_seqs,
          .max_num_batched_tokens = config.max_num_batched_tokens,
          .steps_in_flight = config.steps_in_flight,
          .block_size = config.block_size,
          .num_kv_groups = 1,
          .max_model_len = max_model_len_of(config, spec),
          .vocab = spec.vocab,
          .eos = spec.eos,
          .policy = policy_of(config, tenants),
          .priority_ageing = absl::Milliseconds(config.priority_ageing_ms),
          .long_prefill_token_threshold = config.long_prefill_token_threshold,
          .tenant_weights = std::move(weights),
          .prefix_caching = !config.no_prefix_caching,
          .hash_key = std::random_device{}() + (std::uint64_t{std::random_device{}()} << 32),
          .num_speculative_tokens =
              config.speculative_method == "none" ? 0 : config.num_speculative_tokens,
          .drafts_may_change_answers = config.speculative_method == "ngram",
          .prompt_lookup_max = config.prompt_lookup_max,
          .prompt_lookup_min = config.prompt_lookup_min};
}

RequestLimits request_limits(const EngineConfig& config, const ModelSpec& spec,
                             const std::vector<Tenant>& tenants) {
  return {.vocab = spec.vocab,
          .max_model_len = max_model_len_of(config, spec),
          .block_size = config.block_size,
          .total_blocks = 0,
          .max_num_seqs = std::min(config.max_num_seqs, config.max_num_batched_tokens),
          .num_tenants = std::max(1, static_cast<int>(tenants.size()))};
}

QueueGate::Limits queue_limits(const EngineConfig& config) {
  return {.max_requests = config.max_num_queued_reqs,
          .max_tokens = config.max_num_queued_tokens,
          .max_batched_tokens = config.max_num_batched_tokens};
}

}  // namespace

const char* name_of(EndCause cause) {
  switch (cause) {
    case EndCause::kRankGone:
      return "rank_gone";
    case EndCause::kRankSilent:
      return "rank_silent";
    case EndCause::kWorkerError:
      return "worker_error";
    case EndCause::kStepDeadline:
      return "step_deadline";
    case EndCause::kProtocol:
      return "protocol";
  }
  return "";
}

const char* name_of(ServingState state) {
  switch (state) {
    case ServingState::kStarting:
      return "starting";
    case ServingState::kReady:
      return "ready";
    case ServingState::kRecovering:
      return "recovering";
    case ServingState::kDraining:
      return "draining";
    case ServingState::kFailed:
      return "failed";
  }
  return "";
}

class Engine::Impl {
 public:
  Impl(const EngineConfig& config, const ModelSpec& spec, absl::Duration step_deadline,
       const std::vector<Tenant>& tenants)
      : intake_(request_limits(config, spec, tenants), queue_limits(config), tenants),
        loop_(scheduler_config(config, spec, tenants),
              StepDeadline(longest_step_of(config), step_deadline), steady_now,
              config.data_parallel_size) {}
  ~Impl() { stop(); }

  void set_journal(JournalPort* journal) {
    journal_ = journal;
    loop_.set_outlet(
        [journal](std::vector<Delivery> deliveries) { journal->release(std::move(deliveries)); });
  }

  void set_first_request(RequestId id) { intake_.set_first_request(id); }

  absl::Status resume(SavedRequest saved) {
    QUIRE_ASSIGN_OR_RETURN(ResumedRequest resumed, intake_.resume(std::move(saved)));
    return mailbox_.push(std::move(resumed)) ? absl::OkStatus() : stopping();
  }

  void give_up(RequestId id) {
    if (journal_ != nullptr) journal_->withdraw(id);
    mailbox_.push(CancelRequest{id});
  }

  absl::StatusOr<RequestId> submit(Request request) {
    if (draining_ || failed_) return stopping();
    QUIRE_ASSIGN_OR_RETURN(Intake::Entered entered,
                           intake_.enter(std::move(request), loop_.stats()));
    const Request& wish = entered.request;
    const RequestId id = wish.id;
    const bool is_journaled = journal_ != nullptr && wish.answer != nullptr;
    if (is_journaled) {
      if (absl::Status written = journal_->accept(wish); !written.ok()) {
        intake_.turn_away(std::ssize(wish.prompt));
        return written;
      }
    }
    absl::Status taken = hand_over(std::move(entered));
    if (!taken.ok() && is_journaled) journal_->withdraw(id);
    QUIRE_RETURN_IF_ERROR(taken);
    return id;
  }

  void stop_choice(RequestId id, int choice) {
    intake_.choice_ended(id, choice);
    mailbox_.push(StopChoice{id, choice});
  }

  void on_ready(const GroupReady& ready) {
    intake_.on_ready(ready);
    mailbox_.push(ready);
  }

  void on_result(StepResult result) {
    intake_.on_step(loop_.stats());
    mailbox_.push(std::move(result));
  }

  absl::Duration retry_after() const { return intake_.retry_after(loop_.stats()); }

  EngineStats stats() const {
    EngineStats stats = loop_.stats();
    intake_.add_refusals(&stats);
    if (journal_ != nullptr) stats.journal = journal_->stats();
    return stats;
  }

  void set_saved_prefixes(std::string index) { loop_.set_saved_prefixes(std::move(index)); }

  std::string save_prefixes(absl::Duration deadline) {
    auto index = std::make_shared<std::promise<std::string>>();
    std::future<std::string> answer = index->get_future();
    if (!thread_.joinable() || !mailbox_.push(SavePrefixes{std::move(index)})) return "";
    if (answer.wait_for(absl::ToChronoSeconds(deadline)) != std::future_status::ready) return "";
    return answer.get();
  }

  void set_events(EngineEvents events) { loop_.set_events(std::move(events)); }

  ServingState state() const {
    if (failed_) return ServingState::kFailed;
    if (draining_) return ServingState::kDraining;
    if (loop_.stats().ready) return ServingState::kReady;
    return intake_.has_had_group() ? ServingState::kRecovering : ServingState::kStarting;
  }

  absl::Status check_progress() const {
    if (failed_) return absl::UnavailableError("No worker group will come any more.");
    const absl::Time now = steady_now();
    if (const absl::Duration left = now - mailbox_.waiting_since(); left > kStuck) {
      return absl::UnavailableError(
          absl::StrCat("The engine has not taken its messages for ",
                       absl::FormatDuration(absl::Floor(left, absl::Seconds(1))), "."));
    }
    const absl::Time due = loop_.stats().answer_due;
    if (now - due <= kOverdue) return absl::OkStatus();
    return absl::UnavailableError(
        absl::StrCat("A step has been overdue for ",
                     absl::FormatDuration(absl::Floor(now - due, absl::Seconds(1))), "."));
  }

  bool drain(absl::Duration patience) {
    draining_ = true;
    if (!thread_.joinable()) return true;
    const auto tell = [this] {
      std::lock_guard lock(drain_mutex_);
      idle_ = true;
      drain_news_.notify_all();
    };
    if (!mailbox_.push(AwaitIdle{tell})) return true;
    std::unique_lock lock(drain_mutex_);
    drain_news_.wait_for(lock, absl::ToChronoNanoseconds(patience),
                         [this] { return idle_ || hurried_; });
    return idle_;
  }

  void hurry() {
    std::lock_guard lock(drain_mutex_);
    hurried_ = true;
    drain_news_.notify_all();
  }

  void fail() { failed_ = true; }

  void start(GroupPort* group) {
    QUIRE_CHECK(!thread_.joinable());
    loop_.begin(group);
    thread_ = std::thread([this] { run(); });
  }

  void stop() {
    if (std::exchange(stopped_, true)) return;
    mailbox_.close();
    if (thread_.joinable()) {
      thread_.join();
    } else {
      run();  // never started: only ends what waits in the mailbox
    }
  }

  Mailbox& mailbox() { return mailbox_; }
  int max_model_len() const { return intake_.max_model_len(); }

 private:
  static absl::Status stopping() {
    return absl::UnavailableError("The server is stopping and takes no new requests.");
  }

  void run() {
    std::vector<Message> inbox;
    while (mailbox_.wait(loop_.wake_time(), &inbox)) loop_.turn(&inbox);
    loop_.end(&inbox);  // with what came before the mailbox closed
  }

  absl::Status hand_over(Intake::Entered entered) {
    if (entered.is_doubtful) return ask(std::move(entered));
    return mailbox_.push(std::move(entered.request)) ? absl::OkStatus() : stopping();
  }

  // The loop takes the request, or says why its deadline cannot be kept.
  absl::Status ask(Intake::Entered entered) {
    const std::int64_t prompt_tokens = std::ssize(entered.request.prompt);
    auto verdict = std::make_shared<Verdict>();
    if (!mailbox_.push(DoubtfulRequest{std::move(entered.request), entered.speeds, verdict})) {
      return stopping();
    }
    absl::Status answer = verdict->wait(kVerdictPatience);
    if (!answer.ok()) intake_.turn_away(prompt_tokens);
    return answer;
  }

  Intake intake_;
  Mailbox mailbox_;
  StepLoop loop_;
  JournalPort* journal_ = nullptr;
  std::atomic<bool> draining_ = false, failed_ = false;
  std::mutex drain_mutex_;  // guards what follows
  std::condition_variable drain_news_;
  bool idle_ = false, hurried_ = false;
  std::thread thread_;
  bool stopped_ = false;  // the owner's
};

Engine::Engine(const EngineConfig& config, const ModelSpec& spec, absl::Duration step_deadline,
               std::vector<Tenant> tenants)
    : impl_(std::make_unique<Impl>(config, spec, step_deadline, tenants)) {}
Engine::~Engine() = default;

absl::StatusOr<RequestId> Engine::submit(Request request) {
  return impl_->submit(std::move(request));
}
void Engine::cancel(RequestId id) {
  impl_->mailbox().push(CancelRequest{id});
}
void Engine::stop_choice(RequestId id, int choice) {
  impl_->stop_choice(id, choice);
}
absl::Duration Engine::retry_after() const {
  return impl_->retry_after();
}
EngineStats Engine::stats() const {
  return impl_->stats();
}
ServingState Engine::state() const {
  return impl_->state();
}
absl::Status Engine::check_progress() const {
  return impl_->check_progress();
}
int Engine::max_model_len() const {
  return impl_->max_model_len();
}

void Engine::on_ready(const GroupReady& ready) {
  impl_->on_ready(ready);
}
void Engine::on_result(StepResult result) {
  impl_->on_result(std::move(result));
}
void Engine::on_lost(EpochId epoch, EndCause cause) {
  impl_->mailbox().push(GroupLost{epoch, cause});
}

void Engine::set_journal(JournalPort* journal) {
  impl_->set_journal(journal);
}
void Engine::set_first_request(RequestId id) {
  impl_->set_first_request(id);
}
absl::Status Engine::resume(SavedRequest saved) {
  return impl_->resume(std::move(saved));
}
void Engine::give_up(RequestId id) {
  impl_->give_up(id);
}
void Engine::set_saved_prefixes(std::string index) {
  impl_->set_saved_prefixes(std::move(index));
}
std::string Engine::save_prefixes(absl::Duration deadline) {
  return impl_->save_prefixes(deadline);
}
void Engine::set_events(EngineEvents events) {
  impl_->set_events(std::move(events));
}
bool Engine::drain(absl::Duration patience) {
  return impl_->drain(patience);
}
void Engine::hurry() {
  impl_->hurry();
}
void Engine::fail() {
  impl_->fail();
}
void Engine::start(GroupPort* group) {
  impl_->start(group);
}
void Engine::stop() {
  impl_->stop();
}

}  // namespace quire
