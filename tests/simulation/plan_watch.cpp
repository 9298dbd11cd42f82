// Plans are watched in the order in which they are sent.
#include "tests/simulation/plan_watch.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "tests/fakes/hash_model.h"

namespace quire::test {

absl::Status PlanWatch::send(const StepPlan& plan) {
  count(plan);
  for (const SlotId slot : plan.releases) slots_.erase(slot);
  Step step{plan.step, {}};
  for (const AdmitRow& row : plan.admits) {
    if (row.fork_of >= 0 && slots_[row.fork_of].waits_for != 0) {
      return absl::InternalError(absl::StrCat("plan ", plan.step, " forks slot ", row.fork_of,
                                              " ahead of the result that decides about it"));
    }
    slots_[row.slot] = {request_of(row.params), row.num_prompt_tokens, row.params.beam_width > 0,
                        0};
  }
  for (const PlanRow& row : plan.rows) QUIRE_RETURN_IF_ERROR(watch(row, &step));
  sent_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status PlanWatch::watch(const PlanRow& row, Step* step) {
  Slot& slot = slots_[row.slot];
  if (slot.waits_for != 0) {
    return absl::InternalError(absl::StrCat("plan ", step->step, " names slot ", row.slot,
                                            " ahead of the result of step ", slot.waits_for));
  }
  if (!row.samples) return absl::OkStatus();
  if (slot.beam || !row.drafts.empty()) slot.waits_for = step->step;
  if (!slot.beam) return absl::OkStatus();
  const int far = row.first_position + row.num_tokens - slot.num_prompt_tokens + 1;
  const auto [entry, is_new] = step->searches.emplace(slot.request, far);
  if (!is_new && entry->second != far) {
    return absl::InternalError(absl::StrCat("plan ", step->step, " computes beams of request ",
                                            slot.request, " of different lengths"));
  }
  return absl::OkStatus();
}

void PlanWatch::apply() {
  const Step& step = sent_.front();
  for (auto& [id, slot] : slots_) {
    if (slot.waits_for == step.step) slot.waits_for = 0;
  }
  for (const auto& [request, far] : step.searches) searches_[request] = far;
  sent_.pop_front();
}

void PlanWatch::forget() {
  slots_.clear();
  searches_.clear();
  sent_.clear();
}

int PlanWatch::steps_of_search(RequestId request) const {
  const auto found = searches_.find(request);
  return found == searches_.end() ? 0 : found->second;
}

void PlanWatch::count(const StepPlan& plan) {
  const auto add = [this](std::int64_t value) {
    counts_.digest = mix(counts_.digest ^ static_cast<std::uint64_t>(value));
  };
  ++counts_.steps;
  add(static_cast<std::int64_t>(plan.step));
  for (const SlotId slot : plan.releases) add(slot);
  for (const AdmitRow& row : plan.admits) {
    ++counts_.admits;
    counts_.forks += row.fork_of >= 0 ? 1 : 0;
    add(row.slot);
    add(static_cast<std::int64_t>(row.params.seed));
  }
  for (const PlanRow& row : plan.rows) {
    ++counts_.rows;
    counts_.draft_rows += row.drafts.empty() ? 0 : 1;
    counts_.draft_tokens += static_cast<std::int64_t>(row.drafts.size());
    add(row.slot);
    add(row.num_tokens);
    for (const auto& blocks : row.new_blocks) {
      for (const BlockId block : blocks) add(block);
    }
  }
  counts_.copies += static_cast<std::int64_t>(plan.copies.size());
  counts_.saves += static_cast<std::int64_t>(plan.saves.size());
  counts_.loads += static_cast<std::int64_t>(plan.loads.size());
  for (const BlockSwap& swap : plan.saves) add(swap.host);
  for (const BlockSwap& swap : plan.loads) add(swap.block);
}

}  // namespace quire::test
