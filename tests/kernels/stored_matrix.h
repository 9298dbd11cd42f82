// A random N x K matrix as a checkpoint stores it, in any format, and what it means as floats: what
// every backend's tests of packing, products and embeddings begin with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/formats/table.h"
#include "kernels/weight.h"

namespace quire::test {

inline std::vector<Format> all_formats() {
  std::vector<Format> formats;
  for (std::size_t i = 0; i < std::size(kFormatTraits); ++i) {
    formats.push_back(static_cast<Format>(i));
  }
  return formats;
}

struct StoredMatrix {
  // `first_column`: of a superblock whose columns before it are another rank's.
  StoredMatrix(Format format_, int rows_, int columns_, unsigned seed, int first_column_ = 0)
      : format(format_), rows(rows_), columns(columns_), first_column(first_column_) {
    const int block = traits(format).block;
    const int stored = (first_column + columns + block - 1) / block * block;
    stride = row_bytes(format, stored);
    bytes.resize(size(rows) * stride);
    values.resize(size(rows) * size(columns));
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x(size(stored));
    for (int n = 0; n < rows; ++n) {
      for (float& v : x) v = normal(random);
      encode_row(n, x);
    }
  }

  // In two parts, as stacked matrices are.
  std::vector<MatrixPart> parts() const {
    const int cut = rows / 3;
    MatrixPart first{bytes.data(), stride, cut};
    MatrixPart second{bytes.data() + size(cut) * stride, stride, rows - cut};
    if (has_row_scales(format)) {
      first.row_scales = row_scales.data();
      second.row_scales = row_scales.data() + cut;
    }
    return {first, second};
  }
  MatrixSource source(SumPlan plan) const {
    return {format, columns, parts(), std::move(plan), first_column};
  }
  std::vector<float> row(int n) const {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(size(n) * size(columns));
    return {first, first + columns};
  }

  Format format;
  int rows, columns, first_column;
  std::size_t stride = 0;
  std::vector<std::byte> bytes;
  std::vector<float> row_scales;  // [N], where the format has them
  std::vector<float> values;      // [N][K], decoded

 private:
  static std::size_t size(int x) { return static_cast<std::size_t>(x); }

  void encode_row(int n, std::vector<float>& x) {
    std::byte* to = bytes.data() + size(n) * stride;
    float* decoded = values.data() + size(n) * size(columns);
    if (has_row_scales(format)) scale_row(n, x);
    formats::encode_row(format, x.data(), static_cast<int>(x.size()), to);
    formats::decode_columns(format, to, first_column, columns, decoded);
    if (!has_row_scales(format)) return;
    for (int k = 0; k < columns; ++k) decoded[k] *= row_scales.back();
  }

  // To the format's range, rows by different factors; some numbers become subnormal in f8.
  void scale_row(int n, std::vector<float>& x) {
    const float range = format == Format::kI8 ? 127.0f : 448.0f;
    float largest = 1e-6f;
    for (const float v : x) largest = std::max(largest, std::fabs(v));
    for (std::size_t k = 0; k < x.size(); ++k) {
      x[k] *= range / largest * (format == Format::kF8E4M3 && k % 5 == 0 ? 0x1p-13f : 1.0f);
    }
    row_scales.push_back(largest / range * static_cast<float>(1 + n % 7));
  }
};

}  // namespace quire::test
