// Sizes here bound work items, never results: see attention_tile.h for what fixes the bits.
#include "kernels/cpu/attention_work.h"

#include <algorithm>

#include "common/check.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/share.h"

namespace quire::cpu {
namespace {

// Query tokens times heads that share one pass over K and V.
constexpr int kRowsPerItem = 48;
constexpr int kLeastRowsPerItem = 12;
constexpr int kItemsPerThread = 3;
constexpr int kLongContext = 4096;
constexpr int kLeastRowsEach = 4;  // of a thread: cuts between sequences are uneven
constexpr int kSplitsPerItem = 4;  // of one token, where there are many rows

constexpr int padded(int head_dim) {
  return (head_dim + 15) / 16 * 16;
}
constexpr int key_dim(DType dtype, int head_dim) {
  const int unit = dtype == DType::kI8 ? 4 : 2;
  return (head_dim + unit - 1) / unit * unit;
}
int most_tokens_per_tile(const AttentionSpec& spec) {
  return std::max(1, kRowsPerItem / spec.group_heads);
}
int divided(int a, int b) {  // rounded up
  return (a + b - 1) / b;
}
// The split of the first position that a token at `position` sees.
int first_split(const AttentionSpec& spec, int position) {
  return first_seen(spec.window, position) / kSplitPositions;
}
int max_splits(const Batch& batch) {
  return (batch.max_blocks * batch.block_size + kSplitPositions - 1) / kSplitPositions;
}

template <class T>
void grow(std::vector<T>& buffer, std::size_t size) {
  if (buffer.size() < size) buffer = std::vector<T>(size);
}

}  // namespace

std::size_t kv_head_bytes(DType dtype, int head_dim, int block_size) {
  const std::size_t scales = dtype == DType::kI8 ? 2 * sizeof(float) : 0;
  const auto elements = static_cast<std::size_t>(key_dim(dtype, head_dim) + padded(head_dim));
  return (elements * size_of(dtype) + scales) * static_cast<std::size_t>(block_size);
}

std::size_t kv_block_bytes(DType dtype, int num_kv_heads, int head_dim, int block_size) {
  return static_cast<std::size_t>(num_kv_heads) * kv_head_bytes(dtype, head_dim, block_size);
}

int first_row_from(const Batch& batch, int token) {
  const std::int32_t* begin = batch.row_begin;
  return static_cast<int>(std::lower_bound(begin, begin + batch.num_rows, token) - begin);
}

int first_seen(int window, int position) {
  return window > 0 ? std::max(0, position + 1 - window) : 0;
}

KvHead kv_head(const KvLayer& kv) {
  return {.arena = kv.data,
          .block_bytes = kv.block_bytes,
          .head_offset = 0,
          .dtype = kv.dtype,
          .head_dim = kv.head_dim,
          .key_dim = key_dim(kv.dtype, kv.head_dim),
          .padded_dim = padded(kv.head_dim),
          .block_size = kv.block_size};
}

void AttentionScratch::reserve(const AttentionSpec& spec, const Batch& batch,
                               bool rows_need_conversion) {
  const int rows = std::max(kRowsPerItem, spec.group_heads);
  const int dim = padded(spec.head_dim);
  for (std::vector<float>& floats : per_thread_) {
    grow(floats, attend_scratch_floats(rows, dim) + 16);
  }
  const auto tokens = static_cast<std::size_t>(batch.num_tokens);
  const auto heads = static_cast<std::size_t>(spec.num_heads);
  if (rows_need_conversion) grow(rows_, tokens * heads * static_cast<std::size_t>(spec.head_dim));
  if (per_thread_.size() > 1) {
    grow(partials_, static_cast<std::size_t>(batch.num_rows) *
                        static_cast<std::size_t>(max_splits(batch)) * heads * partial_stride(dim));
  }
  if (done_.size() < tokens) done_ = std::vector<std::atomic<int>>(tokens);
}

AttentionWork::AttentionWork(const VectorOps& ops, const float* qkv, const AttentionSpec& spec,
                             const Batch& batch, const KvLayer& kv, const Activation& out,
                             AttentionScratch& scratch)
    : ops_(ops),
      qkv_(qkv),
      spec_(spec),
      batch_(batch),
      kv_(kv),
      out_(row_target(out)),
      scratch_(scratch),
      convert_(out.layout != ActivationLayout::kF32 || out.columns % 16 != 0) {
  QUIRE_CHECK_EQ(out.columns, spec.num_heads * spec.head_dim);
  QUIRE_CHECK_EQ(kv.num_kv_heads, spec.num_kv_heads);
  QUIRE_CHECK_EQ(kv.head_dim, spec.head_dim);
  QUIRE_CHECK_EQ(kv.block_size, batch.block_size);
  QUIRE_CHECK_EQ(kv.block_size % 16, 0);
  scratch_.reserve(spec, batch, convert_);
}

AttentionWork::Row AttentionWork::row_at(int index, int num_threads) const {
  Row row{.index = index,
          .begin = batch_.row_begin[index],
          .end = batch_.row_begin[index + 1],
          .tiles = 0,
          .tile_tokens = 1,
          .splits = 1,
          .head_items = spec_.num_kv_heads};
  const int tokens = row.end - row.begin;
  // Tiles of about equal size, as large as may be: each reads all K and V before it. But so many
  // that no thread waits long for another's last item.
  const int most = most_tokens_per_tile(spec_);
  const int least = std::min(most, divided(kLeastRowsPerItem, spec_.group_heads));
  const int busy = divided(kItemsPerThread * num_threads, std::max(1, spec_.num_kv_heads));
  const int tiles = std::max(divided(tokens, most), std::min(busy, tokens / least));
  row.tile_tokens = std::max(1, divided(tokens, std::max(1, tiles)));
  row.tiles = divided(tokens, row.tile_tokens);
  if (tokens != 1) return row;
  const bool many_rows = batch_.num_rows >= 4 * num_threads;
  if (num_threads > 1) {
    const int position = batch_.positions[row.begin];
    row.first_split = first_split(spec_, position);
    row.splits = position / kSplitPositions + 1 - row.first_split;
    if (many_rows && row.splits <= kSplitsPerItem) row.splits = 1;
  }
  // With enough rows to keep all threads busy one item takes all heads: their K and V are
  // neighbours in memory and are read ahead from one head to the next.
  if (many_rows) row.head_items = 1;
  return row;
}

// Prompts first: their items are the largest, and single tokens then fill what threads wait for.
void AttentionWork::run(int thread, int num_threads) {
  int wanted = next_->fetch_add(1, std::memory_order_relaxed);
  int first = 0;  // number of items before this row's
  for (const bool prompts : {true, false}) {
    for (int index = 0; index < batch_.num_rows; ++index) {
      if ((batch_.row_begin[index + 1] - batch_.row_begin[index] > 1) != prompts) continue;
      const Row row = row_at(index, num_threads);
      const int items = row.tiles * row.items_per_tile();
      while (wanted < first + items) {
        run_item(row, wanted - first, thread);
        wanted = next_->fetch_add(1, std::memory_order_relaxed);
      }
      first += items;
    }
  }
}

bool AttentionWork::divides_rows(const Batch& batch, int num_threads) {
  return batch.most_tokens > 0 && cpu::divides_rows(batch.num_tokens, num_threads) &&
         batch.num_tokens >= kLeastRowsEach * batch.most_tokens * num_threads &&
         batch.max_blocks * batch.block_size <= kLongContext;
}

void AttentionWork::run_rows(Range tokens, int thread) {
  const int end = first_row_from(batch_, tokens.end);
  for (int index = first_row_from(batch_, tokens.begin); index < end; ++index) {
    Row row = row_at(index, 1);
    row.head_items = 1;
    for (int item = 0; item < row.tiles; ++item) run_item(row, item, thread);
  }
}

float* AttentionWork::partial_of(int row, int split) const {
  const auto index = static_cast<std::size_t>(row * max_splits(batch_) + split) *
                     static_cast<std::size_t>(spec_.num_heads);
  return scratch_.partials() + index * partial_stride(padded(spec_.head_dim));
}

void AttentionWork::run_item(const Row& row, int item, int thread) {
  const int split = row.first_split + item % row.splits;
  const int head_item = item / row.splits % row.head_items;
  const int tile = row.tiles - 1 - item / row.items_per_tile();  // the longest context first
  const int token = row.begin + tile * row.tile_tokens;
  const int num_tokens = std::min(row.tile_tokens, row.end - token);
  AttendJob job{
      .num_tokens = num_tokens,
      .positions = batch_.positions + token,
      .block_table = batch_.block_tables + static_cast<std::size_t>(row.index) *
                                               static_cast<std::size_t>(batch_.max_blocks),
      .kv = kv_head(kv_),
      .scale = spec_.scale,
      .window = spec_.window,
      .soft_cap = spec_.soft_cap,
      .split_begin = split,
      .split_end = split + 1,
      .scratch = scratch_.of_thread(thread)};
  if (row.splits == 1) {
    job.split_begin = first_split(spec_, batch_.positions[token]);
    job.split_end = batch_.positions[token + num_tokens - 1] / kSplitPositions + 1;
  } else {
    job.partial = partial_of(row.index, split);
  }
  const int heads_each = spec_.num_kv_heads / row.head_items;
  for (int g = head_item * heads_each; g < (head_item + 1) * heads_each; ++g) {
    const bool more = g + 1 < (head_item + 1) * heads_each;
    run_head(job, token, g, more ? g + 1 : g);
  }
  std::atomic<int>& done = scratch_.done(token);
  if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == row.items_per_tile()) {
    done.store(0, std::memory_order_relaxed);
    finish_tile(row, token, num_tokens);
  }
}

