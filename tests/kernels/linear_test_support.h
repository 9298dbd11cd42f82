// Random matrices and activations for the tests of kernels/cpu/linear.h, with what they mean as
// plain floats, and a product in double precision.
#pragma once

#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear.h"
#include "kernels/formats/half.h"
#include "kernels/formats/table.h"

namespace quire::test {

inline const std::vector<Format> kAllFormats = {Format::kF32,  Format::kF16,  Format::kBf16,
                                                Format::kQ8_0, Format::kQ4_0, Format::kQ4_1};

inline std::vector<cpu::Isa> available_isas() {
  std::vector<cpu::Isa> isas;
  for (const cpu::Isa isa : {cpu::Isa::kAvx2, cpu::Isa::kAvx512Vnni, cpu::Isa::kAvx512}) {
    if (cpu::choose_isa(cpu::name_of(isa)).ok()) isas.push_back(isa);
  }
  return isas;
}

struct Freed {
  void operator()(std::byte* p) const { std::free(p); }
};
using Memory = std::unique_ptr<std::byte, Freed>;

// Zeroed and 64-byte aligned, as Device::allocate gives it.
inline Memory zeroed(std::size_t bytes) {
  const std::size_t size = cpu::align64(bytes + 1);
  Memory memory(static_cast<std::byte*>(std::aligned_alloc(64, size)));
  std::fill_n(memory.get(), size, std::byte{0});
  return memory;
}

inline std::vector<float> random_floats(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& v : x) v = normal(random);
  return x;
}

// An N x K matrix as a checkpoint stores it.
struct Stored {
  Format format;
  int rows;
  int columns;
  std::vector<std::byte> bytes;
  std::vector<float> values;  // [N][K], decoded

  std::size_t stride() const { return row_bytes(format, columns); }
  MatrixSource source(SumPlan plan) const { return slice(std::move(plan), {0, columns}); }
  // Columns [range.begin, range.end) of it, as a rank of a row-parallel matrix reads them.
  MatrixSource slice(SumPlan plan, Range range) const {
    MatrixSource source;
    source.format = format;
    source.columns = range.size();
    source.parts = {{bytes.data() + row_bytes(format, range.begin), stride(), rows}};
    source.sum = std::move(plan);
    return source;
  }
};

inline Stored random_matrix(Format format, int rows, int columns, unsigned seed) {
  Stored m{format, rows, columns, {}, {}};
  const std::vector<float> x =
      random_floats(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns), seed);
  m.bytes.resize(m.stride() * static_cast<std::size_t>(rows));
  m.values.resize(x.size());
  for (int n = 0; n < rows; ++n) {
    const std::size_t first = static_cast<std::size_t>(n) * static_cast<std::size_t>(columns);
    std::byte* row = m.bytes.data() + static_cast<std::size_t>(n) * m.stride();
    formats::encode_row(format, x.data() + first, columns, row);
    formats::decode_row(format, row, columns, m.values.data() + first);
  }
  return m;
}

struct Packed {
  Weight weight;
  Memory memory;
};

inline Packed pack_matrix(const MatrixSource& source, cpu::Isa isa, bool float32 = false) {
  const cpu::PackedShape shape = cpu::packed_shape(source, isa, float32).value();
  Packed packed;
  packed.memory = zeroed(shape.bytes);
  packed.weight.data = packed.memory.get();
  packed.weight.bytes = shape.bytes;
  packed.weight.input = shape.input;
  cpu::pack(source, isa, packed.weight);
  return packed;
}

// Rows of activations in some layout, and what they decode to.
struct Input {
  Activation activation;
  Memory memory;
  std::vector<float> values;  // [T][K]
};

