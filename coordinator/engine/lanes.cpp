// Who goes where, and when; see lanes.h.
#include "coordinator/engine/lanes.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/check.h"
#include "common/status.h"

namespace quire {
namespace {

// A request that waits in a lane is moved to an idle one only if that is worth it.
constexpr double kWorthMoving = 0.8;

}  // namespace

NewRequest wish_of(Request* request) {
  return {.id = request->id,
          .prompt = std::exchange(request->prompt, {}),
          .params = request->params,
          .n = request->n,
          .beams = request->beams,
          .tenant = request->tenant,
          .priority = request->priority,
          .cache_salt = request->cache_salt,
          .arrival = request->arrival,
          .deadline = request->deadline};
}

Lanes::Lanes(const SchedulerConfig& config, const StepDeadline& deadline, int count)
    : config_(config), shares_(std::make_shared<TenantShares>(config.tenant_weights)) {
  QUIRE_CHECK_GT(count, 0);
  for (int i = 0; i < count; ++i) {
    lanes_.push_back(std::make_unique<Lane>(config, shares_, deadline));
  }
  if (count > 1) lobby_ = std::make_unique<Scheduler>(config, shares_);
}

int Lanes::with_epoch(EpochId epoch) const {
  for (int lane = 0; lane < size(); ++lane) {
    if (at(lane).ready() && at(lane).epoch() == epoch) return lane;
  }
  return -1;
}

int Lanes::num_ready() const {
  return static_cast<int>(
      std::count_if(lanes_.begin(), lanes_.end(), [](const auto& lane) { return lane->ready(); }));
}

absl::Status Lanes::add(LiveRequest* live, NewRequest wish) {
  live->lane = lobby_ == nullptr ? 0 : -1;
  return home(*live).add(std::move(wish));
}

Outlook Lanes::outlook(const NewRequest& wish) const {
  if (lobby_ == nullptr) return at(0).scheduler().outlook(wish);
  Outlook best = lobby_->outlook(wish, size());
  bool first = true;
  for (const auto& lane : lanes_) {
    if (!lane->ready()) continue;
    const Outlook here = lane->scheduler().outlook(wish);
    best.missing_tokens = std::min(best.missing_tokens, here.missing_tokens);
    best.prompt_s = first ? here.prompt_s : std::min(best.prompt_s, here.prompt_s);
    first = false;
  }
  return best;
}

Placement Lanes::placement(std::optional<int> isolated) const {
  std::vector<Placement::Lane> lanes;
  for (int i = 0; i < size(); ++i) {
    const Scheduler& scheduler = at(i).scheduler();
    lanes.push_back({.open = at(i).ready() && isolated != i,
                     .load = scheduler.load(),
                     .total_blocks = scheduler.num_blocks() / config_.num_kv_groups,
                     .costs = &scheduler.costs()});
  }
  return Placement(std::move(lanes), config_.max_num_batched_tokens);
}

std::vector<Scheduler::Cached> Lanes::cached(Sequence* sequence) const {
  std::vector<Scheduler::Cached> cached;
  for (const auto& lane : lanes_) {
    cached.push_back(lane->ready() ? lane->scheduler().cached(sequence) : Scheduler::Cached());
  }
  return cached;
}

Newcomer Lanes::newcomer(const Sequence& sequence) const {
  const ScheduledRequest& request = *sequence.request;
  return {.num_tokens = sequence.num_tokens(),
          .num_answer = sequence.max_total_tokens - sequence.num_tokens(),
          .num_seqs = request.is_beam() ? request.beams.width : 1,
          .blocks_to_begin = lobby_->blocks_to_begin(sequence),
          .blocks_at_end = lobby_->blocks_at_end(request)};
}

// What tenants have waiting in lanes is as good as granted: their next ones stand behind it.
std::vector<double> Lanes::ahead() const {
  std::vector<double> ahead(shares_->service().size(), 0.0);
  if (ahead.size() == 1) return ahead;
  for (const auto& lane : lanes_) {
    for (const Sequence* sequence : lane->scheduler().waiting().all()) {
      ahead[static_cast<std::size_t>(sequence->tenant)] +=
          shares_->worth(sequence->tenant, sequence->num_tokens());
    }
  }
  return ahead;
}

// A group that is there can hold it at its longest.
bool Lanes::fits_any(const Sequence& sequence) const {
  const int needed = lobby_->blocks_at_end(*sequence.request);
  return std::any_of(lanes_.begin(), lanes_.end(), [&](const auto& lane) {
    return lane->ready() && needed <= lane->scheduler().num_blocks() / config_.num_kv_groups;
  });
}

std::vector<RequestId> Lanes::distribute(LiveRequests* live, const Suspects& suspects,
                                         std::optional<RequestId> alone) {
  std::vector<RequestId> hopeless;
  if (lobby_ == nullptr) return hopeless;
  std::optional<int> isolated;
  const LiveRequest* first = alone.has_value() ? live->find(*alone) : nullptr;
  if (first != nullptr && first->lane >= 0) isolated = first->lane;
  const int num_ready = this->num_ready();
  for (const auto& lane : lanes_) {
    lane->scheduler().set_waiting_elsewhere(lobby_->num_waiting() / std::max(1, num_ready));
  }
  if (num_ready == 0) return hopeless;
  if (lobby_->num_waiting() == 0) {
    balance(live, alone, isolated);
    return hopeless;
  }
  bool some_must_wait = false;  // for room in lanes that are kept for them
  Placement placement = this->placement(isolated);
  std::vector<std::pair<RequestId, int>> placed;
  if (first != nullptr && first->lane < 0) {
    if (Sequence* sequence = lobby_->waiting().first_of(*alone); sequence != nullptr) {
      const auto lane = placement.place_alone(newcomer(*sequence), cached(sequence));
      if (lane.has_value()) placed.emplace_back(*alone, *lane);
    }
  }
  // Every one that is not placed keeps a lane for itself, but for those that no lane can hold.
  WaitingQueue::Walk walk(lobby_->waiting(), ahead());
  std::set<RequestId> seen;  // of several sequences that wait
  while (placement.has_turns()) {
    Sequence* sequence = walk.next();
    if (sequence == nullptr) break;
    const RequestId id = sequence->request_id;
    if (id == alone || suspects.is_suspect(id) || !seen.insert(id).second) continue;
    if (!fits_any(*sequence)) {
      if (num_ready == size()) hopeless.push_back(id);
      continue;
    }
    const std::optional<int> lane = placement.place(newcomer(*sequence), cached(sequence));
    if (!lane.has_value()) {
      some_must_wait = true;
      continue;
    }
    placed.emplace_back(id, *lane);
    walk.count(sequence->tenant, sequence->num_tokens());
  }
  for (const auto& [id, lane] : placed) move(live->find(id), lane);
  if (placed.empty() && placement.has_turns() && !some_must_wait) balance(live, alone, isolated);
  return hopeless;
}

void Lanes::move(LiveRequest* live, int lane) {
  Scheduler& from = home(*live);
  const int tenant = live->request.tenant;
  shares_->enter(tenant);  // it does not leave in between
  Scheduler::Handover handover = from.hand_over(live->request.id);
  NewRequest wish = wish_of(&live->request);
  wish.prompt = std::move(handover.prompt);
  wish.past = std::move(handover.past);
  wish.admission = handover.admission;
  live->lane = lane;
  QUIRE_CHECK(home(*live).add(std::move(wish)).ok());  // who placed it there knew that it fits
  shares_->leave(tenant);
}

void Lanes::abandon(int lane, LiveRequests* live) {
  if (lobby_ == nullptr) return;
  for (const RequestId id : live->ids()) {
    LiveRequest* each = live->find(id);
    if (each->lane == lane) move(each, -1);
  }
}

// What waits in a lane although another has slots and nobody waiting: its room was taken by what
// runs there, or it is kept for a suspect.
void Lanes::balance(LiveRequests* live, std::optional<RequestId> alone,
                    std::optional<int> isolated) {
  for (int to = 0; to < size(); ++to) {
    const Scheduler& idle = at(to).scheduler();
    if (!at(to).ready() || isolated == to || idle.num_waiting() > 0) continue;
    if (idle.num_running() >= config_.max_num_seqs) continue;
    for (int from = 0; from < size(); ++from) {
      if (from == to || !at(from).ready() || at(from).scheduler().num_waiting() == 0) continue;
      Sequence* sequence = at(from).scheduler().first_movable();
      if (sequence == nullptr || sequence->request_id == alone) continue;
      const std::vector<Scheduler::Cached> cached = this->cached(sequence);
      const Placement placement = this->placement(isolated);
      const Newcomer who = newcomer(*sequence);
      if (!placement.has_room(to, who, cached[static_cast<std::size_t>(to)])) continue;
      // There it is among those that its cost counts.
      Newcomer counted = who;
      counted.num_tokens = 0;
      const double cost_here = placement.cost(from, counted, {});
      const double cost_there = placement.cost(to, who, cached[static_cast<std::size_t>(to)]);
      if (isolated != from && cost_there >= kWorthMoving * cost_here) continue;
      move(live->find(sequence->request_id), to);
      break;
    }
  }
}

absl::Status Lanes::verify() const {
  if (lobby_ != nullptr) QUIRE_RETURN_IF_ERROR(lobby_->verify());
  for (const auto& lane : lanes_) QUIRE_RETURN_IF_ERROR(lane->scheduler().verify());
  return absl::OkStatus();
}

}  // namespace quire
