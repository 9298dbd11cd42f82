// Life and death, and the loop's and the fleet's threads. The journal's is in
// virtual_coordinator_journal.cpp, the api's in virtual_coordinator_calls.cpp.
#include "tests/simulation/virtual_coordinator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace quire::test {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(250);
constexpr absl::Duration kLongestStep = absl::Seconds(60);
constexpr absl::Duration kLease = absl::Seconds(5);
constexpr absl::Duration kNoticed = absl::Seconds(5);

RequestLimits limits_of(const CoordinatorWorld& world) {
  const SchedulerConfig& config = world.base.config;
  return {.vocab = config.vocab,
          .max_model_len = config.max_model_len,
          .block_size = config.block_size,
          .total_blocks = 0,
          .max_num_seqs = std::min(config.max_num_seqs, config.max_num_batched_tokens),
          .num_tenants = static_cast<int>(world.tenants.size())};
}

GroupRules rules_of(CoordinatorWorld* world, EpochId last_epoch) {
  GroupRules rules;
  rules.build = "simulated";
  rules.world = world->num_ranks;
  rules.lease = kLease;
  rules.last_epoch = last_epoch;
  rules.nonce = [world] { return world->any(); };
  return rules;
}

}  // namespace

absl::StatusOr<std::unique_ptr<VirtualCoordinator>> VirtualCoordinator::start(Parts parts) {
  absl::StatusOr<JournalWriter> writer =
      JournalWriter::open(parts.journal, [time = parts.time] { return time->now(); });
  QUIRE_RETURN_IF_ERROR(writer.status());
  return std::unique_ptr<VirtualCoordinator>(
      new VirtualCoordinator(std::move(parts), *std::move(writer)));
}

VirtualCoordinator::VirtualCoordinator(Parts parts, JournalWriter writer)
    : parts_(std::move(parts)),
      world_(*parts_.world),
      time_(*parts_.time),
      intake_(limits_of(world_), world_.queue, world_.tenants, [this] { return time_.now(); }),
      loop_(
          world_.base.config, StepDeadline(kLongestStep, absl::ZeroDuration()),
          [this] { return time_.now(); }, world_.num_seats),
      groups_(rules_of(&world_, writer.last_epoch().epoch), world_.num_seats),
      writer_(std::move(writer)) {
  loop_.set_outlet([this](std::vector<Delivery> deliveries) {
    std::move(deliveries.begin(), deliveries.end(), std::back_inserter(batch_.journal.deliveries));
    wake_journal();
  });
  loop_.set_events({.on_ready = [this] { is_ready_ = true; },
                    .on_lost =
                        [this] {
                          if (std::exchange(is_ready_, false)) return;
                          parts_.events.broken(absl::InternalError("lost twice"));
                        }});
  intake_.set_first_request(writer_.last_request() + 1);
  take_up(writer_.take_saved());
  loop_.begin(this);
  arm_wake();
  tick();
  keep_trying();
  parts_.network->attach({.opened = [this](LinkId link) { links_.insert(link); },
                          .up =
                              [this](LinkId link, Up message) {
                                now_or_later([this, link, message = std::move(message)] {
                                  run(react(link, message));
                                });
                              },
                          .gone =
                              [this](LinkId link) {
                                now_or_later([this, link] {
                                  links_.erase(link);
                                  run(groups_.gone(link, "the stream broke", time_.now()));
                                });
                              }});
}

VirtualCoordinator::~VirtualCoordinator() {
  parts_.network->detach();
  parts_.disk->die();
}

// The world lets it go before anything else happens.
void VirtualCoordinator::die() {
  if (std::exchange(is_dying_, true)) return;
  parts_.disk->die();
  parts_.events.died();
}

bool VirtualCoordinator::pause(absl::Duration pause) {
  if (paused_until_ > time_.now()) return false;  // what waits keeps its order
  paused_until_ = time_.now() + pause;
  return true;
}

void VirtualCoordinator::later(absl::Duration wait, std::function<void()> what) {
  time_.after(wait, [this, life = std::weak_ptr<bool>(life_), what = std::move(what)] {
    if (!life.expired()) now_or_later(what);
  });
}

void VirtualCoordinator::now_or_later(std::function<void()> what) {
  if (is_dying_) return;
  if (paused_until_ > time_.now()) return later(paused_until_ - time_.now(), std::move(what));
  what();
}

void VirtualCoordinator::post(Message message) {
  mailbox_.push_back(std::move(message));
  if (std::exchange(turn_is_due_, true)) return;
  later(world_.about(absl::Microseconds(200)), [this] { turn(); });
}

void VirtualCoordinator::turn() {
  turn_is_due_ = false;
  std::vector<Message> inbox = std::exchange(mailbox_, {});
  loop_.turn(&inbox);
  if (absl::Status status = loop_.verify(); !status.ok()) parts_.events.broken(status);
  arm_wake();
}

