// Joins the streams (WorkerLink) with the rules (Group) under one lock; a thread of its own sends
// heartbeats down and checks leases. The lock is held while links and the engine's events are
// called, so what they see is in the order in which it happened.
#include "coordinator/fleet/fleet.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <random>
#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/wire.h"
#include "coordinator/fleet/groups.h"
#include "coordinator/fleet/worker_link.h"
#include "fleet.grpc.pb.h"
#include "spdlog/spdlog.h"

namespace quire {
namespace {

constexpr int kMaxLinksBeyondSeats = 64;
constexpr int kUsualRanks = 64;  // of a group that says its own size, at most
constexpr absl::Duration kCloseGrace = absl::Seconds(1);  // then a closing stream is cancelled

// A status message travels in a header: kept short.
std::string header_text(const std::string& why) {
  return why.substr(0, 500);
}

std::uint64_t random_nonce() {
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32) | device();
}

GroupRules rules_of(const EngineConfig& config, std::uint64_t model_hash,
                    const FleetOptions& options) {
  GroupRules rules;
  rules.build = options.build;
  rules.world = options.num_seats > 1 ? 0 : config.tensor_parallel_size;
  rules.model_hash = model_hash;
  rules.secret = options.secret;
  rules.last_epoch = options.last_epoch;
  rules.lease = options.lease;
  rules.step_deadline = options.step_deadline;
  rules.known_saved_prefixes = options.known_saved_prefixes;
  rules.nonce = random_nonce;
  return rules;
}

RankHello from_proto(const v1::Hello& in) {
  RankHello out;
  out.protocol = in.protocol();
  out.instance = in.instance_id();
  out.rank = static_cast<int>(in.rank());
  out.world = static_cast<int>(in.world());
  out.host = in.host();
  out.pid = in.pid();
  out.build = in.build();
  out.model_hash = in.model_hash();
  out.numerics_id = in.numerics_id();
  out.layout_digest = in.layout_digest();
  out.kv_capacity_blocks = static_cast<std::int64_t>(in.kv_capacity_blocks());
  out.secret = in.secret();
  out.num_kv_groups = std::max(1, in.kv_groups_size());
  out.collective = in.collective();
  out.host_blocks = static_cast<std::int64_t>(
      std::min<std::uint64_t>(in.host_blocks(), std::numeric_limits<std::int64_t>::max()));
  out.saved_prefixes = in.saved_prefixes();
  out.last_epoch = in.last_epoch();
  out.one_answer = in.one_answer();
  return out;
}

}  // namespace

class Fleet::Impl final : public v1::Fleet::CallbackService, public LinkOwner {
 public:
  Impl(const EngineConfig& config, std::uint64_t model_hash, FleetEvents events,
       FleetOptions options)
      : config_(config),
        options_(std::move(options)),
        events_(std::move(events)),
        groups_(rules_of(config, model_hash, options_), options_.num_seats),
        timer_([this] { keep_time(); }) {}

  ~Impl() override {
    pacer_.stop();
    timer_.join();
  }