void AttentionWork::run_head(AttendJob job, int token, int g, int next_g) {
  // The local query heads of KV head g: a rank may hold only a part of a group.
  const int group_begin = (spec_.first_kv_head + g) * spec_.group_heads - spec_.first_head;
  const int head = std::max(0, group_begin);
  job.num_heads = std::min(spec_.num_heads, group_begin + spec_.group_heads) - head;
  if (job.num_heads <= 0) return;
  const int column = head * spec_.head_dim;
  job.q_stride =
      static_cast<std::size_t>((spec_.num_heads + 2 * spec_.num_kv_heads) * spec_.head_dim);
  job.q = qkv_ + static_cast<std::size_t>(token) * job.q_stride + column;
  const std::size_t head_bytes = kv_head_bytes(kv_.dtype, kv_.head_dim, kv_.block_size);
  job.kv.head_offset = static_cast<std::size_t>(g) * head_bytes;
  job.next_head_offset = static_cast<std::size_t>(next_g) * head_bytes;
  job.out_stride = row_stride();
  job.out = rows() + static_cast<std::size_t>(token) * job.out_stride + column;
  if (job.partial != nullptr) {
    job.partial += static_cast<std::size_t>(head) * partial_stride(job.kv.padded_dim);
  }
  ops_.attend(job);
}

float* AttentionWork::rows() const {
  return convert_ ? scratch_.rows() : reinterpret_cast<float*>(out_.data);
}

std::size_t AttentionWork::row_stride() const {
  return convert_ ? static_cast<std::size_t>(spec_.num_heads * spec_.head_dim)
                  : out_.stride / sizeof(float);
}

void AttentionWork::finish_tile(const Row& row, int first_token, int num_tokens) {
  const int d = spec_.head_dim;
  const std::size_t stride = row_stride();
  if (row.splits > 1) {
    const std::size_t partial = partial_stride(padded(d));
    for (int h = 0; h < spec_.num_heads; ++h) {
      ops_.merge_splits(
          partial_of(row.index, row.first_split) + static_cast<std::size_t>(h) * partial,
          static_cast<std::size_t>(spec_.num_heads) * partial, row.splits, d, padded(d),
          rows() + static_cast<std::size_t>(first_token) * stride + h * d);
    }
  }
  if (!convert_) return;
  for (int t = first_token; t < first_token + num_tokens; ++t) {
    ops_.store_row(rows() + static_cast<std::size_t>(t) * stride, out_, t);
  }
}

}  // namespace quire::cpu