void VirtualCoordinator::arm_wake() {
  const absl::Time wake = loop_.wake_time();
  const std::uint64_t number = ++wakes_;
  if (wake == absl::InfiniteFuture()) return;
  later(wake - time_.now(), [this, number] {
    if (number == wakes_ && !turn_is_due_) turn();
  });
}

void VirtualCoordinator::send(const StepPlan& plan) {
  for (int seat = 0; seat < world_.num_seats; ++seat) {
    const Group& group = groups_.seat(seat);
    if (group.ready() && group.epoch() == plan.epoch) {
      unanswered_[plan.epoch].push_back(time_.now());
    }
  }
  run(groups_.plan(plan, time_.now()));
}

void VirtualCoordinator::end_epoch(EpochId epoch, EndCause cause, const std::string& why) {
  run(groups_.end_epoch(epoch, cause, why, time_.now()));
}

std::uint64_t VirtualCoordinator::stale_dropped() const {
  return groups_.stale_dropped() + loop_.stats().stale_replies_dropped;
}

void VirtualCoordinator::tick() {
  run(groups_.tick(time_.now()));
  check_hangs();
  for (const LinkId link : links_) parts_.network->send(link, Down(down::Beat{}));
  leave_abandoned();
  later(kTick, [this] { tick(); });
}

// What hangs is noticed; with a little grace, and when it was not paused itself.
void VirtualCoordinator::check_hangs() {
  const absl::Time now = time_.now();
  if (paused_until_ + kLease + kNoticed >= now) return;
  for (const auto& [epoch, sent] : unanswered_) {
    if (sent.empty() || sent.front() + kLongestStep + kNoticed >= now) continue;
    parts_.events.broken(absl::InternalError("nobody notices that a step hangs"));
  }
  for (const LinkId link : groups_.ready_links()) {
    if (last_heard_.at(link) + kLease + kNoticed >= now) continue;
    parts_.events.broken(absl::InternalError("nobody notices that a rank is silent"));
  }
}

GroupActions VirtualCoordinator::react(LinkId link, Up message) {
  const absl::Time now = time_.now();
  last_heard_[link] = now;
  if (const auto* hello = std::get_if<RankHello>(&message)) {
    if (!presented_.insert(link).second) return groups_.gone(link, "a second Hello", now);
    return groups_.hello(link, *hello, now);
  }
  if (!presented_.contains(link)) return {action::Refuse{link, "the first message must be Hello"}};
  if (const auto* beat = std::get_if<up::Beat>(&message)) {
    return groups_.heartbeat(link, beat->epoch, beat->step, beat->digest, now);
  }
  if (const auto* id = std::get_if<up::CollectiveId>(&message)) {
    return groups_.collective_id(link, id->epoch, id->id, now);
  }
  if (const auto* error = std::get_if<up::Error>(&message)) {
    return groups_.worker_error(link, error->epoch, error->what, now);
  }
  return groups_.result(link, std::get<StepResult>(std::move(message)), now);
}

void VirtualCoordinator::run(GroupActions actions) {
  for (GroupAction& next : actions) {
    std::visit([this](auto& what) { perform(what); }, next);
  }
}

void VirtualCoordinator::perform(action::Refuse& what) {
  parts_.network->send(what.link, Down(down::Refusal{}));
  parts_.network->close(what.link);
  links_.erase(what.link);
}

void VirtualCoordinator::perform(action::Welcome& what) {
  parts_.events.issued(what.epoch);
  for (const LinkId link : what.links) {
    parts_.network->send(
        link, Down(down::Welcome{what.epoch, what.nonce, what.num_blocks, what.num_host_blocks}));
  }
}

void VirtualCoordinator::perform(action::Relay& what) {
  for (const LinkId link : what.links) {
    parts_.network->send(link, Down(down::CollectiveId{what.epoch}));
  }
}

void VirtualCoordinator::perform(action::Broadcast& what) {
  for (const LinkId link : what.links) parts_.network->send(link, Down(down::Plan{what.plan}));
}

void VirtualCoordinator::perform(action::Close& what) {
  for (const LinkId link : what.links) {
    parts_.network->close(link);
    links_.erase(link);
  }
}

void VirtualCoordinator::perform(action::Ready& what) {
  batch_.journal.epoch = EpochRecord{what.group.epoch, what.group.numerics};
  wake_journal();
  intake_.on_ready(what.group);
  post(what.group);
}

void VirtualCoordinator::perform(action::Result& what) {
  unanswered_[what.result.epoch].pop_front();
  intake_.on_step(loop_.stats());
  post(std::move(what.result));
}

void VirtualCoordinator::perform(action::Ended& what) {
  parts_.events.ended(what.instance);
}

void VirtualCoordinator::perform(action::Lost& what) {
  unanswered_.erase(what.epoch);
  post(GroupLost{what.epoch, what.cause});
}

}  // namespace quire::test
