// Count, place, one pass over the plan's rows, send.
#include "worker/runner/batch_builder.h"

#include <algorithm>
#include <utility>

#include "kernels/ops.h"

namespace quire {
namespace {

constexpr int kAlignment = 4;  // integers

int blocks_for(int positions, int block_size) {
  return (positions + block_size - 1) / block_size;
}

int aligned(int count) {
  return (count + kAlignment - 1) / kAlignment * kAlignment;
}

std::size_t ints_of(int tokens, int rows, int samples, int width) {
  return 4 * static_cast<std::size_t>(aligned(tokens)) +
         static_cast<std::size_t>(2 * aligned(rows + 1) + 3 * aligned(rows) + aligned(4 * rows) +
                                  5 * aligned(samples)) +
         static_cast<std::size_t>(rows) * static_cast<std::size_t>(width);
}

// 1, 2, 4, 8, 16, 24, 32, ... by 8, from 256 on by 32.
int row_bucket(int rows) {
  int bucket = 1;
  while (bucket < rows && bucket < 8) bucket *= 2;
  const int step = rows > 256 ? 32 : 8;
  return bucket >= rows ? bucket : (rows + step - 1) / step * step;
}

int width_bucket(int width) {
  int bucket = 4;
  while (bucket < width) bucket *= 2;
  return bucket;
}

}  // namespace

absl::StatusOr<BatchBuilder> BatchBuilder::create(const StepLimits& limits, Device& device) {
  BatchBuilder builder;
  builder.limits_ = limits;
  builder.device_ = &device;
  const int width = blocks_for(limits.max_model_len, limits.block_size);
  const std::size_t bytes =
      ints_of(limits.max_num_batched_tokens, limits.max_num_seqs, limits.max_picks(), width) *
      sizeof(std::int32_t);
  QUIRE_ASSIGN_OR_RETURN(builder.memory_, DeviceBuffer::allocate(device, bytes, "the batch"));
  for (DeviceBuffer& side : builder.host_) {
    QUIRE_ASSIGN_OR_RETURN(side, DeviceBuffer::allocate_host(device, bytes, "the batch"));
  }
  return builder;
}

BatchBuilder::Counts BatchBuilder::count(const StepPlan& plan) const {
  Counts counts;
  for (const PlanRow& row : plan.rows) {
    if (row.samples) counts.samples += 1 + static_cast<int>(row.drafts.size());
    if (row.num_tokens == 0) continue;
    counts.rows += 1;
    counts.tokens += row.num_tokens;
    counts.most_tokens = std::max(counts.most_tokens, row.num_tokens);
    counts.width =
        std::max(counts.width, blocks_for(row.first_position + row.num_tokens, limits_.block_size));
  }
  return counts;
}

// Of one token and one pick each: rows with drafts have more of both, forks' first ones less.
bool BatchBuilder::is_decode(const StepPlan& plan) const {
  return std::all_of(plan.rows.begin(), plan.rows.end(),
                     [](const PlanRow& row) { return row.num_tokens == 1 && row.samples; });
}

BatchBuilder::Counts BatchBuilder::rounded_up(const Counts& counts) const {
  const int most = std::min(limits_.max_num_seqs, limits_.max_num_batched_tokens);
  Counts more;
  more.rows = more.tokens = more.samples = std::min(row_bucket(counts.rows), most);
  more.width =
      std::min(width_bucket(counts.width), blocks_for(limits_.max_model_len, limits_.block_size));
  return more;
}

// The tables come last: they are the longest.
void BatchBuilder::place(const Counts& counts) {
  auto* next = static_cast<std::int32_t*>(host_side());
  const auto take = [&next](int count) { return std::exchange(next, next + aligned(count)); };
  tokens_ = take(counts.tokens);
  positions_ = take(counts.tokens);
  row_of_token_ = take(counts.tokens);
  sources_ = take(counts.tokens);
  row_begin_ = take(counts.rows + 1);
  context_ = take(counts.rows);
  sample_tokens_ = take(counts.samples);
  sampled_tokens_ = take(counts.samples);
  sampled_positions_ = take(counts.samples);
  sampled_rows_ = take(counts.samples);
  sampled_begin_ = take(counts.rows + 1);
  sampled_picks_ = take(counts.samples);
  shared_runs_ = take(4 * counts.rows);
  shared_rows_ = take(counts.rows);
  shared_of_row_ = take(counts.rows);
  block_tables_ = next;
  end_ = next + static_cast<std::ptrdiff_t>(counts.rows) * counts.width;
  batch_ = Batch();
  batch_.num_tokens = counts.tokens;
  batch_.num_rows = counts.rows;
  batch_.num_samples = counts.samples;
  batch_.block_size = limits_.block_size;
  batch_.max_blocks = counts.width;
  batch_.tokens = on_device(tokens_);
  batch_.positions = on_device(positions_);
  batch_.row_of_token = on_device(row_of_token_);
  batch_.row_begin = on_device(row_begin_);
  batch_.context = on_device(context_);
  batch_.sample_tokens = on_device(sample_tokens_);
  batch_.block_tables = on_device(block_tables_);
  batch_.shared_runs = on_device(shared_runs_);
  batch_.shared_rows = on_device(shared_rows_);
  batch_.shared_of_row = on_device(shared_of_row_);
}

void BatchBuilder::add_row(const PlanRow& row, const Slot& slot, int index) {
  int t = row_begin_[index];
  for (int i = 0; i < row.num_tokens; ++i, ++t) {
    const int position = row.first_position + i;
    const TokenId token = slot.tokens[static_cast<std::size_t>(position)];
    const bool unseen = token == kUnseen;
    tokens_[t] = unseen ? 0 : token;
    sources_[t] = unseen ? slot.unseen_pick : -1;
    feeds_ = feeds_ || unseen;
    positions_[t] = position;
    row_of_token_[t] = index;
  }
  row_begin_[index + 1] = t;
  context_[index] = row.first_position + row.num_tokens;
  std::copy_n(slot.tables[0].begin(), blocks_for(context_[index], limits_.block_size),
              block_tables_ + static_cast<std::ptrdiff_t>(index) * batch_.max_blocks);
}

// Once all rows are in place: a fork's parent may come after it.
void BatchBuilder::add_picks(const StepPlan& plan, const SlotTable& slots) {
  picks_.clear();
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    const PlanRow& row = plan.rows[i];
    if (!row.samples) continue;
    const auto drafts = static_cast<int>(row.drafts.size());
    const int source = row_of_plan_[static_cast<std::size_t>(slots.logits_row(row))];
    const int first = row_begin_[source + 1] - 1 - drafts;
    for (int offset = 0; offset <= drafts; ++offset) {
      sample_tokens_[picks_.size()] = first + offset;
      picks_.push_back({static_cast<int>(i), offset});
    }
  }
}

