// The step loop of a worker.
#include "worker/session/session.h"

#include <deque>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/wire.h"
#include "spdlog/spdlog.h"
#include "worker/session/capacity.h"
#include "worker/session/link.h"

namespace quire {
namespace {

// The first steps prove a new group; their confirmation does not wait for the next heartbeat.
constexpr StepId kConfirmAtOnce = 2;
// After so long without a new plan the step is waited for: only then does the deadline for peers
// run.
constexpr absl::Duration kPollPatience = absl::Seconds(5);

absl::StatusOr<Introduction> introduce(const Rank& rank, const SessionOptions& options) {
  Introduction intro;
  intro.instance_id = options.instance_id;
  intro.rank = rank.place().rank;
  intro.world = rank.place().world;
  intro.model_hash = rank.file().hash;
  intro.numerics_id = rank.numerics_id();
  intro.layout_digest = rank.layout_digest(options.block_size);
  intro.kv_block_bytes = rank.kv_block_bytes(options.block_size);
  intro.weight_bytes = rank.weights().bytes;
  intro.device = rank.device().description();
  intro.secret = options.secret;
  const KvShape kv = rank.kv_shape(options.block_size);
  intro.kv_group = {kv.head_dim, kv.head_dim, kv.num_layers, 0};
  intro.kv_dtype = name_of(kv.dtype);
  intro.kv_local_heads = kv.num_kv_heads;
  intro.kv_replicated = rank.kv_replicated();
  intro.collective = rank.collective_kind();
  QUIRE_ASSIGN_OR_RETURN(
      const Capacity capacity,
      choose_capacity({options.kv_cache_memory_bytes, intro.kv_block_bytes, options.block_size,
                       options.max_num_seqs, options.max_model_len, rank.device().free_bytes(),
                       rank.device().kv_share()}));
  intro.kv_capacity_blocks = static_cast<std::uint64_t>(capacity.blocks);
  spdlog::info("rank {}: KV cache {}", intro.rank, capacity.reason);
  return intro;
}

absl::Status check_admission(const Admission& admission, const Introduction& intro,
                             const SessionOptions& options, const ModelSpec& spec) {
  if (admission.block_size != options.block_size) {
    return absl::FailedPreconditionError(
        absl::StrCat("the coordinator's blocks have ", admission.block_size, " tokens, ours ",
                     options.block_size, "; give both the same --block-size"));
  }
  if (static_cast<std::uint64_t>(admission.num_blocks) > intro.kv_capacity_blocks) {
    return absl::FailedPreconditionError(
        absl::StrCat("the coordinator plans with ", admission.num_blocks,
                     " KV blocks, but we offered ", intro.kv_capacity_blocks));
  }
  if (admission.max_model_len > spec.max_positions) {
    return absl::FailedPreconditionError(
        absl::StrCat("the coordinator plans sequences of ", admission.max_model_len,
                     " tokens, but the model has ", spec.max_positions, " positions"));
  }
  return absl::OkStatus();
}

// The id of this epoch's communicator; "" where the ranks meet in host memory.
absl::StatusOr<std::string> agree_on_id(Rank& rank, Link& link, const SessionOptions& options) {
  if (rank.collective_kind().empty()) return "";
  if (rank.place().rank == 0) {
    QUIRE_ASSIGN_OR_RETURN(const std::string id, rank.device().make_collective_id());
    link.send_collective_id(id);
  }
  return link.await_collective_id(options.patience);
}

absl::Status start(Rank& rank, Link& link, const SessionOptions& options) {
  const Admission& with = link.admission();
  const StepLimits limits{with.num_blocks, with.block_size, with.max_num_seqs,
                          with.max_num_batched_tokens, with.max_model_len};
  QUIRE_ASSIGN_OR_RETURN(const std::string id, agree_on_id(rank, link, options));
  QUIRE_RETURN_IF_ERROR(
      rank.start(limits, absl::StrCat("quire-", options.instance_id, "-", with.epoch), id));
  spdlog::info("rank {}: meets over {}", rank.place().rank, rank.comm().description());
  return absl::OkStatus();
}

// Plans are enqueued as they come and as the runner has room; results leave in order.
class StepLoop {
 public:
  StepLoop(Rank& rank, Link& link) : rank_(rank), runner_(rank.runner()), link_(link) {}

