#include "bench/schedule/fake_fleet.h"

#include <cmath>

#include "bench/schedule/trace.h"
#include "common/check.h"

namespace quire::bench {

FakeFleet::FakeFleet(const GpuModel& gpu, int max_num_seqs, int block_size,
                     std::size_t num_requests)
    : gpu_(gpu),
      block_size_(block_size),
      slots_(static_cast<std::size_t>(max_num_seqs)),
      slots_of_(num_requests),
      known_(num_requests) {}

double FakeFleet::run(const StepPlan& plan, StepResult* result) {
  *result = {.epoch = plan.epoch, .step = plan.step, .rows = {}, .busy_us = 0};
  first_admitted_.clear();
  for (const SlotId slot : plan.releases) release(slot);
  for (const AdmitRow& row : plan.admits) admit(row);
  GpuWork work;
  work.rows = static_cast<int>(plan.rows.size());
  work.copies = static_cast<int>(plan.copies.size());
  work.swaps = static_cast<int>(plan.saves.size() + plan.loads.size());
  swapped_blocks_ += work.swaps;
  result->rows.reserve(plan.rows.size());
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    const PlanRow& row = plan.rows[i];
    Slot& slot = slots_[static_cast<std::size_t>(row.slot)];
    QUIRE_CHECK(slot.used);
    const int end = row.first_position + row.num_tokens;
    work.tokens += row.num_tokens;
    if (row.num_tokens > 0) work.context_tokens += end;
    if (row.num_tokens > 1) work.pairs += row.num_tokens * (row.first_position + end) / 2.0;
    move(&slot, end);
    if (!row.samples) continue;
    work.picks += 1 + static_cast<int>(row.drafts.size());
    answer(row, static_cast<int>(i), slot, result);
  }
  const double seconds = gpu_.step_seconds(work);
  result->busy_us = std::llround(seconds * 1e6);
  return seconds;
}

void FakeFleet::answer(const PlanRow& row, int index, const Slot& slot, StepResult* result) const {
  for (std::size_t pick = 0; pick <= row.drafts.size(); ++pick) {
    const auto at = static_cast<std::uint64_t>(slot.position) + pick;
    RowResult& got = result->rows.emplace_back();
    got.row = index;
    got.token = static_cast<TokenId>(mix(slot.salt, at) % kReplayVocab);
    if (slot.logprobs < 0) continue;
    float logprob = -0.2f;
    got.logprobs.push_back({got.token, logprob});
    for (int k = 0; k < slot.logprobs; ++k) {
      // Falling by a little that differs from row to row, so that beams overtake each other.
      if (k > 0) logprob -= 0.1f + static_cast<float>(mix(slot.salt + 1, at + 64u * k) % 100) / 100;
      got.logprobs.push_back({(got.token + k) % kReplayVocab, logprob});
    }
  }
}

void FakeFleet::admit(const AdmitRow& row) {
  Slot& slot = slots_[static_cast<std::size_t>(row.slot)];
  QUIRE_CHECK(!slot.used);
  slot = {.request = row.params.seed,
          .prompt_tokens = row.num_prompt_tokens,
          .position = 0,
          .logprobs = row.params.logprobs,
          .salt = mix(row.params.seed, ++num_admits_),
          .used = true};
  if (slots_of_[slot.request]++ > 0) shareable_blocks_ += slot.prompt_tokens / block_size_;
  if (known_[slot.request]) return;
  known_[slot.request] = true;
  first_admitted_.push_back(slot.request);
}

void FakeFleet::release(SlotId id) {
  Slot& slot = slots_[static_cast<std::size_t>(id)];
  QUIRE_CHECK(slot.used);
  move(&slot, 0);
  if (--slots_of_[slot.request] > 0) shareable_blocks_ -= slot.prompt_tokens / block_size_;
  slot.used = false;
}

void FakeFleet::move(Slot* slot, int position) {
  copies_blocks_ += blocks(position) - blocks(slot->position);
  slot->position = position;
}

CopiesUse FakeFleet::use() const {
  return {copies_blocks_ * block_size_, (copies_blocks_ - shareable_blocks_) * block_size_};
}

}  // namespace quire::bench