// Once all picks are known; forks pick from a token that others pick from, too.
void BatchBuilder::add_sampled() {
  const auto num_tokens = static_cast<std::size_t>(batch_.num_tokens);
  place_of_.assign(num_tokens, -1);
  for (std::size_t i = 0; i < picks_.size(); ++i) {
    place_of_[static_cast<std::size_t>(sample_tokens_[i])] = 0;
  }
  int count = 0;
  for (std::int32_t t = 0; t < batch_.num_tokens; ++t) {
    int& place = place_of_[static_cast<std::size_t>(t)];
    if (place < 0) continue;
    place = count++;
    sampled_tokens_[place] = t;
    sampled_positions_[place] = positions_[t];
    sampled_rows_[place] = row_of_token_[t];
  }
  if (count == batch_.num_tokens) return;
  int place = 0;
  for (std::int32_t row = 0; row < batch_.num_rows; ++row) {
    sampled_begin_[row] = place;
    while (place < count && sampled_rows_[place] == row) ++place;
  }
  sampled_begin_[batch_.num_rows] = count;
  for (std::size_t i = 0; i < picks_.size(); ++i) {
    sampled_picks_[i] = place_of_[static_cast<std::size_t>(sample_tokens_[i])];
  }
  batch_.sampled = {.num_tokens = count,
                    .tokens = on_device(sampled_tokens_),
                    .positions = on_device(sampled_positions_),
                    .row_of_token = on_device(sampled_rows_),
                    .row_begin = on_device(sampled_begin_),
                    .sample_tokens = on_device(sampled_picks_)};
}

// One token a row, as in all rows before.
void BatchBuilder::pad(int first_row) {
  for (int b = first_row; b < batch_.num_rows; ++b) {
    tokens_[b] = positions_[b] = 0;
    row_of_token_[b] = sources_[b] = -1;
    row_begin_[b + 1] = first_row;
    context_[b] = 0;
    sample_tokens_[b] = b;
  }
}

// Runs of no rows make their number that of the rows, so that it says only whether there are any.
void BatchBuilder::share(int rows) {
  Batch host = batch_;
  host.num_rows = rows;
  host.row_begin = row_begin_;
  host.context = context_;
  host.block_tables = block_tables_;
  found_runs_.find(host);
  if (found_runs_.count() == 0) return;
  batch_.num_shared_runs = batch_.num_rows;
  std::fill_n(shared_runs_, 4 * batch_.num_rows, 0);
  std::fill_n(shared_of_row_, batch_.num_rows, 0);
  std::copy(found_runs_.runs().begin(), found_runs_.runs().end(), shared_runs_);
  std::copy(found_runs_.rows().begin(), found_runs_.rows().end(), shared_rows_);
  std::copy(found_runs_.of_row().begin(), found_runs_.of_row().end(), shared_of_row_);
}

void BatchBuilder::send(const TokenId* picked) {
  const auto* begin = static_cast<const std::int32_t*>(host_side());
  device_->copy(memory_.data(), begin,
                static_cast<std::size_t>(end_ - begin) * sizeof(std::int32_t));
  if (feeds_) {
    device_->ops().feed(on_device(tokens_), on_device(sources_), picked, batch_.num_tokens);
  }
}

const Batch& BatchBuilder::build(const StepPlan& plan, const SlotTable& slots,
                                 const TokenId* picked) {
  side_ = 1 - side_;
  const Counts counts = count(plan);
  const bool few_shapes = device_->keeps_records() && is_decode(plan);
  place(few_shapes ? rounded_up(counts) : counts);
  batch_.most_tokens = batch_.num_rows == counts.rows ? counts.most_tokens : 0;
  feeds_ = false;
  row_begin_[0] = 0;
  row_of_plan_.clear();
  int num_rows = 0;
  for (const PlanRow& row : plan.rows) {
    const bool has_tokens = row.num_tokens > 0;
    if (has_tokens) add_row(row, slots.at(row.slot), num_rows);
    row_of_plan_.push_back(has_tokens ? num_rows++ : -1);
  }
  add_picks(plan, slots);
  if (few_shapes) {
    pad(counts.rows);
  } else {
    add_sampled();
  }
  share(counts.rows);
  shape_ = few_shapes ? (static_cast<std::uint64_t>(batch_.num_rows) << 32) |
                            static_cast<std::uint64_t>(2 * batch_.max_blocks +
                                                       (batch_.num_shared_runs > 0 ? 1 : 0))
                      : 0;
  send(picked);
  return batch_;
}

}  // namespace quire
