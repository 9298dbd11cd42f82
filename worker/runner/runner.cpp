// plan -> slots -> batch -> decoder -> sampler -> ids on every rank -> slots.
#include "worker/runner/runner.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr int kNumKvGroups = 1;

}  // namespace

Runner::Runner(const RunnerParts& parts, const StepLimits& limits, KvArena arena,
               BatchBuilder builder, DeviceBuffer ids)
    : parts_(parts),
      slots_(limits, parts.spec->vocab, kNumKvGroups),
      arena_(std::move(arena)),
      builder_(std::move(builder)),
      sampler_(*parts.shards),
      ids_(std::move(ids)) {
  for (int l = 0; l < parts.spec->num_layers; ++l) kv_layers_.push_back(arena_.layer(l));
}

absl::StatusOr<std::unique_ptr<Runner>> Runner::create(const RunnerParts& parts, const KvShape& kv,
                                                       const StepLimits& limits) {
  QUIRE_ASSIGN_OR_RETURN(KvArena arena, KvArena::create(kv, limits.num_blocks, *parts.device));
  QUIRE_ASSIGN_OR_RETURN(BatchBuilder builder,
                         BatchBuilder::create(limits, *parts.shards, *parts.device));
  const std::size_t id_bytes = static_cast<std::size_t>(limits.max_num_seqs) * sizeof(TokenId);
  QUIRE_ASSIGN_OR_RETURN(DeviceBuffer ids,
                         DeviceBuffer::allocate_host(*parts.device, id_bytes, "the picked ids"));
  auto runner = std::unique_ptr<Runner>(
      new Runner(parts, limits, std::move(arena), std::move(builder), std::move(ids)));
  const DecoderLimits decoder_limits{limits.max_num_batched_tokens, limits.max_num_seqs,
                                     limits.max_model_len};
  QUIRE_ASSIGN_OR_RETURN(runner->decoder_,
                         Decoder::create(*parts.spec, *parts.shards, *parts.weights, *parts.device,
                                         *parts.comm, decoder_limits));
  return runner;
}

void Runner::enqueue_samples(const StepPlan& plan, const Batch& batch) {
  const std::vector<int>& rows = builder_.sampling_rows();
  const bool sampling_rank = parts_.comm->rank() == plan.sampling_rank;
  sample_rows_.clear();
  for (const int row : rows) {
    const Slot& slot = slots_.at(plan.rows[static_cast<std::size_t>(row)].slot);
    sample_rows_.push_back(
        make_sample_row(slot.params, slot.sample_index, static_cast<int>(slot.tokens.size())));
  }
  results_.assign(rows.size(), RowResult());
  auto* ids = static_cast<TokenId*>(ids_.data());
  for (int first = 0; first < batch.num_samples; first += decoder_->max_logit_rows()) {
    const int count = std::min(decoder_->max_logit_rows(), batch.num_samples - first);
    const Gathered logits = decoder_->logits(batch, first, count);
    if (!sampling_rank) continue;
    const auto begin = static_cast<std::size_t>(first);
    sampler_.enqueue(
        parts_.device->ops(), logits.pieces, logits.strides,
        absl::MakeConstSpan(sample_rows_).subspan(begin, static_cast<std::size_t>(count)),
        results_.data() + begin);
  }
  if (sampling_rank) {
    parts_.device->host_task([this, ids] {
      for (std::size_t i = 0; i < results_.size(); ++i) ids[i] = results_[i].token;
      return absl::OkStatus();
    });
  }
  parts_.comm->broadcast(ids, results_.size() * sizeof(TokenId), plan.sampling_rank);
}

absl::StatusOr<StepResult> Runner::run(const StepPlan& plan) {
  const absl::Time start = absl::Now();
  if (plan.sampling_rank < 0 || plan.sampling_rank >= parts_.comm->world()) {
    return absl::InvalidArgumentError(absl::StrCat("`sampling_rank` is ", plan.sampling_rank,
                                                   ", but the group has ", parts_.comm->world(),
                                                   " ranks"));
  }
  QUIRE_RETURN_IF_ERROR(slots_.apply(plan));
  StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  if (!plan.rows.empty()) {
    const Batch& batch = builder_.build(plan, slots_);
    decoder_->forward(batch, builder_.owners(), kv_layers_);
    if (batch.num_samples > 0) enqueue_samples(plan, batch);
    QUIRE_RETURN_IF_ERROR(parts_.device->wait());
    for (std::size_t i = 0; i < builder_.sampling_rows().size(); ++i) {
      RowResult& row = results_[i];
      row.row = builder_.sampling_rows()[i];
      row.token = static_cast<const TokenId*>(ids_.data())[i];
      if (row.token < 0 || row.token >= parts_.spec->vocab) {
        return absl::InternalError(absl::StrCat("the pick of row ", row.row, " is id ", row.token,
                                                ", outside the vocabulary; the ",
                                                "model gave logits that are not numbers"));
      }
      slots_.append(plan.rows[static_cast<std::size_t>(row.row)].slot, row.token);
      result.rows.push_back(std::move(row));
    }
  }
  result.busy_us = absl::ToInt64Microseconds(absl::Now() - start);
  return result;
}

}  // namespace quire
