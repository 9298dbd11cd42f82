// One pass over the plan's rows.
#include "worker/runner/batch_builder.h"

#include <algorithm>

namespace quire {
namespace {

int blocks_for(int positions, int block_size) {
  return (positions + block_size - 1) / block_size;
}

}  // namespace

absl::StatusOr<BatchBuilder> BatchBuilder::create(const StepLimits& limits, const ShardMap& shards,
                                                  Device& device) {
  BatchBuilder builder;
  builder.limits_ = limits;
  for (const RankShard& shard : shards.ranks) builder.vocab_ends_.push_back(shard.vocab.end);
  const auto tokens = static_cast<std::size_t>(limits.max_num_batched_tokens);
  const auto rows = static_cast<std::size_t>(limits.max_num_seqs);
  const auto width = static_cast<std::size_t>(blocks_for(limits.max_model_len, limits.block_size));
  const std::size_t ints = 4 * tokens + 3 * rows + 1 + rows * width;
  const std::size_t bytes = ints * sizeof(std::int32_t);
  builder.device_ = &device;
  QUIRE_ASSIGN_OR_RETURN(builder.memory_, DeviceBuffer::allocate(device, bytes, "the batch"));
  QUIRE_ASSIGN_OR_RETURN(builder.host_, DeviceBuffer::allocate_host(device, bytes, "the batch"));
  auto* next = static_cast<std::int32_t*>(builder.host_.data());
  const auto take = [&next](std::size_t count) { return std::exchange(next, next + count); };
  builder.tokens_ = take(tokens);
  builder.positions_ = take(tokens);
  builder.row_of_token_ = take(tokens);
  builder.owners_ = take(tokens);
  builder.row_begin_ = take(rows + 1);
  builder.context_ = take(rows);
  builder.sample_tokens_ = take(rows);
  builder.block_tables_ = take(rows * width);
  return builder;
}

std::int32_t BatchBuilder::owner_of(TokenId token) const {
  return static_cast<std::int32_t>(std::upper_bound(vocab_ends_.begin(), vocab_ends_.end(), token) -
                                   vocab_ends_.begin());
}

void BatchBuilder::add_tokens(const PlanRow& row, const Slot& slot, int index) {
  int t = row_begin_[index];
  for (int i = 0; i < row.num_tokens; ++i, ++t) {
    const int position = row.first_position + i;
    tokens_[t] = slot.tokens[static_cast<std::size_t>(position)];
    positions_[t] = position;
    row_of_token_[t] = index;
    owners_[t] = owner_of(tokens_[t]);
  }
  row_begin_[index + 1] = t;
  context_[index] = row.first_position + row.num_tokens;
  if (row.samples) {
    sample_tokens_[sampling_rows_.size()] = t - 1;
    sampling_rows_.push_back(index);
  }
}

void BatchBuilder::fill_tables(const StepPlan& plan, const SlotTable& slots) {
  int width = 0;
  for (std::size_t b = 0; b < plan.rows.size(); ++b) {
    width = std::max(width, blocks_for(context_[b], limits_.block_size));
  }
  for (std::size_t b = 0; b < plan.rows.size(); ++b) {
    const std::vector<BlockId>& table = slots.at(plan.rows[b].slot).tables[0];
    const int used = blocks_for(context_[b], limits_.block_size);
    std::copy_n(table.begin(), used, block_tables_ + b * static_cast<std::size_t>(width));
  }
  batch_.max_blocks = width;
}

// The block tables come last, so that what is used of the arrays is one stretch.
void BatchBuilder::send() {
  const BlockId* end = block_tables_ + static_cast<std::size_t>(batch_.num_rows) *
                                           static_cast<std::size_t>(batch_.max_blocks);
  const auto* begin = static_cast<const std::int32_t*>(host_.data());
  device_->copy(memory_.data(), begin,
                static_cast<std::size_t>(end - begin) * sizeof(std::int32_t));
}

const Batch& BatchBuilder::build(const StepPlan& plan, const SlotTable& slots) {
  sampling_rows_.clear();
  row_begin_[0] = 0;
  for (std::size_t b = 0; b < plan.rows.size(); ++b) {
    add_tokens(plan.rows[b], slots.at(plan.rows[b].slot), static_cast<int>(b));
  }
  fill_tables(plan, slots);
  batch_.num_rows = static_cast<int>(plan.rows.size());
  batch_.num_tokens = row_begin_[plan.rows.size()];
  batch_.block_size = limits_.block_size;
  batch_.tokens = on_device(tokens_);
  batch_.positions = on_device(positions_);
  batch_.row_of_token = on_device(row_of_token_);
  batch_.row_begin = on_device(row_begin_);
  batch_.context = on_device(context_);
  batch_.block_tables = on_device(block_tables_);
  batch_.num_samples = static_cast<int>(sampling_rows_.size());
  batch_.sample_tokens = on_device(sample_tokens_);
  send();
  return batch_;
}

}  // namespace quire
