// Packing moves words and changes no value: a line of a panel is one 4-byte word (f16: 2-byte) of
// each of 16 rows, so packing is a transpose; only q8_0 gets its sign bits flipped (+ 128).
#include "kernels/cpu/pack.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/linear.h"
#include "kernels/formats/half.h"

namespace quire::cpu {
namespace {

int num_units(Format format, const SumPlan& sum) {
  const int columns = panel_unit(format).columns;
  int units = 0;
  for (const Range& leaf : sum.leaves) units += (leaf.size() + columns - 1) / columns;
  return units;
}

// First bytes of the 16 rows of a panel; null for padding rows.
struct PanelRows {
  const std::byte* row[kPanelRows] = {};
};

PanelRows panel_rows(const MatrixSource& source, int panel) {
  PanelRows rows;
  int first = 0;  // of the part
  for (const MatrixPart& part : source.parts) {
    for (int i = 0; i < kPanelRows; ++i) {
      const int n = panel * kPanelRows + i - first;
      if (n < 0 || n >= part.rows) continue;
      rows.row[i] = part.data + static_cast<std::size_t>(n) * part.row_stride;
    }
    first += part.rows;
  }
  return rows;
}

// Word w of row i of a unit goes to 16 * w + i; `flip` is xored onto it.
template <class Word>
void interleave(const std::byte* words, int num_words, Word flip, int i, std::byte* unit) {
  for (int w = 0; w < num_words; ++w) {
    Word word;
    std::memcpy(&word, words + sizeof(Word) * static_cast<std::size_t>(w), sizeof(Word));
    word ^= flip;
    std::memcpy(unit + sizeof(Word) * static_cast<std::size_t>(kPanelRows * w + i), &word,
                sizeof(Word));
  }
}

// One unit of row i; `columns` of it are there (the others stay zero).
void pack_unit(Format format, const std::byte* stored, int columns, int i, std::byte* values,
               std::byte* headers) {
  const std::size_t place = 2 * static_cast<std::size_t>(i);
  switch (format) {
    case Format::kF32:
      return interleave<std::uint32_t>(stored, 1, 0, i, values);
    case Format::kF16:
      return interleave<std::uint16_t>(stored, 1, 0, i, values);
    case Format::kBf16:  // a pair of k, or half of one
      std::memcpy(values + 4 * static_cast<std::size_t>(i), stored,
                  2 * static_cast<std::size_t>(columns));
      return;
    case Format::kQ8_0:
      std::memcpy(headers + place, stored, 2);
      return interleave<std::uint32_t>(stored + 2, 8, 0x80808080u, i, values);
    case Format::kQ4_0:
      std::memcpy(headers + place, stored, 2);
      return interleave<std::uint32_t>(stored + 2, 4, 0, i, values);
    case Format::kQ4_1:
      std::memcpy(headers + place, stored, 2);
      std::memcpy(headers + 32 + place, stored + 2, 2);
      return interleave<std::uint32_t>(stored + 4, 4, 0, i, values);
  }
}

void pack_panel(const MatrixSource& source, const PanelLayout& layout, int panel,
                std::byte* packed) {
  const PanelUnit& unit = panel_unit(source.format);
  const PanelRows rows = panel_rows(source, panel);
  std::byte* values = packed;
  std::byte* headers = packed + layout.header_offset;
  for (const Range& leaf : source.sum.leaves) {
    for (int k = leaf.begin; k < leaf.end; k += unit.columns) {
      const std::size_t offset = row_bytes(source.format, k);
      for (int i = 0; i < kPanelRows; ++i) {
        if (rows.row[i] == nullptr) continue;
        pack_unit(source.format, rows.row[i] + offset, std::min(unit.columns, leaf.end - k), i,
                  values, headers);
      }
      values += unit.value_bytes;
      headers += unit.header_bytes;
    }
  }
}

// Element `j` of row i of a unit, the exact value of the format.
float unpack_element(Format format, const std::byte* values, const std::byte* headers, int i,
                     int j) {
  const std::size_t place = static_cast<std::size_t>(i);
  const auto byte_of = [&](int line, int byte) {
    return static_cast<int>(
        values[64 * static_cast<std::size_t>(line) + 4 * place + static_cast<std::size_t>(byte)]);
  };
  const auto nibble = [&] { return (byte_of(j % 16 / 4, j % 4) >> (j / 16 * 4)) & 15; };
  switch (format) {
    case Format::kF32: {
      float x;
      std::memcpy(&x, values + 4 * place, 4);
      return x;
    }
    case Format::kF16:
      return load_half(values + 2 * place);
    case Format::kBf16: {
      Bf16 x;
      std::memcpy(&x.bits, values + 4 * place + 2 * static_cast<std::size_t>(j), 2);
      return to_float(x);
    }
    case Format::kQ8_0:
      return load_half(headers + 2 * place) * static_cast<float>(byte_of(j / 4, j % 4) - 128);
    case Format::kQ4_0:
      return load_half(headers + 2 * place) * static_cast<float>(nibble() - 8);
    case Format::kQ4_1:
      return load_half(headers + 2 * place) * static_cast<float>(nibble()) +
             load_half(headers + 32 + 2 * place);
  }
  return 0.0f;
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
  const auto units = static_cast<std::size_t>(num_units(format, sum));
  PanelLayout layout;
  layout.num_panels = (rows + kPanelRows - 1) / kPanelRows;
  layout.num_units = units;
  layout.header_offset = units * static_cast<std::size_t>(unit.value_bytes);
  layout.panel_bytes =
      align64(layout.header_offset + units * static_cast<std::size_t>(unit.header_bytes));
  return layout;
}

absl::StatusOr<PackedShape> packed_shape(const MatrixSource& source, Isa isa, bool float32) {
  const FormatTraits& format = traits(source.format);
  if (source.columns % format.block != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        format.name, " stores ", format.block, " columns together, but this matrix has ",
        source.columns, " columns; use another format or another cut."));
  }
  for (const Range& leaf : source.sum.leaves) {
    QUIRE_CHECK_LE(0, leaf.begin);
    QUIRE_CHECK_LE(leaf.begin, leaf.end);
    QUIRE_CHECK_LE(leaf.end, source.columns);
    if (leaf.begin % format.block == 0 && leaf.end % format.block == 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "columns ", leaf.begin, " to ", leaf.end, " are summed on their own, which splits a ",
        format.name, " block of ", format.block,
        "; use a format without blocks, or one whose blocks divide this width."));
  }
  const PanelLayout layout = panel_layout(source.format, source.sum, total_rows(source));
  return PackedShape{static_cast<std::size_t>(layout.num_panels) * layout.panel_bytes,
                     input_layout(source.format, isa, float32)};
}

void pack(const MatrixSource& source, Isa, Weight& weight) {
  weight.format = source.format;
  weight.rows = total_rows(source);
  weight.columns = source.columns;
  weight.sum = source.sum;
  const PanelLayout layout = panel_layout(source.format, source.sum, weight.rows);
  auto* packed = static_cast<std::byte*>(weight.data);
  for (int panel = 0; panel < layout.num_panels; ++panel, packed += layout.panel_bytes) {
    pack_panel(source, layout, panel, packed);
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
    for (int k = leaf.begin; k < leaf.end; ++k) {
      const int j = (k - leaf.begin) % unit.columns;
      out[k] = unpack_element(weight.format, values, headers, n % kPanelRows, j);
      if (j + 1 < unit.columns && k + 1 < leaf.end) continue;
      values += unit.value_bytes;
      headers += unit.header_bytes;
    }
  }
}

}  // namespace quire::cpu
