#include "tests/simulation/virtual_ranks.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/wire.h"

namespace quire::test {
namespace {

constexpr absl::Duration kBeat = absl::Milliseconds(250);
constexpr absl::Duration kLease = absl::Seconds(5);
constexpr absl::Duration kMeetAgain = absl::Milliseconds(20);
constexpr absl::Duration kDialAgain = absl::Milliseconds(200);
constexpr StepId kDummySteps = 2;  // that prove a group; HashWorker knows nothing of them

}  // namespace

VirtualRanks::VirtualRanks(CoordinatorWorld* world, VirtualTime* time, VirtualNetwork* network,
                           std::function<void(absl::Status)> broken)
    : world_(*world), time_(*time), network_(*network), broken_(std::move(broken)) {}

void VirtualRanks::start() {
  for (int i = 0; i < world_.num_instances; ++i) start_instance();
}

void VirtualRanks::start_instance() {
  const int number = static_cast<int>(instances_.size());
  Instance& instance = instances_.emplace_back();
  instance.name = absl::StrCat("instance", number);
  instance.ranks.resize(static_cast<std::size_t>(world_.num_ranks));
  for (int i = 0; i < world_.num_ranks; ++i) {
    Rank& rank = instance.ranks[static_cast<std::size_t>(i)];
    rank.rank = i;
    rank.pid = static_cast<std::uint64_t>(1000 + number * 10 + i);
    const Name name{number, i};
    act(name, world_.between(absl::Milliseconds(100), absl::Seconds(1)), [this, name](Rank& me) {
      me.last_heard = time_.now();
      dial(name, me);
      beat(name, me);
    });
  }
}

VirtualRanks::Rank* VirtualRanks::find(Name name) {
  Instance& instance = instances_[static_cast<std::size_t>(name.first)];
  Rank* rank = &instance.ranks[static_cast<std::size_t>(name.second)];
  return rank->is_dead ? nullptr : rank;
}

void VirtualRanks::act(Name name, absl::Duration wait, std::function<void(Rank&)> what) {
  time_.after(wait, [this, name, what = std::move(what)] {
    Rank* rank = find(name);
    if (rank == nullptr) return;
    if (rank->stopped_until > time_.now())
      return act(name, rank->stopped_until - time_.now(), what);
    what(*rank);
  });
}

void VirtualRanks::dial(Name name, Rank& rank) {
  rank.epoch = 0;
  rank.worker = nullptr;
  rank.todo.clear();
  // The stream has no name before it is open, but nothing comes on it before that either.
  auto link = std::make_shared<LinkId>(0);
  *link = network_.open([this, name, link](const Down& message) { hear(name, *link, message); });
  rank.link = *link;
  if (rank.link == 0) {
    return act(name, kDialAgain, [this, name](Rank& me) {
      if (me.link == 0) dial(name, me);
    });
  }
  const Instance& instance = instances_[static_cast<std::size_t>(name.first)];
  RankHello hello;
  hello.protocol = wire::kProtocolVersion;
  hello.instance = instance.name;
  hello.rank = rank.rank;
  hello.world = world_.num_ranks;
  hello.host = "host";
  hello.pid = rank.pid;
  hello.build = "simulated";
  hello.kv_capacity_blocks = world_.worker.num_blocks + rank.rank;
  hello.host_blocks = world_.worker.num_host_blocks;
  hello.collective = world_.has_collective_id ? "wire" : "";
  hello.last_epoch = rank.last_epoch;
  network_.send(rank.link, Up(std::move(hello)));
}

void VirtualRanks::hear(Name name, LinkId link, const Down& message) {
  act(name, absl::ZeroDuration(), [this, name, link, message](Rank& rank) {
    if (rank.link != link) return;  // of a stream that it has left
    rank.last_heard = time_.now();
    if (std::holds_alternative<down::Broken>(message)) return dial(name, rank);
    if (std::holds_alternative<down::Closed>(message) ||
        std::holds_alternative<down::Refusal>(message)) {
      return kill_rank(name);
    }
    if (const auto* welcome = std::get_if<down::Welcome>(&message)) take(name, rank, *welcome);
    if (const auto* plan = std::get_if<down::Plan>(&message)) take(name, rank, *plan);
  });
}

void VirtualRanks::take(Name name, Rank& rank, const down::Welcome& welcome) {
  rank.epoch = rank.last_epoch = welcome.epoch;
  rank.digest = rank.done_digest = welcome.nonce;
  rank.step = 0;
  rank.free = time_.now();
  newest_epoch_ = std::max(newest_epoch_, welcome.epoch);
  if (rank.rank != 0) return;
  HashWorkerConfig config = world_.worker;
  config.epoch = welcome.epoch;
  config.first_step = kDummySteps + 1;
  config.num_blocks = welcome.num_blocks;
  config.num_host_blocks = welcome.num_host_blocks;
  rank.worker = std::make_unique<HashWorker>(config);
  if (!world_.has_collective_id) return;
  act(name, world_.about(absl::Milliseconds(20)), [this, epoch = welcome.epoch](Rank& me) {
    if (me.epoch == epoch) network_.send(me.link, Up(up::CollectiveId{epoch, "here"}));
  });
}

// Plans are done in order, one at a time.
void VirtualRanks::take(Name name, Rank& rank, const down::Plan& message) {
  const absl::StatusOr<StepPlan> plan = wire::decode_plan(message.bytes);
  if (!plan.ok()) return broken_(plan.status());
  rank.digest = wire::plan_digest(rank.digest, message.bytes);
  rank.todo.emplace_back(*plan, rank.digest);
  rank.free = std::max(rank.free, time_.now()) + world_.about(world_.step_time);
  act(name, rank.free - time_.now(), [this, name](Rank& me) { work(name, me); });
}

void VirtualRanks::work(Name name, Rank& rank) {
  if (rank.todo.empty() || rank.is_stuck) return;
  // Between its layers a step meets those of all ranks.
  if (!rank.todo.front().first.rows.empty() && waits_for_others(name)) {
    return act(name, kMeetAgain, [this, name](Rank& me) { work(name, me); });
  }
  const auto [plan, digest] = std::move(rank.todo.front());
  rank.todo.pop_front();
  if (plan.epoch != rank.epoch || plan.step != rank.step + 1) {
    return broken_(absl::InternalError(absl::StrCat("rank ", rank.rank, " of epoch ", rank.epoch,
                                                    " was sent step ", plan.step, " of epoch ",
                                                    plan.epoch, " after ", rank.step)));
  }
  rank.step = plan.step;
  rank.done_digest = digest;
  ++num_steps_;
  if (rank.rank == 0) {
    StepResult result = answer(rank, plan);
    if (plan.epoch > 1 && std::exchange(rank.is_haunted, false)) send_stale(rank, result);
    network_.send(rank.link, Up(std::move(result)));
  } else if (plan.step == kDummySteps) {
    send_beat(rank);
  }
}

bool VirtualRanks::waits_for_others(Name name) const {
  const std::vector<Rank>& ranks = instances_[static_cast<std::size_t>(name.first)].ranks;
  return std::any_of(ranks.begin(), ranks.end(), [&](const Rank& rank) {
    return rank.rank != name.second &&
           (rank.is_dead || rank.is_stuck || rank.stopped_until > time_.now());
  });
}

// Something of a dead epoch still runs in the worker. As bad as can be: it answers the very step
// that is awaited, with as many rows, and other tokens.
void VirtualRanks::send_stale(Rank& rank, StepResult like) {
  like.epoch = static_cast<EpochId>(world_.pick(1, static_cast<int>(like.epoch) - 1));
  for (RowResult& row : like.rows) row.token = (row.token + 1) % world_.base.config.vocab;
  network_.send(rank.link, Up(std::move(like)));
}

StepResult VirtualRanks::answer(Rank& rank, const StepPlan& plan) {
  StepResult result{plan.epoch, plan.step, {}, 1};
  if (plan.step <= kDummySteps) {
    if (!plan.rows.empty()) result.rows.emplace_back();
    return result;
  }
  if (absl::Status status = rank.worker->run(plan, &result); !status.ok()) broken_(status);
  if (std::exchange(rank.lies, false)) {
    if (world_.chance(0.3)) {
      network_.send(rank.link, Up(up::Error{rank.epoch, "out of memory"}));
    } else if (world_.chance(0.5) && !result.rows.empty()) {
      result.rows.pop_back();
    } else {
      result.step += static_cast<StepId>(world_.pick(1, 2));
    }
  }
  return result;
}

void VirtualRanks::send_beat(Rank& rank) {
  if (rank.link == 0 || rank.epoch == 0) return;
  const bool lies = rank.rank != 0 && std::exchange(rank.lies, false);
  network_.send(rank.link, Up(up::Beat{rank.epoch, rank.step, rank.done_digest ^ (lies ? 1 : 0)}));
}

void VirtualRanks::beat(Name name, Rank& rank) {
  if (rank.last_epoch > 0 && time_.now() - rank.last_heard > kLease) return kill_rank(name);
  send_beat(rank);
  act(name, kBeat, [this, name](Rank& me) { beat(name, me); });
}

void VirtualRanks::on_ended(const std::string& instance) {
  if (!world_.is_supervised) return;
  for (std::size_t i = 0; i < instances_.size(); ++i) {
    if (instances_[i].name != instance) continue;
    time_.after(world_.about(absl::Milliseconds(50)), [this, i] { kill(static_cast<int>(i)); });
  }
}

// mpirun ends the others.
void VirtualRanks::kill_rank(Name name) {
  Rank* rank = find(name);
  if (rank == nullptr) return;
  rank->is_dead = true;
  rank->worker = nullptr;
  network_.leave(rank->link);
  time_.after(world_.between(absl::ZeroDuration(), absl::Milliseconds(500)),
              [this, name] { kill(name.first); });
}

void VirtualRanks::kill(int number) {
  Instance& instance = instances_[static_cast<std::size_t>(number)];
  if (std::exchange(instance.is_dead, true)) return;
  for (Rank& rank : instance.ranks) {
    rank.is_dead = true;
    rank.worker = nullptr;
    network_.leave(rank.link);
  }
  time_.after(world_.between(absl::Milliseconds(100), absl::Seconds(2)),
              [this] { start_instance(); });
}

std::vector<VirtualRanks::Name> VirtualRanks::alive() const {
  std::vector<Name> names;
  for (std::size_t i = 0; i < instances_.size(); ++i) {
    for (const Rank& rank : instances_[i].ranks) {
      if (!rank.is_dead) names.emplace_back(static_cast<int>(i), rank.rank);
    }
  }
  return names;
}

// Somebody is left who can tell of it. (Whoever never was in an epoch may take its time.)
bool VirtualRanks::may_hang_for_ever(Name name) {
  const std::vector<Rank>& ranks = instances_[static_cast<std::size_t>(name.first)].ranks;
  const auto others = std::count_if(ranks.begin(), ranks.end(), [&](const Rank& rank) {
    return rank.rank != name.second && rank.last_epoch > 0 && rank.stopped_until <= time_.now();
  });
  return others > 0 && std::ssize(ranks) == others + 1 && world_.chance(0.2);
}

bool VirtualRanks::suffer(Fault fault) {
  const std::vector<Name> names = alive();
  if (names.empty()) return false;
  const Name name =
      names[static_cast<std::size_t>(world_.pick(0, static_cast<int>(names.size()) - 1))];
  Rank& rank = *find(name);
  switch (fault) {
    case Fault::kKillRank:
      kill_rank(name);
      return true;
    case Fault::kKillGroup:
      kill(name.first);
      return true;
    case Fault::kStopRank:
      if (rank.stopped_until > time_.now()) return false;  // what waits keeps its order
      rank.stopped_until =
          time_.now() + (may_hang_for_ever(name)
                             ? absl::Hours(10)
                             : world_.between(absl::Milliseconds(100), absl::Seconds(20)));
      return true;
    case Fault::kStickRank:
      rank.is_stuck = rank.epoch != 0;
      return rank.is_stuck;
    case Fault::kStaleResult:
      rank.is_haunted = true;
      return rank.epoch > 1;
    case Fault::kLieRank:
      rank.lies = true;
      return rank.epoch != 0;
    default:
      return false;
  }
}

}  // namespace quire::test
