// The events of the simulation and the checks after each.
#include "tests/simulation/scheduler_simulation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace quire::test {
namespace {

constexpr int kTicks = 600;
constexpr int kMaxDrainTicks = 400000;  // a budget of one token is slow

int common_prefix(const std::vector<TokenId>& a, const std::vector<TokenId>& b) {
  return static_cast<int>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

void SimulationCounts::add(const SimulationCounts& more) {
  requests += more.requests;
  finished += more.finished;
  cancelled += more.cancelled;
  stopped += more.stopped;
  early += more.early;
  refused += more.refused;
  searches += more.searches;
  tokens += more.tokens;
  cached_tokens += more.cached_tokens;
  losses += more.losses;
  restarts += more.restarts;
  crashes += more.crashes;
  late_picks += more.late_picks;
  scheduler.preemptions += more.scheduler.preemptions;
  scheduler.accepted_draft_tokens += more.scheduler.accepted_draft_tokens;
  plans.steps += more.plans.steps;
  plans.forks += more.plans.forks;
  plans.copies += more.plans.copies;
  plans.saves += more.plans.saves;
  plans.loads += more.plans.loads;
  plans.draft_tokens += more.plans.draft_tokens;
}

std::string SimulationCounts::text() const {
  return absl::StrCat(
      requests, " requests (", finished, " finished, ", searches, " of them searches; ", cancelled,
      " cancelled, ", early, " ended early, ", refused, " refused), ", stopped,
      " stopped choices, ", plans.steps, " steps, ", tokens, " tokens, ", cached_tokens,
      " cached, ", scheduler.preemptions, " preemptions, ", losses, " group losses, ", restarts,
      " restarts, ", crashes, " crashes, ", late_picks, " late picks, ", plans.forks, " forks, ",
      plans.copies, " copies, ", plans.saves, " saves, ", plans.loads, " loads, ",
      plans.draft_tokens, " drafts, ", scheduler.accepted_draft_tokens, " of them right");
}

SchedulerSimulation::SchedulerSimulation(std::uint64_t seed)
    : world_(seed), scheduler_(std::make_unique<Scheduler>(world_.config)) {}

absl::Status SchedulerSimulation::run() {
  for (int i = 0; i < kTicks; ++i) QUIRE_RETURN_IF_ERROR(tick(/*draining=*/false));
  QUIRE_RETURN_IF_ERROR(drain());
  if (worker_ != nullptr && group_.num_host_blocks > 0) {
    QUIRE_RETURN_IF_ERROR(restart());
    for (int i = 0; i < kTicks / 6; ++i) QUIRE_RETURN_IF_ERROR(tick(/*draining=*/false));
    QUIRE_RETURN_IF_ERROR(drain());
  }
  add_counts(scheduler_->counts());
  counts_.plans = watch_.counts();
  return check_counts();
}

absl::Status SchedulerSimulation::tick(bool draining) {
  now_ += absl::Milliseconds(world_.pick(0, 20));
  if (!draining && world_.chance(world_.arrival_rate)) QUIRE_RETURN_IF_ERROR(arrive());
  if (!draining && world_.chance(world_.cancel_rate)) QUIRE_RETURN_IF_ERROR(leave_one());
  QUIRE_RETURN_IF_ERROR(expire());
  if (worker_ == nullptr ? world_.chance(0.2) : !draining && world_.chance(world_.loss_rate)) {
    QUIRE_RETURN_IF_ERROR(change_group());
  }
  if (!draining && world_.chance(world_.crash_rate)) QUIRE_RETURN_IF_ERROR(crash());
  if (scheduler_->can_plan() && world_.chance(0.7)) QUIRE_RETURN_IF_ERROR(plan());
  if (!sent_.empty() && world_.chance(0.7)) QUIRE_RETURN_IF_ERROR(work());
  if (!results_.empty() && world_.chance(0.7)) QUIRE_RETURN_IF_ERROR(apply());
  return scheduler_->verify();
}

absl::Status SchedulerSimulation::arrive() {
  const NewRequest wish = world_.request(next_request_++, now_);
  SimulationClient client(world_.model, world_.config, wish);
  const absl::Status status = scheduler_->add(wish);
  if (!status.ok() && status.code() != absl::StatusCode::kResourceExhausted) return status;
  const int num_blocks = scheduler_->epoch() == 0 ? 1 << 30 : scheduler_->num_blocks();
  QUIRE_RETURN_IF_ERROR(check_refusal(client, num_blocks, !status.ok()));
  if (!status.ok()) {
    ++counts_.refused;
    return scheduler_->verify();
  }
  ++counts_.requests;
  had_beams_[SimulationWorld::domain(wish)] |= client.is_beam();
  clients_.emplace(wish.id, std::move(client));
  return scheduler_->verify();
}

// What can never fit is refused, and nothing else.
absl::Status SchedulerSimulation::check_refusal(const SimulationClient& client, int num_blocks,
                                                bool refused) const {
  const SchedulerConfig& config = world_.config;
  const int end = (client.max_total_tokens() - 2 + config.block_size) / config.block_size;
  const int shared = client.num_prompt_tokens() / config.block_size;
  const int width = client.wish().beams.width;
  // A search may be refused a little earlier: each beam may hold one block more while it copies.
  const int least = client.is_beam() ? shared + width * (end - shared) : end;
  const int most = client.is_beam() ? least + width : end;
  const int blocks = num_blocks / config.num_kv_groups;
  const bool wide = width > std::min(config.max_num_seqs, config.max_num_batched_tokens);
  if (refused && most <= blocks && !wide) {
    return absl::InternalError(absl::StrCat("request ", client.wish().id, " fits, but is refused"));
  }
  if (!refused && (least > blocks || wide)) {
    return absl::InternalError(
        absl::StrCat("request ", client.wish().id, " can never run, but is not refused"));
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::leave_one() {
  if (clients_.empty()) return absl::OkStatus();
  const auto client =
      std::next(clients_.begin(), world_.pick(0, static_cast<int>(clients_.size()) - 1));
  const RequestId id = client->first;
  if (world_.chance(0.2)) return finish_early(client);
  if (!client->second.is_beam() && world_.chance(0.5)) {
    const int choice = world_.pick(0, client->second.wish().n - 1);
    scheduler_->stop_choice(id, choice);
    client->second.stop(choice);
    ++counts_.stopped;
    if (client->second.done()) remove(client);
    return scheduler_->verify();
  }
  scheduler_->cancel(id);
  remove(client);
  ++counts_.cancelled;
  return scheduler_->verify();
}

absl::Status SchedulerSimulation::expire() {
  for (auto client = clients_.begin(); client != clients_.end();) {
    const auto current = client++;
    if (current->second.wish().deadline <= now_) QUIRE_RETURN_IF_ERROR(finish_early(current));
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::finish_early(Clients::iterator client) {
  const std::vector<Gain> gains = scheduler_->finish_early(client->first);
  // A search that gave way is at its beginning again, which shows in no plan yet.
  const int steps = gains.empty() ? 0 : watch_.steps_of_search(client->first);
  for (const Gain& gain : gains) {
    if (gain.request != client->first) return absl::InternalError("another request ends early");
  }
  QUIRE_RETURN_IF_ERROR(client->second.take_early(gains, steps, most_cached(client->second)));
  ++counts_.early;
  remove(client);
  return scheduler_->verify();
}

absl::Status SchedulerSimulation::change_group() {
  if (worker_ != nullptr) {
    scheduler_->lose_group();
    worker_.reset();
    sent_.clear();
    results_.clear();
    watch_.forget();
    ++counts_.losses;
    return scheduler_->verify();
  }
  return begin_group(world_.group(++epoch_));
}

absl::Status SchedulerSimulation::begin_group(const HashWorkerConfig& group) {
  group_ = group;
  worker_ = std::make_unique<HashWorker>(group);
  const std::vector<RequestId> refused = scheduler_->start_group(
      group.epoch, group.num_blocks, group.first_step, group.num_host_blocks);
  for (auto client = clients_.begin(); client != clients_.end();) {
    const auto current = client++;
    const bool gone = std::find(refused.begin(), refused.end(), current->first) != refused.end();
    QUIRE_RETURN_IF_ERROR(check_refusal(current->second, group.num_blocks, gone));
    if (!gone) continue;
    remove(current);
    ++counts_.refused;
  }
  return scheduler_->verify();
}

absl::Status SchedulerSimulation::plan() {
  StepPlan plan = scheduler_->plan();
  if (plan.rows.empty()) {
    if (!plan.admits.empty() || !plan.releases.empty() || !plan.saves.empty()) {
      return absl::InternalError("an empty plan carries news that will never be sent");
    }
    return check_stuck();
  }
  QUIRE_RETURN_IF_ERROR(watch_.send(plan));
  sent_.push_back(std::move(plan));
  return scheduler_->verify();
}

// Nothing to do although nothing is on its way: work that waits now would wait for ever.
absl::Status SchedulerSimulation::check_stuck() const {
  if (scheduler_->num_in_flight() > 0 || clients_.empty()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("stuck with ", scheduler_->num_running(), " running, ",
                                          scheduler_->num_waiting(), " waiting, ", clients_.size(),
                                          " unfinished requests"));
}

absl::Status SchedulerSimulation::work() {
  StepResult result;
  QUIRE_RETURN_IF_ERROR(worker_->run(sent_.front(), &result));
  sent_.pop_front();
  results_.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::apply() {
  const std::size_t picks = results_.front().rows.size();
  absl::StatusOr<std::vector<Gain>> gains = scheduler_->apply(std::move(results_.front()));
  results_.pop_front();
  watch_.apply();
  QUIRE_RETURN_IF_ERROR(gains.status());
  if (gains->empty() && picks > 0) ++counts_.late_picks;
  for (const Gain& gain : *gains) QUIRE_RETURN_IF_ERROR(take(gain));
  QUIRE_RETURN_IF_ERROR(check_use());
  return scheduler_->verify();
}

absl::Status SchedulerSimulation::take(const Gain& gain) {
  const auto found = clients_.find(gain.request);
  if (found == clients_.end()) {
    return absl::InternalError(
        absl::StrCat("a gain for request ", gain.request, ", which has ended"));
  }
  SimulationClient& client = found->second;
  counts_.cached_tokens += gain.num_cached_tokens;
  QUIRE_RETURN_IF_ERROR(client.take(gain, most_cached(client)));
  if (gain.end != EndReason::kNone) world_.remember(client.wish(), client.tokens(gain.choice));
  if (!client.done()) return absl::OkStatus();
  ++counts_.finished;
  counts_.searches += client.is_beam() ? 1 : 0;
  remove(found);
  return absl::OkStatus();
}

// Tokens of the prompt that anybody of its domain has had before. Of beams only the best are known.
int SchedulerSimulation::most_cached(const SimulationClient& client) const {
  if (!world_.config.prefix_caching) return 0;
  const std::uint64_t domain = SimulationWorld::domain(client.wish());
  const auto beams = had_beams_.find(domain);
  if (beams != had_beams_.end() && beams->second) return client.num_prompt_tokens();
  int most = 0;
  const auto look = [&](const std::vector<TokenId>& tokens) {
    most = std::max(most, common_prefix(client.wish().prompt, tokens));
  };
  if (const auto past = past_.find(domain); past != past_.end()) {
    for (const std::vector<TokenId>& tokens : past->second) look(tokens);
  }
  for (const auto& [id, other] : clients_) {
    if (id == client.wish().id || SimulationWorld::domain(other.wish()) != domain) continue;
    for (int choice = 0; choice < other.wish().n; ++choice) look(other.tokens(choice));
  }
  return most;
}

absl::Status SchedulerSimulation::check_use() const {
  const KvUse use = scheduler_->kv_use();
  const std::int64_t allocated = std::int64_t{scheduler_->num_used_blocks()} *
                                 world_.config.block_size / world_.config.num_kv_groups;
  if (use.allocated == allocated && use.filled >= 0 && use.filled <= use.allocated) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("said to use ", use.filled, " of ", use.allocated,
                                          " slots, with blocks of ", allocated));
}

void SchedulerSimulation::remove(Clients::iterator client) {
  const SimulationClient& gone = client->second;
  counts_.tokens += gone.num_tokens();
  for (int choice = 0; choice < gone.wish().n; ++choice) {
    past_[SimulationWorld::domain(gone.wish())].push_back(gone.tokens(choice));
  }
  clients_.erase(client);
}

absl::Status SchedulerSimulation::drain() {
  for (int i = 0; !clients_.empty() || scheduler_->num_in_flight() > 0; ++i) {
    if (i == kMaxDrainTicks) {
      return absl::InternalError(absl::StrCat(clients_.size(), " requests never finished"));
    }
    QUIRE_RETURN_IF_ERROR(tick(/*draining=*/true));
  }
  if (scheduler_->num_used_blocks() != 0 || scheduler_->num_running() != 0 ||
      scheduler_->num_waiting() != 0 || scheduler_->num_waiting_tokens() != 0) {
    return absl::InternalError(absl::StrCat("left over: ", scheduler_->num_used_blocks(),
                                            " blocks, ", scheduler_->num_running(), " running, ",
                                            scheduler_->num_waiting(), " waiting"));
  }
  const int cached = scheduler_->num_cached_blocks();
  if (cached > (world_.config.prefix_caching ? scheduler_->num_blocks() : 0)) {
    return absl::InternalError(absl::StrCat(cached, " blocks are cached"));
  }
  return scheduler_->verify();
}

// Everything ends in order, and another coordinator with another group finds the saved prefixes.
absl::Status SchedulerSimulation::restart() {
  scheduler_->begin_saving();
  QUIRE_RETURN_IF_ERROR(save_prefixes());
  const std::string index = scheduler_->stored_index();
  const std::unique_ptr<HashWorker> dead = std::move(worker_);
  add_counts(scheduler_->counts());
  watch_.forget();
  scheduler_ = std::make_unique<Scheduler>(world_.config);
  HashWorkerConfig group = world_.group(++epoch_);
  group.num_host_blocks = group_.num_host_blocks;
  QUIRE_RETURN_IF_ERROR(begin_group(group));
  worker_->inherit_store(dead.get());
  QUIRE_RETURN_IF_ERROR(scheduler_->restore_index(index));
  ++counts_.restarts;
  return scheduler_->verify();
}

// The coordinator dies and another takes up what the journal has: of every request what its client
// was given. Its group attaches later.
absl::Status SchedulerSimulation::crash() {
  worker_.reset();
  sent_.clear();
  results_.clear();
  watch_.forget();
  add_counts(scheduler_->counts());
  scheduler_ = std::make_unique<Scheduler>(world_.config);
  for (const auto& [id, client] : clients_) {
    NewRequest wish = client.wish();
    for (int choice = 0; !client.is_beam() && choice < wish.n; ++choice) {
      const std::vector<TokenId>& tokens = client.tokens(choice);
      wish.past.push_back(
          {{tokens.begin() + client.num_prompt_tokens(), tokens.end()}, !client.is_open(choice)});
    }
    QUIRE_RETURN_IF_ERROR(scheduler_->add(std::move(wish)));
  }
  ++counts_.crashes;
  return scheduler_->verify();
}

absl::Status SchedulerSimulation::save_prefixes() {
  while (true) {
    const StepPlan plan = scheduler_->plan_saves(world_.pick(1, 8));
    QUIRE_RETURN_IF_ERROR(scheduler_->verify());
    if (plan.saves.empty()) return absl::OkStatus();
    QUIRE_RETURN_IF_ERROR(watch_.send(plan));
    StepResult result;
    QUIRE_RETURN_IF_ERROR(worker_->run(plan, &result));
    const absl::StatusOr<std::vector<Gain>> gains = scheduler_->apply(std::move(result));
    QUIRE_RETURN_IF_ERROR(gains.status());
    watch_.apply();
    if (!gains->empty()) return absl::InternalError("a plan of saves gains something");
  }
}

void SchedulerSimulation::add_counts(const SchedulerCounts& more) {
  SchedulerCounts& sum = counts_.scheduler;
  sum.preemptions += more.preemptions;
  sum.prefix_queries += more.prefix_queries;
  sum.prefix_hits += more.prefix_hits;
  sum.saved_blocks += more.saved_blocks;
  sum.loaded_blocks += more.loaded_blocks;
  sum.drafts += more.drafts;
  sum.draft_tokens += more.draft_tokens;
  sum.accepted_draft_tokens += more.accepted_draft_tokens;
}

// What the scheduler counts is what its plans and gains show.
absl::Status SchedulerSimulation::check_counts() const {
  const SchedulerCounts& said = counts_.scheduler;
  const PlanCounts& seen = counts_.plans;
  const auto groups = static_cast<std::uint64_t>(world_.config.num_kv_groups);
  const auto same = [](std::uint64_t a, std::int64_t b) {
    return a == static_cast<std::uint64_t>(b);
  };
  if (same(said.saved_blocks * groups, seen.saves) &&
      same(said.loaded_blocks * groups, seen.loads) && same(said.drafts, seen.draft_rows) &&
      same(said.draft_tokens, seen.draft_tokens) &&
      said.accepted_draft_tokens <= said.draft_tokens && said.prefix_hits <= said.prefix_queries &&
      said.prefix_hits >= static_cast<std::uint64_t>(counts_.cached_tokens)) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      absl::StrCat("counted ", said.saved_blocks, " saves, ", said.loaded_blocks, " loads, ",
                   said.drafts, " drafts of ", said.draft_tokens, " tokens, ", said.prefix_hits,
                   " hits of ", said.prefix_queries, "; seen: ", seen.saves, " saves, ", seen.loads,
                   " loads, ", seen.draft_rows, " drafts of ", seen.draft_tokens, " tokens, ",
                   counts_.cached_tokens, " hits, in ", groups, " KV groups"));
}

}  // namespace quire::test
