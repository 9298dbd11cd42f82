// Packing moves words and changes no value (and adds the sums of pairs, panel.h): a line of a panel
// is one 4-byte word (f16: 2-byte) of each of 16 rows, so packing is a transpose; only q8_0 gets
// its sign bits flipped (+ 128). Formats without panels become another one first (transcode.h).
#include "kernels/cpu/pack.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/linear_job.h"
#include "kernels/cpu/transcode.h"
#include "kernels/formats/half.h"

namespace quire::cpu {
namespace {

int num_units(Format format, const Range& leaf) {
  const int columns = panel_unit(format).columns;
  return (leaf.size() + columns - 1) / columns;
}

// First bytes of the 16 rows of a panel; null for padding rows. Rows of a format without panels are
// transcoded into `room`.
struct PanelRows {
  const std::byte* row[kPanelRows] = {};
};

PanelRows panel_rows(const MatrixSource& source, int panel, std::vector<std::byte>& room) {
  const Format format = panel_format(source.format);
  const std::size_t bytes = row_bytes(format, source.columns);
  room.resize(format == source.format ? 0 : kPanelRows * bytes);
  PanelRows rows;
  int first = 0;  // of the part
  for (const MatrixPart& part : source.parts) {
    for (int i = 0; i < kPanelRows; ++i) {
      const int n = panel * kPanelRows + i - first;
      if (n < 0 || n >= part.rows) continue;
      rows.row[i] = part.data + static_cast<std::size_t>(n) * part.row_stride;
      if (format == source.format) continue;
      std::byte* to = room.data() + static_cast<std::size_t>(i) * bytes;
      transcode_row(source, part, n, to);
      rows.row[i] = to;
    }
    first += part.rows;
  }
  return rows;
}

// Word w of row i goes to 16 * w + i; `flip` is xored onto it.
template <class Word>
void interleave(const std::byte* words, int num_words, int i, std::byte* values, Word flip = 0) {
  for (int w = 0; w < num_words; ++w) {
    Word word;
    std::memcpy(&word, words + sizeof(Word) * static_cast<std::size_t>(w), sizeof(Word));
    word ^= flip;
    std::memcpy(values + sizeof(Word) * static_cast<std::size_t>(kPanelRows * w + i), &word,
                sizeof(Word));
  }
}

// One block of row i: d, q4_1's m, and the values.
void pack_block(Format format, const std::byte* block, int i, std::byte* values,
                std::byte* headers) {
  std::memcpy(headers + 2 * i, block, 2);
  if (format == Format::kQ4_1) std::memcpy(headers + 32 + 2 * i, block + 2, 2);
  if (format == Format::kQ8_0) return interleave(block + 2, 8, i, values, 0x80808080u);
  interleave<std::uint32_t>(block + (format == Format::kQ4_1 ? 4 : 2), 4, i, values);
}

// `columns` elements of row i, a leaf.
void pack_leaf(Format format, const std::byte* stored, int columns, int i, std::byte* values,
               std::byte* headers) {
  const PanelUnit& unit = panel_unit(format);
  switch (format) {
    case Format::kF32:
      return interleave<std::uint32_t>(stored, columns, i, values);
    case Format::kF16:
      return interleave<std::uint16_t>(stored, columns, i, values);
    case Format::kBf16: {  // pairs of k; an odd last one is half a pair
      const int pairs = columns / 2;
      interleave<std::uint32_t>(stored, pairs, i, values);
      if (columns % 2 != 0) {
        std::memcpy(values + 4 * (kPanelRows * pairs + i), stored + 4 * pairs, 2);
      }
      return;
    }
    case Format::kQ8_0:
    case Format::kQ4_0:
    case Format::kQ4_1:
      for (int k = 0; k < columns; k += unit.columns) {
        pack_block(format, stored + row_bytes(format, k), i, values, headers);
        values += unit.value_bytes;
        headers += unit.header_bytes;
      }
      return;
    default:
      QUIRE_CHECK(has_panels(format));
  }
}

void pack_panel(const MatrixSource& source, const PanelLayout& layout, int panel,
                std::vector<std::byte>& room, std::byte* packed) {
  const Format format = panel_format(source.format);
  const PanelUnit& unit = panel_unit(format);
  const PanelRows rows = panel_rows(source, panel, room);
  std::byte* values = packed;
  std::byte* headers = packed + layout.header_offset;
  for (const Range& leaf : source.sum.leaves) {
    for (int i = 0; i < kPanelRows; ++i) {
      if (rows.row[i] == nullptr) continue;
      pack_leaf(format, rows.row[i] + row_bytes(format, leaf.begin), leaf.size(), i, values,
                headers);
    }
    const int units = num_units(format, leaf);
    values += units * unit.value_bytes;
    headers += units * unit.header_bytes;
  }
}

// Elements 0 .. count - 1 of row i of a unit, the exact values of the format.
void unpack_unit(Format format, const std::byte* values, const std::byte* headers, int i, int count,
                 float* out) {
  const std::byte* row = values + 4 * i;  // its word of the first line
  const auto byte_of = [row](int j) { return static_cast<int>(row[j / 4 * 64 + j % 4]); };
  const auto nibble = [&byte_of](int j) { return byte_of(j % 16) >> (j / 16 * 4) & 15; };
  switch (format) {
    case Format::kF32:
      std::memcpy(out, row, 4);
      return;
    case Format::kF16:
      *out = load_half(values + 2 * i);
      return;
    case Format::kBf16:
      for (int j = 0; j < count; ++j) {
        Bf16 x;
        std::memcpy(&x.bits, row + 2 * j, 2);
        out[j] = to_float(x);
      }
      return;
    case Format::kQ8_0: {
      const float d = load_half(headers + 2 * i);
      for (int j = 0; j < count; ++j) out[j] = d * static_cast<float>(byte_of(j) - 128);
      return;
    }
    case Format::kQ4_0: {
      const float d = load_half(headers + 2 * i);
      for (int j = 0; j < count; ++j) out[j] = d * static_cast<float>(nibble(j) - 8);
      return;
    }
    case Format::kQ4_1: {
      const float d = load_half(headers + 2 * i), m = load_half(headers + 32 + 2 * i);
      for (int j = 0; j < count; ++j) out[j] = d * static_cast<float>(nibble(j)) + m;
      return;
    }
    default:
      QUIRE_CHECK(has_panels(format));
  }
}

// What (x1 + y2 + 113) * (x2 + y1 - 15) has that belongs to the weights alone, for every byte x1 +
// 16 * x2.
constexpr std::array<std::int16_t, 256> pair_terms() {
  std::array<std::int16_t, 256> terms = {};
  for (int x1 = 0; x1 < 16; ++x1) {
    for (int x2 = 0; x2 < 16; ++x2) {
      terms[static_cast<std::size_t>(x1 + 16 * x2)] =
          static_cast<std::int16_t>(x1 * x2 + kPairOtherOffset * x1 + kPairOffset * x2);
    }
  }
  return terms;
}

// Their sums over the pairs of a unit, negated: at most 12 * 113 * 15 < 2^15.
void pair_sums(const std::byte* values, std::int16_t* out) {
  static constexpr std::array<std::int16_t, 256> kTerms = pair_terms();
  for (int i = 0; i < kPanelRows; ++i) {
    int sum = 0;
    for (int line = 0; line < kPairLines; ++line) {
      const std::byte* four = values + 64 * line + 4 * i;
      for (int j = 0; j < 4; ++j) sum += kTerms[static_cast<std::size_t>(four[j])];
    }
    out[i] = static_cast<std::int16_t>(-sum);
  }
}

bool has_pair_sums(Format format, Isa isa, ActivationLayout input) {
  return is_nibbles(format) && isa != Isa::kAvx2 && input == ActivationLayout::kQ8;
}

int total_rows(const MatrixSource& source) {
  int rows = 0;
  for (const MatrixPart& part : source.parts) rows += part.rows;
  return rows;
}

ActivationLayout input_layout(Format format, Isa isa, bool float32) {
  if (float32 || format == Format::kF32 || format == Format::kF16) return ActivationLayout::kF32;
  if (format != Format::kBf16) return ActivationLayout::kQ8;
  return isa == Isa::kAvx512 ? ActivationLayout::kBf16 : ActivationLayout::kF32;
}

}  // namespace

PanelLayout panel_layout(Format format, const SumPlan& sum, int rows) {
  const PanelUnit& unit = panel_unit(format);
  std::size_t units = 0;
  for (const Range& leaf : sum.leaves) units += static_cast<std::size_t>(num_units(format, leaf));
  PanelLayout layout;
  layout.num_panels = (rows + kPanelRows - 1) / kPanelRows;
  layout.num_units = units;
  layout.header_offset = units * static_cast<std::size_t>(unit.value_bytes);
  layout.panel_bytes =
      align64(layout.header_offset + units * static_cast<std::size_t>(unit.header_bytes));
  return layout;
}

absl::StatusOr<PackedShape> packed_shape(const MatrixSource& source, Isa isa, bool float32) {
  QUIRE_RETURN_IF_ERROR(check_source(source));
  const Format format = panel_format(source.format);
  if (format != source.format) {  // panels may be coarser: of i8, cut inside a block of q8_0
    MatrixSource packed{format, source.columns, {}, source.sum};
    QUIRE_RETURN_IF_ERROR(check_source(packed));
  }
  const ActivationLayout input = input_layout(format, isa, float32);
  if (input == ActivationLayout::kQ8 && source.columns > kMaxPackedColumns) {
    return absl::InvalidArgumentError(
        absl::StrCat("a ", traits(source.format).name, " matrix of ", source.columns,
                     " columns is wider than the CPU's products take (", kMaxPackedColumns,
                     "); use --dtype float32 or a format without blocks."));
  }
  const PanelLayout layout = panel_layout(format, source.sum, total_rows(source));
  return PackedShape{layout.pair_sums_offset() +
                         (has_pair_sums(format, isa, input) ? layout.pair_sums_bytes() : 0),
                     input};
}

void pack(const MatrixSource& source, Isa isa, Weight& weight) {
  weight.format = panel_format(source.format);
  weight.rows = total_rows(source);
  weight.columns = source.columns;
  weight.sum = source.sum;
  const PanelLayout layout = panel_layout(weight.format, source.sum, weight.rows);
  std::vector<std::byte> room;
  auto* packed = static_cast<std::byte*>(weight.data);
  auto* sums = reinterpret_cast<std::int16_t*>(packed + layout.pair_sums_offset());
  for (int panel = 0; panel < layout.num_panels; ++panel, packed += layout.panel_bytes) {
    pack_panel(source, layout, panel, room, packed);
    if (!has_pair_sums(weight.format, isa, weight.input)) continue;
    for (std::size_t unit = 0; unit < layout.num_units; ++unit, sums += kPanelRows) {
      pair_sums(packed + unit * static_cast<std::size_t>(panel_unit(weight.format).value_bytes),
                sums);
    }
  }
}

void unpack_row(Isa, const Weight& weight, int n, float* out) {
  QUIRE_CHECK_LE(0, n);
  QUIRE_CHECK_LT(n, weight.rows);
  const PanelUnit& unit = panel_unit(weight.format);
  const PanelLayout layout = panel_layout(weight.format, weight.sum, weight.rows);
  const std::byte* values = static_cast<const std::byte*>(weight.data) +
                            static_cast<std::size_t>(n / kPanelRows) * layout.panel_bytes;
  const std::byte* headers = values + layout.header_offset;
  for (const Range& leaf : weight.sum.leaves) {
    for (int k = leaf.begin; k < leaf.end; k += unit.columns) {
      unpack_unit(weight.format, values, headers, n % kPanelRows,
                  std::min(unit.columns, leaf.end - k), out + k);
      values += unit.value_bytes;
      headers += unit.header_bytes;
    }
  }
}

}  // namespace quire::cpu
