#include "tests/worker/scorer.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace quire::test {

absl::StatusOr<std::unique_ptr<Scorer>> Scorer::open(const std::string& model,
                                                     const GroupOptions& options) {
  QUIRE_CHECK_EQ(options.world, 1);
  const StepLimits& limits = options.limits;
  QUIRE_ASSIGN_OR_RETURN(ModelFile file, open_model(model));
  DeviceOptions wanted;
  wanted.kind = options.device;
  wanted.dtype = options.dtype;
  wanted.kv_dtype = options.kv_dtype;
  wanted.num_threads = options.threads;
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<Device> opened, options.open_device(wanted));
  QUIRE_ASSIGN_OR_RETURN(
      std::unique_ptr<Rank> rank,
      Rank::load(std::move(file), std::move(opened), RankPlace{}, make_progress("none", "")));
  QUIRE_RETURN_IF_ERROR(rank->start(limits, absl::StrCat("quire-scorer-", ::getpid())));
  Device& device = rank->device();
  QUIRE_ASSIGN_OR_RETURN(
      KvArena arena, KvArena::create(rank->kv_shape(limits.block_size), limits.num_blocks, device));
  QUIRE_ASSIGN_OR_RETURN(BatchBuilder builder, BatchBuilder::create(limits, device));
  auto scorer = std::unique_ptr<Scorer>(
      new Scorer(limits, std::move(rank), std::move(arena), std::move(builder)));
  const Rank& owned = *scorer->rank_;
  QUIRE_ASSIGN_OR_RETURN(
      scorer->decoder_,
      Decoder::create(owned.file().spec, owned.shards(), owned.weights(), owned.device(),
                      scorer->rank_->comm(),
                      {limits.max_num_batched_tokens, limits.max_num_seqs, limits.max_model_len}));
  for (int l = 0; l < owned.file().spec.num_layers; ++l) {
    scorer->kv_layers_.push_back(scorer->arena_.layer(l));
  }
  return scorer;
}

absl::Status Scorer::score(const std::vector<TokenId>& ids, const LogitObserver& observe,
                           std::size_t from) {
  QUIRE_CHECK_GE(from, 1u);
  const auto at_once =
      static_cast<std::size_t>(std::min(limits_.max_num_batched_tokens, limits_.max_num_seqs));
  const auto most = static_cast<std::size_t>(limits_.max_num_batched_tokens);
  table_.clear();
  for (std::size_t begin = 0; begin + 1 < from; begin += most) {
    QUIRE_RETURN_IF_ERROR(fill(ids, begin, std::min(from - 1, begin + most)));
  }
  for (std::size_t first = from - 1; first + 1 < ids.size(); first += at_once) {
    StepPlan plan;
    for (std::size_t i = 0; i < std::min(at_once, ids.size() - 1 - first); ++i) {
      const std::size_t length = first + i + 1;
      cover(length);
      const auto slot = static_cast<SlotId>(i);
      const auto end = ids.begin() + static_cast<std::ptrdiff_t>(length);
      plan.admits.push_back({slot, {ids.begin(), end}, -1, 1, 0, SamplingParams()});
      plan.rows.push_back(plan_row(slot, static_cast<int>(length) - 1, 1, true, table_));
    }
    QUIRE_RETURN_IF_ERROR(step(plan, first, observe));
  }
  return absl::OkStatus();
}

// Tokens [begin, end) as one row that samples nothing.
absl::Status Scorer::fill(const std::vector<TokenId>& ids, std::size_t begin, std::size_t end) {
  StepPlan plan;
  cover(end);
  const auto known = ids.begin() + static_cast<std::ptrdiff_t>(end) + 1;
  plan.admits.push_back({0, {ids.begin(), known}, -1, 1, 0, SamplingParams()});
  plan.rows.push_back(
      plan_row(0, static_cast<int>(begin), static_cast<int>(end - begin), false, table_));
  return step(plan, begin, nullptr);
}

void Scorer::cover(std::size_t length) {
  while (table_.size() * static_cast<std::size_t>(limits_.block_size) < length) {
    table_.push_back(static_cast<BlockId>(table_.size()));
  }
}

absl::Status Scorer::step(const StepPlan& plan, std::size_t first, const LogitObserver& observe) {
  Device& device = rank_->device();
  const int vocab = rank_->file().spec.vocab;
  SlotTable slots(limits_, vocab, 1);
  QUIRE_RETURN_IF_ERROR(slots.apply(plan));
  Batch batch = builder_.build(plan, slots, nullptr);
  batch.most_tokens = 0;  // rows read what others of the step store
  decoder_->forward(batch, kv_layers_);
  for (int begin = 0; begin < batch.num_samples; begin += decoder_->max_logit_rows()) {
    const int count = std::min(decoder_->max_logit_rows(), batch.num_samples - begin);
    const Gathered logits = decoder_->logits(batch, begin, count);
    device.host_task(
        [&observe, logits, vocab, count, at = first + static_cast<std::size_t>(begin) + 1] {
          for (std::size_t row = 0; row < static_cast<std::size_t>(count); ++row) {
            const float* piece = logits.pieces[0] + row * logits.strides[0];
            observe(at + row, {piece, static_cast<std::size_t>(vocab)});
          }
          return absl::OkStatus();
        });
  }
  return device.wait();
}

}  // namespace quire::test