  // Until Drain (OK) or an error.
  absl::Status run() {
    for (;;) {
      QUIRE_ASSIGN_OR_RETURN(std::optional<Event> event, next());
      if (!event.has_value()) {
        QUIRE_RETURN_IF_ERROR(finish());
        continue;
      }
      const auto* message = std::get_if<PlanMessage>(&*event);
      if (message != nullptr) {
        QUIRE_RETURN_IF_ERROR(enqueue(message->bytes));
        continue;
      }
      while (runner_.in_flight() > 0) QUIRE_RETURN_IF_ERROR(finish());
      return absl::OkStatus();
    }
  }

  StepId last_step() const { return finished_; }

 private:
  struct Sent {
    bool samples_here;
    std::uint64_t digest;
  };

  // What to do next: a message, or nothing: the oldest step is to be finished.
  absl::StatusOr<std::optional<Event>> next() {
    if (runner_.in_flight() == 0) return link_.next();
    const absl::Time deadline = absl::Now() + kPollPatience;
    while (runner_.may_enqueue() && !runner_.has_finished()) {
      QUIRE_ASSIGN_OR_RETURN(std::optional<Event> event, link_.poll());
      if (event.has_value() || absl::Now() > deadline) return event;
      std::this_thread::yield();
    }
    return std::nullopt;
  }

  absl::Status enqueue(const std::string& bytes) {
    QUIRE_ASSIGN_OR_RETURN(const StepPlan plan, wire::decode_plan(bytes));
    if (plan.epoch != link_.admission().epoch) {
      return absl::FailedPreconditionError(absl::StrCat(
          "a plan of epoch ", plan.epoch, " arrived in epoch ", link_.admission().epoch));
    }
    if (plan.step != enqueued_ + 1) {
      return absl::FailedPreconditionError(
          absl::StrCat("step ", plan.step, " arrived after step ", enqueued_));
    }
    QUIRE_RETURN_IF_ERROR(runner_.enqueue(plan));
    enqueued_ = plan.step;
    digest_ = wire::plan_digest(digest_, bytes);
    sent_.push_back({plan.sampling_rank == rank_.place().rank, digest_});
    return absl::OkStatus();
  }

  absl::Status finish() {
    QUIRE_ASSIGN_OR_RETURN(const StepResult result, runner_.finish());
    const Sent sent = sent_.front();
    sent_.pop_front();
    finished_ = result.step;
    if (sent.samples_here) link_.send_result(result);
    link_.confirm(finished_, sent.digest, !sent.samples_here && finished_ <= kConfirmAtOnce);
    return absl::OkStatus();
  }

  Rank& rank_;
  Runner& runner_;
  Link& link_;
  StepId enqueued_ = 0, finished_ = 0;
  std::uint64_t digest_ = 0;  // of all plans up to enqueued_
  std::deque<Sent> sent_;     // of the steps in flight
};

// The link's reason explains more than the exchange that was given up because of it. Plans that
// came before the link broke are of no use any more.
absl::Status reason_of(Link& link, const absl::Status& status) {
  if (!absl::IsAborted(status) && !absl::IsCancelled(status)) return status;
  absl::StatusOr<Event> next = link.next();
  while (next.ok() && std::holds_alternative<PlanMessage>(*next)) next = link.next();
  return next.ok() ? status : next.status();
}

}  // namespace

absl::Status run_session(Rank& rank, const SessionOptions& options) {
  QUIRE_ASSIGN_OR_RETURN(const Introduction intro, introduce(rank, options));
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<Link> link,
                         Link::attach(options.coordinator, intro, options.patience));
  const Admission admission = link->admission();
  QUIRE_RETURN_IF_ERROR(check_admission(admission, intro, options, rank.file().spec));
  spdlog::info("rank {}: admitted to epoch {} with {} blocks", intro.rank, admission.epoch,
               admission.num_blocks);
  absl::Status status = start(rank, *link, options);
  if (absl::IsCancelled(status)) {  // drained before the group could meet
    link->finish();
    return absl::OkStatus();
  }
  StepId last_step = 0;
  if (status.ok()) {
    link->on_broken([&rank] { rank.comm().abort(); });
    StepLoop loop(rank, *link);
    status = loop.run();
    last_step = loop.last_step();
    if (!status.ok()) rank.comm().abort();
  }
  if (!status.ok()) {
    status = reason_of(*link, status);
    link->report_error(last_step, std::string(status.message()));
  }
  link->finish();
  return status;
}

}  // namespace quire
