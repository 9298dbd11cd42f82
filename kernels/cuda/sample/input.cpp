// The stretch: [rows] SampleWish, [adjusts] RowAdjust, [entries] AdjustEntry, [masks][words].
#include "kernels/cuda/sample/input.h"

#include <algorithm>

#include "common/check.h"
#include "kernels/cuda/sample/passes.h"

namespace quire::cuda {
namespace {

constexpr std::size_t kAlignment = 16;

template <class T>
std::size_t room(int count) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

int mask_words_of(const SampleShape& shape) {
  return shape.masks * static_cast<int>(sampling::mask_words(shape.vocab));
}

// Where the parts of a shape lie.
struct Places {
  std::size_t adjusts, entries, masks, end;

  explicit Places(const SampleShape& shape)
      : adjusts(room<SampleWish>(shape.rows)),
        entries(adjusts + room<RowAdjust>(shape.adjusts)),
        masks(entries + room<AdjustEntry>(shape.entries)),
        end(masks + room<std::uint32_t>(mask_words_of(shape))) {}
};

// Appends one row's adjustment after another.
class Writer {
 public:
  Writer(const SampleShape& shape, std::byte* to)
      : shape_(shape),
        adjusts_(reinterpret_cast<RowAdjust*>(to + Places(shape).adjusts)),
        entries_(reinterpret_cast<AdjustEntry*>(to + Places(shape).entries)),
        masks_(reinterpret_cast<std::uint32_t*>(to + Places(shape).masks)) {}

  // Returns its index.
  int add(int row, const LogitAdjustment& from) {
    QUIRE_CHECK_LT(used_.adjusts, shape_.adjusts);
    RowAdjust& adjust = adjusts_[used_.adjusts];
    adjust = {row,          used_.entries,   static_cast<int>(from.entries.size()),
              -1,           from.repetition, from.frequency,
              from.presence};
    QUIRE_CHECK_LE(used_.entries + adjust.num_entries, shape_.entries);
    for (const LogitEntry& entry : from.entries) {
      entries_[used_.entries++] = {entry.token, entry.bias, entry.count};
    }
    if (from.allowed != nullptr) {
      QUIRE_CHECK_LT(used_.masks, shape_.masks);
      const std::size_t words = sampling::mask_words(shape_.vocab);
      std::copy_n(from.allowed, words, masks_ + static_cast<std::size_t>(used_.masks) * words);
      adjust.mask = used_.masks++;
    }
    return used_.adjusts++;
  }

  void finish() { std::fill(adjusts_ + used_.adjusts, adjusts_ + shape_.adjusts, RowAdjust()); }

 private:
  const SampleShape& shape_;
  RowAdjust* adjusts_;
  AdjustEntry* entries_;
  std::uint32_t* masks_;
  SampleShape used_;
};

}  // namespace

SampleShape sample_shape(absl::Span<const SampleRow> rows, int vocab) {
  SampleShape shape;
  shape.rows = static_cast<int>(rows.size());
  shape.vocab = vocab;
  for (const SampleRow& row : rows) {
    if (row.adjustment == nullptr) continue;
    shape.adjusts += 1;
    shape.entries += static_cast<int>(row.adjustment->entries.size());
    shape.masks += row.adjustment->allowed != nullptr ? 1 : 0;
  }
  return shape;
}

bool any_filters(absl::Span<const SampleRow> rows) {
  return std::any_of(rows.begin(), rows.end(), [](const SampleRow& row) {
    return row.top_k > 0 || row.top_p < 1.0f || row.min_p > 0.0f;
  });
}

std::size_t sample_input_bytes(const SampleShape& shape) {
  return Places(shape).end;
}

void write_sample_input(absl::Span<const SampleRow> rows, const SampleShape& shape, void* to) {
  QUIRE_CHECK_LE(static_cast<int>(rows.size()), shape.rows);
  auto* wishes = static_cast<SampleWish*>(to);
  Writer writer(shape, static_cast<std::byte*>(to));
  for (std::size_t b = 0; b < rows.size(); ++b) {
    const SampleRow& row = rows[b];
    const int adjust =
        row.adjustment == nullptr ? -1 : writer.add(static_cast<int>(b), *row.adjustment);
    wishes[b] = {row.temperature,  row.top_p,    row.min_p,        row.top_k, row.seed,
                 row.sample_index, row.position, row.num_logprobs, adjust};
  }
  std::fill(wishes + rows.size(), wishes + shape.rows, SampleWish());
  writer.finish();
}

void use_sample_input(const SampleShape& shape, const void* input, SampleJob& job) {
  const auto* bytes = static_cast<const std::byte*>(input);
  const Places places(shape);
  job.num_rows = shape.rows;
  job.rows = static_cast<const SampleWish*>(input);
  job.num_adjusts = shape.adjusts;
  job.adjusts = reinterpret_cast<const RowAdjust*>(bytes + places.adjusts);
  job.entries = reinterpret_cast<const AdjustEntry*>(bytes + places.entries);
  job.masks = reinterpret_cast<const std::uint32_t*>(bytes + places.masks);
}

}  // namespace quire::cuda
