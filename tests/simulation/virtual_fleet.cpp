// One step after the other; plans run when their turn comes.
#include "tests/simulation/virtual_fleet.h"

#include <gtest/gtest.h>

#include <utility>

namespace quire::test {
namespace {

HashWorkerConfig group(const SchedulerConfig& config, int num_blocks, const HashCost& cost) {
  HashWorkerConfig worker;
  worker.num_blocks = num_blocks;
  worker.block_size = config.block_size;
  worker.max_num_seqs = config.max_num_seqs;
  worker.max_num_batched_tokens = config.max_num_batched_tokens;
  worker.model.vocab = config.vocab;
  worker.cost = cost;
  return worker;
}

}  // namespace

VirtualFleet::VirtualFleet(const SchedulerConfig& config, int num_blocks, HashCost cost)
    : config_(config), scheduler_(config), worker_(group(config, num_blocks, cost)) {
  scheduler_.start_group(1, num_blocks, 1);
}

RequestId VirtualFleet::submit(int num_prompt, int max_tokens, NewRequest wish) {
  wish.id = next_id_++;
  // No two prompts are alike.
  for (int i = 0; i < num_prompt; ++i) {
    wish.prompt.push_back(static_cast<TokenId>(mix(wish.id * 100000 + static_cast<unsigned>(i)) %
                                               static_cast<std::uint64_t>(config_.vocab)));
  }
  wish.params.max_tokens = max_tokens;
  wish.params.seed = wish.id;
  wish.arrival = now_;
  Record& record = records_[wish.id];
  record.tenant = wish.tenant;
  record.num_prompt_tokens = num_prompt;
  record.arrival = now_;
  num_choices_ += wish.n;
  waiting_.insert(wish.id);
  const RequestId id = wish.id;
  const absl::Status status = scheduler_.add(std::move(wish));
  EXPECT_TRUE(status.ok()) << status;
  return id;
}

bool VirtualFleet::step() {
  while (scheduler_.can_plan()) {
    StepPlan plan = scheduler_.plan();
    if (plan.rows.empty()) break;
    send(std::move(plan));
  }
  if (sent_.empty()) return false;
  StepResult result;
  const absl::Status status = worker_.run(sent_.front(), &result);
  EXPECT_TRUE(status.ok()) << status;
  sent_.pop_front();
  now_ += absl::Microseconds(result.busy_us);
  absl::StatusOr<std::vector<Gain>> gains = scheduler_.apply(std::move(result));
  EXPECT_TRUE(gains.ok()) << gains.status();
  EXPECT_TRUE(scheduler_.verify().ok()) << scheduler_.verify();
  if (!status.ok() || !gains.ok()) return false;
  for (const Gain& gain : *gains) take(gain);
  return true;
}

void VirtualFleet::send(StepPlan plan) {
  for (const SlotId slot : plan.releases) {
    const RequestId id = slots_.at(slot);
    if (!records_.at(id).ended()) waiting_.insert(id);
    slots_.erase(slot);
    computed_.erase(slot);
  }
  for (const AdmitRow& row : plan.admits) {
    waiting_.erase(row.params.seed);
    if (!waiting_.empty() && *waiting_.begin() < row.params.seed) somebody_was_passed_ = true;
    slots_[row.slot] = row.params.seed;
  }
  int granted = 0;
  rows_.clear();
  for (const PlanRow& row : plan.rows) {
    rows_.insert(slots_.at(row.slot));
    computed_[row.slot] = row.first_position + row.num_tokens;
    granted += row.num_tokens;
  }
  num_computed_ += granted;
  const bool full =
      scheduler_.num_running() == config_.max_num_seqs || granted == config_.max_num_batched_tokens;
  if (scheduler_.num_waiting() > 0 && !full) ++num_idle_plans_;
  sent_.push_back(std::move(plan));
}

RequestId VirtualFleet::first_running() const {
  RequestId first = 0;
  for (const auto& [slot, id] : slots_) {
    if (!records_.at(id).ended() && (first == 0 || id < first)) first = id;
  }
  return first;
}

void VirtualFleet::take(const Gain& gain) {
  Record& record = records_.at(gain.request);
  if (record.first == absl::InfiniteFuture()) record.first = now_;
  record.num_tokens += static_cast<std::int64_t>(gain.tokens.size());
  if (gain.end == EndReason::kNone) return;
  record.end = now_;
  --num_choices_;
}

KvUse VirtualFleet::least_use() const {
  KvUse use;
  const std::int64_t size = config_.block_size;
  for (const auto& [slot, computed] : computed_) {
    use.filled += computed;
    use.allocated += (computed + size - 1) / size * size;
  }
  return use;
}

}  // namespace quire::test
