// plan -> slots -> batch -> decoder -> sampler -> ids on every rank -> slots.
#include "worker/runner/runner.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr int kNumKvGroups = 1;

}  // namespace

Runner::Runner(const RunnerParts& parts, const StepLimits& limits, KvArena arena,
               BatchBuilder builder)
    : parts_(parts),
      limits_(limits),
      slots_(limits, parts.spec->vocab, kNumKvGroups),
      arena_(std::move(arena)),
      builder_(std::move(builder)),
      sampler_(*parts.shards),
      logit_states_(limits.max_num_seqs, parts.spec->eos, parts.spec->vocab) {
  for (int l = 0; l < parts.spec->num_layers; ++l) kv_layers_.push_back(arena_.layer(l));
}

Runner::~Runner() {
  // Whatever the outcome: nothing that is under way may name memory that goes now.
  static_cast<void>(parts_.device->wait());
  parts_.device->forget_records();
}

absl::Status Runner::allocate_ids() {
  const std::size_t bytes = static_cast<std::size_t>(limits_.max_picks()) * sizeof(TokenId);
  QUIRE_ASSIGN_OR_RETURN(picked_, DeviceBuffer::allocate(*parts_.device, bytes, "the picked ids"));
  for (DeviceBuffer& ids : ids_) {
    QUIRE_ASSIGN_OR_RETURN(ids,
                           DeviceBuffer::allocate_host(*parts_.device, bytes, "the picked ids"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Runner>> Runner::create(const RunnerParts& parts, const KvShape& kv,
                                                       const StepLimits& limits) {
  QUIRE_ASSIGN_OR_RETURN(KvArena arena, KvArena::create(kv, limits.num_blocks, *parts.device));
  QUIRE_ASSIGN_OR_RETURN(BatchBuilder builder, BatchBuilder::create(limits, *parts.device));
  auto runner =
      std::unique_ptr<Runner>(new Runner(parts, limits, std::move(arena), std::move(builder)));
  QUIRE_RETURN_IF_ERROR(runner->allocate_ids());
  QUIRE_ASSIGN_OR_RETURN(runner->decoder_,
                         Decoder::create(*parts.spec, *parts.shards, *parts.weights, *parts.device,
                                         *parts.comm, decoder_limits(limits, *parts.device)));
  return runner;
}

DecoderLimits decoder_limits(const StepLimits& limits, const Device& device) {
  DecoderLimits decoder{limits.max_num_batched_tokens, limits.max_picks(), limits.max_model_len};
  // A record holds one gathering of logits.
  if (device.keeps_records()) decoder.logit_bytes = std::size_t{256} << 20;
  return decoder;
}

// The whole of a decoding step up to the logits.
Gathered Runner::enqueue_record(const Batch& batch) {
  const int phase = parts_.comm->phase();
  const std::uint64_t key = builder_.shape() << 1 | static_cast<std::uint64_t>(phase);
  parts_.device->replay(key, [&] {
    decoder_->forward(batch, kv_layers_);
    recorded_[key] = decoder_->logits(batch, 0, batch.num_samples);
    QUIRE_CHECK_EQ(parts_.comm->phase(), phase);
  });
  return recorded_[key];
}

void Runner::enqueue_picks(const Gathered& logits, int first, int count, Step& step) {
  if (!step.samples_here) return;
  const auto begin = static_cast<std::size_t>(first);
  sampler_.enqueue(parts_.device->ops(), logits.pieces, logits.strides,
                   absl::MakeConstSpan(step.wishes).subspan(begin, static_cast<std::size_t>(count)),
                   step.result.rows.data() + begin, static_cast<TokenId*>(picked_.data()) + begin);
}

void Runner::expect_picks(const StepPlan& plan, Step& step) {
  step.picks = builder_.picks();
  step.result.rows.resize(step.picks.size());
  for (std::size_t i = 0; i < step.picks.size(); ++i) {
    const auto [row_index, offset] = step.picks[i];
    const PlanRow& row = plan.rows[static_cast<std::size_t>(row_index)];
    const Slot& slot = slots_.at(row.slot);
    // The first pick of the row changes the slot's tokens; with drafts they stay as they are.
    const std::size_t before = slot.tokens.size() - row.drafts.size();
    step.wishes.push_back(
        make_sample_row(slot.params, slot.sample_index, static_cast<int>(before) + offset));
    if (step.samples_here) {
      step.wishes.back().adjustment = logit_states_.update(row.slot, slot.admission, slot.params,
                                                           slot.num_prompt_tokens, slot.tokens);
    }
    if (offset == 0 && slot.params.beam_width == 0) {
      step.expected.push_back(slots_.expect(row.slot, i, row.drafts.size()));
    }
  }
}

absl::Status Runner::enqueue_swaps(const StepPlan& plan) {
  if (plan.saves.empty() && plan.loads.empty()) return absl::OkStatus();
  if (parts_.store == nullptr) {
    return absl::InvalidArgumentError(
        "the plan saves or loads KV blocks, but this rank has no offload store");
  }
  return parts_.store->enqueue(plan.saves, plan.loads, arena_);
}

// Blocks that a row, a copy or a load brings into use.
void Runner::reach_blocks(const StepPlan& plan) {
  BlockId last = -1;
  for (const PlanRow& row : plan.rows) {
    for (const auto& blocks : row.new_blocks) {
      for (const BlockId block : blocks) last = std::max(last, block);
    }
  }
  for (const BlockCopy& copy : plan.copies) last = std::max(last, copy.to);
  for (const BlockSwap& load : plan.loads) last = std::max(last, load.block);
  arena_.reach(*parts_.device, last);
}

void Runner::enqueue_copies(const StepPlan& plan) {
  if (plan.copies.empty()) return;
  std::vector<BlockId> from, to;
  for (const BlockCopy& copy : plan.copies) {
    from.push_back(copy.from);
    to.push_back(copy.to);
  }
  parts_.device->ops().copy_blocks(arena_.blocks(), from, to);
}

void Runner::enqueue_rows(const StepPlan& plan, Step& step) {
  auto* const picked = static_cast<TokenId*>(picked_.data());
  const Batch& batch = builder_.build(plan, slots_, picked);
  enqueue_copies(plan);
  expect_picks(plan, step);
  const auto count = static_cast<int>(step.picks.size());
  if (builder_.shape() != 0 && batch.num_samples <= decoder_->max_logit_rows()) {
    enqueue_picks(enqueue_record(batch), 0, count, step);
  } else {
    decoder_->forward(batch, kv_layers_);
    for (int first = 0; first < count; first += decoder_->max_logit_rows()) {
      const int some = std::min(decoder_->max_logit_rows(), count - first);
      enqueue_picks(decoder_->logits(batch, first, some), first, some, step);
    }
  }
  if (count == 0) return;
  const std::size_t bytes = step.picks.size() * sizeof(TokenId);
  parts_.comm->broadcast(picked, bytes, plan.sampling_rank);
  side_ = 1 - side_;
  step.ids = static_cast<const TokenId*>(ids_[side_].data());
  parts_.device->copy(ids_[side_].data(), picked, bytes);
}

// Counting tokens needs all of them.
bool Runner::reads_unseen_tokens(const StepPlan& plan) const {
  return std::any_of(plan.rows.begin(), plan.rows.end(), [this](const PlanRow& row) {
    const Slot& slot = slots_.at(row.slot);
    return row.samples && slot.params.penalizes() && slot.tokens.back() == kUnseen;
  });
}

bool Runner::may_enqueue() const {
  return in_flight() < (parts_.device->runs_ahead() ? kSides : 1);
}

absl::Status Runner::enqueue(const StepPlan& plan) {
  QUIRE_CHECK(may_enqueue());
  if (plan.sampling_rank < 0 || plan.sampling_rank >= parts_.comm->world()) {
    return absl::InvalidArgumentError(absl::StrCat("`sampling_rank` is ", plan.sampling_rank,
                                                   ", but the group has ", parts_.comm->world(),
                                                   " ranks"));
  }
  // The coordinator has rank 0's picks; the step may still run here.
  if (!steps_.empty() && slots_.awaits_picks(plan)) {
    QUIRE_RETURN_IF_ERROR(settle(steps_.front()));
  }
  QUIRE_RETURN_IF_ERROR(slots_.apply(plan));
  if (!steps_.empty() && reads_unseen_tokens(plan)) {
    QUIRE_RETURN_IF_ERROR(settle(steps_.front()));
  }
  Step& step = steps_.emplace_back();
  step.begun = steady_now();
  step.result.epoch = plan.epoch;
  step.result.step = plan.step;
  if (plan.rows.empty() && plan.saves.empty() && plan.loads.empty()) return absl::OkStatus();
  QUIRE_RETURN_IF_ERROR(enqueue_swaps(plan));
  reach_blocks(plan);
  step.settled = false;
  step.samples_here = parts_.comm->rank() == plan.sampling_rank;
  if (!plan.rows.empty()) enqueue_rows(plan, step);
  parts_.device->end_step();
  return absl::OkStatus();
}

bool Runner::has_finished() {
  QUIRE_CHECK(!steps_.empty());
  return steps_.front().settled || parts_.device->step_has_run();
}

// What came of a step that has run: into the slots, and into its result.
absl::Status Runner::settle(Step& step) {
  if (step.settled) return absl::OkStatus();
  QUIRE_RETURN_IF_ERROR(parts_.device->wait_step());
  step.settled = true;
  for (std::size_t i = 0; i < step.picks.size(); ++i) {
    RowResult& row = step.result.rows[i];
    row.row = step.picks[i].row;
    row.token = step.ids[i];
    if (row.token < 0 || row.token >= parts_.spec->vocab) {
      return absl::InternalError(absl::StrCat("the pick of row ", row.row, " is id ", row.token,
                                              ", outside the vocabulary; the ",
                                              "model gave logits that are not numbers"));
    }
  }
  const auto ids = absl::MakeConstSpan(step.ids, step.picks.size());
  for (const SlotTable::Expected& expected : step.expected) {
    slots_.settle(expected, ids.subspan(expected.first_pick, expected.num_picks));
  }
  return absl::OkStatus();
}

absl::StatusOr<StepResult> Runner::finish() {
  QUIRE_CHECK(!steps_.empty());
  Step& step = steps_.front();
  QUIRE_RETURN_IF_ERROR(settle(step));
  const absl::Time now = steady_now();
  step.result.busy_us = absl::ToInt64Microseconds(now - std::max(step.begun, last_finish_));
  last_finish_ = now;
  StepResult result = std::move(step.result);
  steps_.pop_front();
  return result;
}

absl::StatusOr<StepResult> Runner::run(const StepPlan& plan) {
  QUIRE_RETURN_IF_ERROR(enqueue(plan));
  return finish();
}

}  // namespace quire
