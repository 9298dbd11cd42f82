// The events of the simulation and the checks after each.
#include "tests/simulation/scheduler_simulation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace quire::test {
namespace {

constexpr int kTicks = 600;
constexpr int kMaxDrainTicks = 200000;

bool contains(const std::vector<TokenId>& list, TokenId id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

}  // namespace

std::string SimulationCounts::text() const {
  return absl::StrCat(sequences, " sequences (", finished, " finished, ", cancelled, " cancelled, ",
                      refused, " refused), ", steps, " steps, ", tokens, " tokens, ", preemptions,
                      " preemptions, ", losses, " group losses, ", late_rows, " late rows");
}

SchedulerSimulation::SchedulerSimulation(std::uint64_t seed)
    : random_(seed), config_(random_config()), scheduler_(config_) {}

int SchedulerSimulation::pick(int low, int high) {
  return low + static_cast<int>(random_() % static_cast<std::uint64_t>(high - low + 1));
}

bool SchedulerSimulation::chance(double p) {
  return static_cast<double>(random_() >> 11) * 0x1p-53 < p;
}

SchedulerConfig SchedulerSimulation::random_config() {
  SchedulerConfig config;
  config.max_num_seqs = pick(1, 12);
  config.max_num_batched_tokens = pick(1, 1 << pick(0, 9));
  config.steps_in_flight = pick(1, 3);  // the engine allows 2; the rules hold for any depth
  config.block_size = 1 << pick(0, 4);
  config.num_kv_groups = chance(0.2) ? 2 : 1;
  config.max_model_len = pick(2, 1 << pick(2, 7));
  model_.vocab = pick(20, 400);
  config.vocab = model_.vocab;
  for (int i = pick(0, 3); i > 0; --i) config.eos.push_back(pick(0, model_.vocab - 1));
  loss_rate_ = chance(0.5) ? 0.0 : 0.01;
  cancel_rate_ = chance(0.3) ? 0.0 : 0.03;
  arrival_rate_ = chance(0.5) ? 0.1 : 0.4;
  return config;
}

absl::Status SchedulerSimulation::run() {
  for (int i = 0; i < kTicks; ++i) QUIRE_RETURN_IF_ERROR(tick(/*draining=*/false));
  return drain();
}

absl::Status SchedulerSimulation::tick(bool draining) {
  if (!draining && chance(arrival_rate_)) QUIRE_RETURN_IF_ERROR(arrive());
  if (!draining && chance(cancel_rate_)) cancel_one();
  if (worker_ == nullptr ? chance(0.2) : !draining && chance(loss_rate_)) {
    QUIRE_RETURN_IF_ERROR(change_group());
  }
  if (scheduler_.can_plan() && chance(0.7)) QUIRE_RETURN_IF_ERROR(plan());
  if (!sent_.empty() && chance(0.7)) QUIRE_RETURN_IF_ERROR(work());
  if (!results_.empty() && chance(0.7)) QUIRE_RETURN_IF_ERROR(apply());
  return scheduler_.verify();
}

absl::Status SchedulerSimulation::arrive() {
  NewSequence wish;
  wish.request = next_request_++;
  wish.prompt.resize(static_cast<std::size_t>(
      pick(1, chance(0.2) ? config_.max_model_len - 1 : (config_.max_model_len + 3) / 4)));
  for (TokenId& token : wish.prompt) token = pick(0, model_.vocab - 1);
  wish.params.seed = random_();
  wish.params.max_tokens = chance(0.1) ? 1 << 30 : pick(1, config_.max_model_len);
  wish.params.ignore_eos = chance(0.3);
  wish.params.logprobs = chance(0.2) ? pick(0, 3) : -1;
  if (chance(0.2)) wish.params.stop_token_ids = {pick(0, model_.vocab - 1)};
  const int n = chance(0.2) ? pick(2, 5) : 1;
  for (wish.choice = 0; wish.choice < n; ++wish.choice) {
    const absl::StatusOr<SequenceId> id = scheduler_.add(wish);
    const int room = config_.max_model_len - static_cast<int>(wish.prompt.size());
    const int max_total =
        static_cast<int>(wish.prompt.size()) + std::min(room, wish.params.max_tokens);
    if (!id.ok()) {
      const int needed = (max_total - 1 + config_.block_size - 1) / config_.block_size;
      if (scheduler_.epoch() == 0 || needed * config_.num_kv_groups <= scheduler_.num_blocks()) {
        return absl::InternalError("a sequence that fits was refused");
      }
      ++counts_.refused;
      continue;
    }
    ++counts_.sequences;
    clients_[*id] = {wish, wish.prompt, max_total};
  }
  return absl::OkStatus();
}

void SchedulerSimulation::cancel_one() {
  if (clients_.empty()) return;
  const auto victim = std::next(clients_.begin(), pick(0, static_cast<int>(clients_.size()) - 1));
  scheduler_.cancel(victim->first);
  clients_.erase(victim);
  ++counts_.cancelled;
}

absl::Status SchedulerSimulation::change_group() {
  if (worker_ != nullptr) {
    scheduler_.lose_group();
    worker_.reset();
    sent_.clear();
    results_.clear();
    ++counts_.losses;
    return absl::OkStatus();
  }
  const int longest = (config_.max_model_len - 1 + config_.block_size - 1) / config_.block_size;
  const int least = config_.num_kv_groups * longest;
  const int num_blocks =
      chance(0.1) ? pick(1, least) : pick(least, chance(0.5) ? least + 2 : 6 * least);
  HashWorkerConfig worker;
  worker.epoch = ++epoch_;
  worker.first_step = static_cast<StepId>(pick(1, 3));
  worker.num_blocks = num_blocks;
  worker.block_size = config_.block_size;
  worker.num_kv_groups = config_.num_kv_groups;
  worker.max_num_seqs = config_.max_num_seqs;
  worker.max_num_batched_tokens = config_.max_num_batched_tokens;
  worker.model = model_;
  worker_ = std::make_unique<HashWorker>(worker);
  for (const Gain& gone : scheduler_.start_group(epoch_, num_blocks, worker.first_step)) {
    const auto client = clients_.find(gone.sequence);
    if (client == clients_.end()) return absl::InternalError("an unknown sequence was refused");
    const int needed = (client->second.max_total - 2 + config_.block_size) / config_.block_size;
    if (needed * config_.num_kv_groups <= num_blocks) {
      return absl::InternalError("a sequence that fits the new group was refused");
    }
    clients_.erase(client);
    ++counts_.refused;
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::plan() {
  const int running = scheduler_.num_running();
  const auto preempted = scheduler_.num_preemptions();
  StepPlan plan = scheduler_.plan();
  counts_.preemptions += static_cast<std::int64_t>(scheduler_.num_preemptions() - preempted);
  if (plan.rows.empty()) {
    if (!plan.admits.empty() || !plan.releases.empty()) {
      return absl::InternalError("an empty plan carries news that will never be sent");
    }
    return check_stuck();
  }
  if (static_cast<int>(plan.rows.size()) > running + static_cast<int>(plan.admits.size())) {
    return absl::InternalError("a plan has more rows than sequences run");
  }
  ++counts_.steps;
  sent_.push_back(std::move(plan));
  return scheduler_.verify();
}

// Nothing to do although nothing is on its way: work that waits now would wait for ever.
absl::Status SchedulerSimulation::check_stuck() const {
  if (scheduler_.num_in_flight() > 0 || scheduler_.num_running() + scheduler_.num_waiting() == 0) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("stuck with ", scheduler_.num_running(), " running, ",
                                          scheduler_.num_waiting(), " waiting"));
}

absl::Status SchedulerSimulation::work() {
  StepResult result;
  QUIRE_RETURN_IF_ERROR(worker_->run(sent_.front(), &result));
  sent_.pop_front();
  results_.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::apply() {
  const std::size_t sampled = results_.front().rows.size();
  absl::StatusOr<std::vector<Gain>> gains = scheduler_.apply(std::move(results_.front()));
  results_.pop_front();
  QUIRE_RETURN_IF_ERROR(gains.status());
  counts_.late_rows += static_cast<std::int64_t>(sampled - gains->size());
  for (const Gain& gain : *gains) QUIRE_RETURN_IF_ERROR(check_gain(gain));
  return scheduler_.verify();
}

absl::Status SchedulerSimulation::check_gain(const Gain& gain) {
  const auto found = clients_.find(gain.sequence);
  if (found == clients_.end()) {
    return absl::InternalError(
        absl::StrCat("a token for sequence ", gain.sequence, ", which has ended"));
  }
  Client& client = found->second;
  if (gain.request != client.wish.request || gain.choice != client.wish.choice) {
    return absl::InternalError("a token for the wrong choice");
  }
  const SamplingParams& params = client.wish.params;
  const TokenId expected = model_.next(client.tokens, params.seed, client.wish.choice);
  if (gain.token != expected) {
    return absl::InternalError(absl::StrCat("sequence ", gain.sequence, " got token ", gain.token,
                                            " at position ", client.tokens.size(), ", not ",
                                            expected));
  }
  const std::size_t logprobs =
      params.logprobs < 0 ? 0 : static_cast<std::size_t>(params.logprobs) + 1;
  if (gain.logprobs.size() != logprobs) return absl::InternalError("wrong number of logprobs");
  client.tokens.push_back(gain.token);
  ++counts_.tokens;
  if (gain.end != expected_end(client)) return absl::InternalError("a wrong reason to end");
  if (gain.end == EndReason::kNone) return absl::OkStatus();
  clients_.erase(found);
  ++counts_.finished;
  return absl::OkStatus();
}

EndReason SchedulerSimulation::expected_end(const Client& client) const {
  const SamplingParams& params = client.wish.params;
  const TokenId last = client.tokens.back();
  if (contains(config_.eos, last) && !params.ignore_eos) return EndReason::kStop;
  if (contains(params.stop_token_ids, last)) return EndReason::kStop;
  const bool full = static_cast<int>(client.tokens.size()) >= client.max_total;
  return full ? EndReason::kLength : EndReason::kNone;
}

absl::Status SchedulerSimulation::drain() {
  for (int i = 0; !clients_.empty() || scheduler_.num_in_flight() > 0; ++i) {
    if (i == kMaxDrainTicks) {
      return absl::InternalError(absl::StrCat(clients_.size(), " sequences never finished"));
    }
    QUIRE_RETURN_IF_ERROR(tick(/*draining=*/true));
  }
  if (scheduler_.num_used_blocks() != 0 || scheduler_.num_running() != 0 ||
      scheduler_.num_waiting() != 0) {
    return absl::InternalError(absl::StrCat("left over: ", scheduler_.num_used_blocks(),
                                            " blocks, ", scheduler_.num_running(), " running, ",
                                            scheduler_.num_waiting(), " waiting"));
  }
  return scheduler_.verify();
}

}  // namespace quire::test