inline void store_q8(const float* x, const Activation& a, int row, float* values) {
  const cpu::Q8Row q = cpu::q8_row(a, row);
  for (int b = 0; b < cpu::num_blocks32(a.columns); ++b) {
    const int end = std::min(a.columns, 32 * b + 32);
    float up = -INFINITY, down = -INFINITY;
    for (int k = 32 * b; k < end; ++k) up = std::max(up, x[k]), down = std::max(down, -x[k]);
    const float scale =
        std::max(std::max(up, down) / cpu::kLargestQ8, std::min(up, down) / -cpu::kSmallestQ8);
    q.scales[b] = up < down ? -scale : scale;
    q.sums[b] = 0;
    for (int k = 32 * b; k < end; ++k) {
      const float scaled = q.scales[b] == 0 ? 0 : x[k] / q.scales[b];
      q.values[k] = static_cast<std::int8_t>(std::nearbyint(scaled));
      q.sums[b] += q.values[k];
      values[k] = q.scales[b] * static_cast<float>(q.values[k]);
    }
  }
}

// x is [rows][stride]; the first `columns` of each row are taken.
inline Input make_input(ActivationLayout layout, const float* x, std::size_t stride, int rows,
                        int columns) {
  const std::size_t bytes = cpu::activation_stride(layout, columns);
  Input input{{nullptr, layout, rows, columns}, zeroed(bytes * static_cast<std::size_t>(rows)), {}};
  input.activation.data = input.memory.get();
  input.values.resize(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns));
  for (int t = 0; t < rows; ++t, x += stride) {
    float* values =
        input.values.data() + static_cast<std::size_t>(t) * static_cast<std::size_t>(columns);
    std::byte* row = input.memory.get() + static_cast<std::size_t>(t) * bytes;
    if (layout == ActivationLayout::kQ8) {
      store_q8(x, input.activation, t, values);
      continue;
    }
    for (int k = 0; k < columns; ++k) {
      const Bf16 rounded = to_bf16(x[k]);
      const bool bf16 = layout == ActivationLayout::kBf16;
      values[k] = bf16 ? to_float(rounded) : x[k];
      if (bf16) {
        std::memcpy(row + 2 * k, &rounded, 2);
      } else {
        std::memcpy(row + 4 * k, &x[k], 4);
      }
    }
  }
  return input;
}

// out[o][t][n], by `num_threads` shares one after the other.
inline std::vector<float> multiply(cpu::Isa isa, const Packed& packed, const Activation& in,
                                   int num_threads = 1, const float* bias = nullptr) {
  const auto rows = static_cast<std::size_t>(packed.weight.rows);
  const auto tokens = static_cast<std::size_t>(in.rows);
  std::vector<float> out(static_cast<std::size_t>(packed.weight.sum.num_outputs) * tokens * rows,
                         -12345.0f);
  cpu::LinearArgs args;
  args.weight = &packed.weight;
  args.in = in;
  args.bias = bias;
  args.out = out.data();
  args.out_stride = rows;
  args.out_subtree_stride = tokens * rows;
  for (int thread = 0; thread < num_threads; ++thread) {
    cpu::linear(isa, args, thread, num_threads);
  }
  return out;
}

// The largest |got - exact| over [T][N], in units of 2^-24 * sum |w a|: what one rounding of every
// product could cost is about 1 per element of K.
inline double worst_error(const Stored& m, const Input& in, const std::vector<float>& got) {
  double worst = 0;
  for (int t = 0; t < in.activation.rows; ++t) {
    for (int n = 0; n < m.rows; ++n) {
      double exact = 0, magnitude = 1e-30;
      for (int k = 0; k < m.columns; ++k) {
        const double product =
            static_cast<double>(m.values[static_cast<std::size_t>(n * m.columns + k)]) *
            static_cast<double>(in.values[static_cast<std::size_t>(t * m.columns + k)]);
        exact += product;
        magnitude += std::fabs(product);
      }
      const double error =
          std::fabs(static_cast<double>(got[static_cast<std::size_t>(t * m.rows + n)]) - exact);
      worst = std::max(worst, error / magnitude * 0x1p24);
    }
  }
  return worst;
}

}  // namespace quire::test
