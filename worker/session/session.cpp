// The step loop of a worker.
#include "worker/session/session.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/status.h"
#include "common/wire.h"
#include "kernels/host_memory.h"
#include "spdlog/spdlog.h"
#include "worker/loader/content_digest.h"
#include "worker/session/capacity.h"
#include "worker/session/link.h"

namespace quire {
namespace {

// The first steps prove a new group; their confirmation does not wait for the next heartbeat.
constexpr StepId kConfirmAtOnce = 2;
// After so long without a new plan the step is waited for: only then does the deadline for peers
// run.
constexpr absl::Duration kPollPatience = absl::Seconds(5);

// What the store may take of the host's memory: `kv_cache_bytes` will be there too where the device
// computes in it.
std::int64_t free_for_store(const Rank& rank, std::int64_t kv_cache_bytes) {
  const std::int64_t free = free_host_bytes() / rank.place().num_on_host();
  if (free == 0) return 0;
  const bool shared = !rank.device().runs_ahead();
  return std::max<std::int64_t>(1, shared ? free - kv_cache_bytes : free);
}

absl::Status open_store(Rank& rank, const SessionOptions& options, std::int64_t kv_cache_bytes) {
  if (options.kv_offload_bytes == 0 || rank.store() != nullptr) return absl::OkStatus();
  HostStoreOptions store;
  store.bytes = options.kv_offload_bytes;
  store.folder = options.kv_offload_path;
  store.free_bytes = free_for_store(rank, kv_cache_bytes);
  store.rank = rank.place().rank;
  store.world = rank.place().world;
  store.model_hash = rank.file().hash;
  store.layout = absl::StrCat(rank.numerics_id(), " ", rank.layout_digest(options.block_size));
  if (!store.folder.empty()) {
    QUIRE_ASSIGN_OR_RETURN(const std::uint64_t weights, content_digest(rank.file()));
    absl::StrAppend(&store.layout, " ", absl::Hex(weights));
  }
  QUIRE_ASSIGN_OR_RETURN(
      std::unique_ptr<HostStore> opened,
      HostStore::open(store, rank.kv_block_bytes(options.block_size), rank.device()));
  spdlog::info("rank {}: KV offload store of {}{}", store.rank, opened->description(),
               opened->saved() != 0 ? ", with blocks of an earlier life" : "");
  rank.keep_store(std::move(opened));
  return absl::OkStatus();
}

absl::StatusOr<Introduction> introduce(Rank& rank, const SessionOptions& options) {
  Introduction intro;
  intro.instance_id = options.instance_id;
  intro.rank = rank.place().rank;
  intro.world = rank.place().world;
  intro.model_hash = rank.file().hash;
  intro.numerics_id = rank.numerics_id();
  intro.one_answer = rank.device().one_answer();
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
  QUIRE_RETURN_IF_ERROR(
      open_store(rank, options, capacity.blocks * static_cast<std::int64_t>(intro.kv_block_bytes)));
  if (const HostStore* store = rank.store()) {
    intro.host_blocks = static_cast<std::uint64_t>(store->num_blocks());
    intro.saved_prefixes = store->saved();
  }
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
  if (static_cast<std::uint64_t>(admission.host_blocks) > intro.host_blocks) {
    return absl::FailedPreconditionError(
        absl::StrCat("the coordinator plans with ", admission.host_blocks,
                     " blocks of the offload store, but we offered ", intro.host_blocks));
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
  if (HostStore* store = rank.store()) {
    QUIRE_RETURN_IF_ERROR(store->begin_epoch(with.host_blocks, with.keep_saved));
  }
  QUIRE_ASSIGN_OR_RETURN(const std::string id, agree_on_id(rank, link, options));
  QUIRE_RETURN_IF_ERROR(
      rank.start(limits, absl::StrCat("quire-", options.instance_id, "-", with.epoch), id));
  spdlog::info("rank {}: meets over {}", rank.place().rank, rank.comm().description());
  return absl::OkStatus();
}

// Plans are enqueued as they come and as the runner has room; results leave in order.
class StepLoop {
 public:
  StepLoop(Rank& rank, Link& link)
      : rank_(rank), runner_(rank.runner()), link_(link), digest_(link.admission().nonce) {}

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
      seal(std::get<DrainMessage>(*event).saved_prefixes);
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
    const absl::Time deadline = steady_now() + kPollPatience;
    while (runner_.may_enqueue() && !runner_.has_finished()) {
      QUIRE_ASSIGN_OR_RETURN(std::optional<Event> event, link_.poll());
      if (event.has_value() || steady_now() > deadline) return event;
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

  // A store that cannot be sealed holds nothing for a later life; that is no reason to end badly.
  void seal(std::uint64_t saved_prefixes) {
    if (saved_prefixes == 0 || rank_.store() == nullptr) return;
    if (const absl::Status sealed = rank_.store()->seal(saved_prefixes); !sealed.ok()) {
      spdlog::error("rank {}: its prefixes are not kept: {}", rank_.place().rank,
                    std::string(sealed.message()));
    }
  }

  Rank& rank_;
  Runner& runner_;
  Link& link_;
  StepId enqueued_ = 0, finished_ = 0;
  std::uint64_t digest_;   // of the nonce and all plans up to enqueued_
  std::deque<Sent> sent_;  // of the steps in flight
};

// The link's reason explains more than the exchange that was given up because of it. Plans that
// came before the link broke are of no use any more.
absl::Status reason_of(Link& link, const absl::Status& status) {
  if (!absl::IsAborted(status) && !absl::IsCancelled(status)) return status;
  absl::StatusOr<Event> next = link.next();
  while (next.ok() && std::holds_alternative<PlanMessage>(*next)) next = link.next();
  return next.ok() ? status : next.status();
}

// From Welcome to the end of the epoch. OK: drained.
absl::Status run_epoch(Rank& rank, Link& link, const Introduction& intro,
                       const SessionOptions& options) {
  const Admission admission = link.admission();
  QUIRE_RETURN_IF_ERROR(check_admission(admission, intro, options, rank.file().spec));
  spdlog::info("rank {}: admitted to epoch {} with {} blocks", intro.rank, admission.epoch,
               admission.num_blocks);
  absl::Status status = start(rank, link, options);
  if (absl::IsCancelled(status)) {  // drained before the group could meet
    link.finish();
    return absl::OkStatus();
  }
  StepId last_step = 0;
  if (status.ok()) {
    link.on_broken([&rank] { rank.comm().abort(); });
    StepLoop loop(rank, link);
    status = loop.run();
    last_step = loop.last_step();
    if (!status.ok()) rank.comm().abort();
  }
  if (!status.ok()) {
    status = reason_of(link, status);
    link.report_error(last_step, std::string(status.message()));
  }
  link.finish();
  return status;
}

}  // namespace

absl::Status run_session(Rank& rank, const SessionOptions& options) {
  QUIRE_ASSIGN_OR_RETURN(Introduction intro, introduce(rank, options));
  absl::Duration patience = options.patience;
  for (;;) {
    absl::StatusOr<std::unique_ptr<Link>> attached =
        Link::attach(options.coordinator, intro, patience);
    if (absl::IsCancelled(attached.status())) return absl::OkStatus();  // drained as a standby
    QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<Link> link, std::move(attached));
    const absl::Status ended = run_epoch(rank, *link, intro, options);
    if (ended.ok() || !absl::IsUnavailable(ended) || !link->coordinator_lost()) return ended;
    intro.last_epoch = link->admission().epoch;
    intro.saved_prefixes = 0;  // the store has been used since
    patience = absl::Milliseconds(link->admission().lease_ms);
    spdlog::warn("rank {}: {}; attaching again within {}", intro.rank, std::string(ended.message()),
                 absl::FormatDuration(patience));
  }
}

}  // namespace quire