  grpc::ServerBidiReactor<v1::Up, v1::Down>* Attach(grpc::CallbackServerContext* context) override {
    WorkerLink* link = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      const LinkId id = ++last_link_;
      link = new WorkerLink(*this, id, context);  // deletes itself in OnDone
      links_[id] = {link, steady_now(), false};
      if (stopping_) {
        refuse(id, "the coordinator is stopping");
      } else if (links_.size() > static_cast<std::size_t>(most_ranks() + kMaxLinksBeyondSeats)) {
        refuse(id, "too many workers are attached");
      }
    }
    link->start();
    return link;
  }

  void on_up(LinkId id, const v1::Up& message) override {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    run(react(id, message, steady_now()));
  }

  void on_gone(LinkId id, const std::string& why) override {
    absl::MutexLock lock(&mutex_);
    if (!stopping_) run(groups_.gone(id, why, steady_now()));
  }

  void on_done(LinkId id) override {
    absl::MutexLock lock(&mutex_);
    links_.erase(id);
  }

  void send(const StepPlan& plan) {
    absl::MutexLock lock(&mutex_);
    if (!stopping_) run(groups_.plan(plan, steady_now()));
  }

  void end_epoch(EpochId epoch, EndCause cause, const std::string& why) {
    absl::MutexLock lock(&mutex_);
    if (!stopping_) run(groups_.end_epoch(epoch, cause, why, steady_now()));
  }

  void shutdown(absl::Duration deadline, std::uint64_t saved_prefixes) {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    const std::vector<LinkId> ready = groups_.ready_links();
    for (auto& [id, entry] : links_) {
      v1::Down down;
      v1::Drain* drain = down.mutable_drain();
      if (const Group* group = groups_.of(id)) drain->set_epoch(group->epoch());
      // A standby's store holds nothing of this.
      const bool saves = std::find(ready.begin(), ready.end(), id) != ready.end();
      if (saves) drain->set_saved_prefixes(saved_prefixes);
      entry.link->send(std::make_shared<const v1::Down>(std::move(down)));
    }
    if (await_no_links(deadline)) return;
    spdlog::warn("{} worker streams did not close within {}; cancelling them", links_.size(),
                 absl::FormatDuration(deadline));
    for (auto& [id, entry] : links_) {
      entry.link->close(grpc::Status(grpc::StatusCode::UNAVAILABLE, "stopping"), true);
      entry.link->cancel();
    }
    await_no_links(absl::Seconds(2));
  }

  std::string describe() const {
    absl::MutexLock lock(&mutex_);
    return groups_.describe();
  }

  std::uint64_t stale_dropped() const {
    absl::MutexLock lock(&mutex_);
    return groups_.stale_dropped();
  }

 private:
  struct Entry {
    WorkerLink* link = nullptr;
    absl::Time attached;
    bool presented = false;  // its Hello has come
  };

  bool await_no_links(absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return links_.empty(); };
    return mutex_.AwaitWithTimeout(absl::Condition(&none), timeout);
  }

  GroupActions react(LinkId id, const v1::Up& message, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    bool& presented = links_.at(id).presented;
    if (message.kind_case() == v1::Up::kHello) {
      if (std::exchange(presented, true)) return groups_.gone(id, "it sent a second Hello", now);
      return groups_.hello(id, from_proto(message.hello()), now);
    }
    if (!presented) return {action::Refuse{id, "the first message must be Hello"}};
    switch (message.kind_case()) {
      case v1::Up::kCollectiveId:
        return groups_.collective_id(id, message.collective_id().epoch(),
                                     message.collective_id().id(), now);
      case v1::Up::kHeartbeat: {
        const v1::Heartbeat& beat = message.heartbeat();
        return groups_.heartbeat(id, beat.epoch(), beat.step(), beat.plan_digest(), now);
      }
      case v1::Up::kResult: {
        absl::StatusOr<StepResult> result = wire::decode(message.result());
        if (result.ok()) return groups_.result(id, *std::move(result), now);
        return groups_.gone(id, std::string(result.status().message()), now);
      }
      case v1::Up::kError:
        return groups_.worker_error(id, message.error().epoch(), message.error().message(), now);
      default:
        return groups_.gone(id, "it sent a message of no known kind", now);
    }
  }

  void run(GroupActions actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::deque<GroupAction> todo(std::make_move_iterator(actions.begin()),
                                 std::make_move_iterator(actions.end()));
    while (!todo.empty()) {
      GroupAction next = std::move(todo.front());
      todo.pop_front();
      std::visit([&](auto& what) { perform(what, todo); }, next);
    }
  }

  using Todo = std::deque<GroupAction>;

  void perform(action::Refuse& what, Todo&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    spdlog::warn("worker refused: {}", log_text(what.reason));
    refuse(what.link, what.reason);
  }

  void perform(action::Welcome& what, Todo& todo) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    spdlog::info("{} ({} KV blocks of {} tokens, {} in the offload store{})",
                 log_text(groups_.describe()), what.num_blocks, config_.block_size,
                 what.num_host_blocks, what.keep_saved ? ", with saved prefixes" : "");
    v1::Down down;
    v1::Welcome* welcome = down.mutable_welcome();
    welcome->set_epoch(what.epoch);
    welcome->set_nonce(what.nonce);
    welcome->set_num_blocks(static_cast<std::uint32_t>(what.num_blocks));
    welcome->set_block_size(static_cast<std::uint32_t>(config_.block_size));
    welcome->set_max_num_seqs(static_cast<std::uint32_t>(config_.max_num_seqs));
    welcome->set_max_num_batched_tokens(static_cast<std::uint32_t>(config_.max_num_batched_tokens));
    welcome->set_max_model_len(static_cast<std::uint32_t>(config_.max_model_len));
    welcome->set_sampling_rank(0);
    welcome->set_heartbeat_ms(
        static_cast<std::uint32_t>(absl::ToInt64Milliseconds(options_.heartbeat)));
    welcome->set_lease_ms(static_cast<std::uint32_t>(absl::ToInt64Milliseconds(options_.lease)));
    welcome->set_host_blocks(static_cast<std::uint32_t>(what.num_host_blocks));
    welcome->set_keep_saved(what.keep_saved);
    send_all(what.links, std::make_shared<const v1::Down>(std::move(down)), todo);
  }

  void perform(action::Relay& what, Todo& todo) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    v1::Down down;
    down.mutable_collective_id()->set_epoch(what.epoch);
    down.mutable_collective_id()->set_id(std::move(what.id));
    send_all(what.links, std::make_shared<const v1::Down>(std::move(down)), todo);
  }

  void perform(action::Broadcast& what, Todo& todo) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    v1::Down down;
    down.set_plan(std::move(what.plan));
    send_all(what.links, std::make_shared<const v1::Down>(std::move(down)), todo);
  }

  void perform(action::Close& what, Todo&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    spdlog::warn("closing {} worker streams: {}", what.links.size(), log_text(what.why));
    // Not UNAVAILABLE, which is what a worker sees of a coordinator that died.
    const grpc::Status status(grpc::StatusCode::ABORTED, header_text(what.why));
    for (const LinkId id : what.links) {
      if (auto found = links_.find(id); found != links_.end())
        found->second.link->close(status, true);
    }
  }

  void perform(action::Ready& what, Todo&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    spdlog::info("epoch {} is ready: its dummy steps have passed on {} ranks", what.group.epoch,
                 what.group.world);
    events_.on_ready(what.group);
  }

  void perform(action::Result& what, Todo&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    events_.on_result(std::move(what.result));
  }

  void perform(action::Lost& what, Todo&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    spdlog::error("the worker group of epoch {} is lost: {}", what.epoch, log_text(what.why));
    events_.on_lost(what.epoch, what.cause, what.why);
  }

  void perform(action::Ended& what, Todo&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    events_.on_ended({what.epoch, what.instance, what.cause});
  }

  void send_all(const std::vector<LinkId>& ids, const std::shared_ptr<const v1::Down>& message,
                Todo& todo) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (const LinkId id : ids) {
      auto found = links_.find(id);
      if (found == links_.end() || found->second.link->send(message)) continue;
      for (GroupAction& next :
           groups_.gone(id, "it reads too slowly: its queue is full", steady_now())) {
        todo.push_back(std::move(next));
      }
    }
  }

  void refuse(LinkId id, const std::string& reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    auto found = links_.find(id);
    if (found == links_.end()) return;
    v1::Down down;
    down.mutable_refusal()->set_reason(reason);
    found->second.link->send(std::make_shared<const v1::Down>(std::move(down)));
    found->second.link->close(
        grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, header_text(reason)), false);
  }

  int most_ranks() const {
    const int ranks = config_.tensor_parallel_size;
    return options_.num_seats == 1 ? ranks : options_.num_seats * std::max(ranks, kUsualRanks);
  }

  std::shared_ptr<const v1::Down> heartbeat_to(LinkId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    v1::Down down;
    v1::Heartbeat* beat = down.mutable_heartbeat();
    if (const Group* group = groups_.of(id)) {
      beat->set_epoch(group->epoch());
      beat->set_step(group->last_step());
    }
    return std::make_shared<const v1::Down>(std::move(down));
  }

  void keep_time() {
    while (pacer_.sleep(options_.heartbeat)) {
      absl::MutexLock lock(&mutex_);
      const absl::Time now = steady_now();
      if (!stopping_) run(groups_.tick(now));
      for (auto& [id, entry] : links_) {
        if (entry.link->idle_since(now - options_.heartbeat)) entry.link->send(heartbeat_to(id));
        if (entry.link->closing_since(now - kCloseGrace)) entry.link->cancel();
        if (!entry.presented && now - entry.attached > options_.lease) {
          entry.link->close(grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "no Hello came"),
                            true);
        }
      }
    }
  }

  const EngineConfig config_;
  const FleetOptions options_;
  const FleetEvents events_;
  mutable absl::Mutex mutex_;
  Groups groups_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<LinkId, Entry> links_ ABSL_GUARDED_BY(mutex_);
  LinkId last_link_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Pacer pacer_;
  std::thread timer_;  // last: it uses all of the above
};

Fleet::Fleet(const EngineConfig& config, std::uint64_t model_hash, FleetEvents events,
             FleetOptions options)
    : impl_(std::make_unique<Impl>(config, model_hash, std::move(events), std::move(options))) {}
Fleet::~Fleet() = default;

grpc::Service* Fleet::service() {
  return impl_.get();
}
void Fleet::send(const StepPlan& plan) {
  impl_->send(plan);
}
void Fleet::end_epoch(EpochId epoch, EndCause cause, const std::string& why) {
  impl_->end_epoch(epoch, cause, why);
}
void Fleet::shutdown(absl::Duration deadline, std::uint64_t saved_prefixes) {
  impl_->shutdown(deadline, saved_prefixes);
}
std::string Fleet::describe() const {
  return impl_->describe();
}
std::uint64_t Fleet::stale_dropped() const {
  return impl_->stale_dropped();
}

}  // namespace quire
