#include "tests/kernels/harness.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "kernels/cpu/activation.h"
#include "kernels/formats/half.h"

namespace quire::test {
namespace {

// q, k and v of one position, before rotation: a function of (sequence, position) alone.
std::vector<float> qkv_of(const AttentionCase& c, int sequence, int position) {
  const auto columns = static_cast<std::size_t>((c.num_heads + 2 * c.num_kv_heads) * c.head_dim);
  return random_floats(columns, static_cast<std::uint32_t>(sequence * 100003 + position + 1));
}

std::vector<float> rope_table(const AttentionCase& c, int positions) {
  std::vector<float> table;
  for (int p = 0; p < positions; ++p) {
    for (int i = 0; i < c.rope_dims / 2; ++i) {
      const double angle = p * std::pow(10000.0, -2.0 * i / c.rope_dims);
      table.push_back(static_cast<float>(std::cos(angle)));
      table.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return table;
}

// The flat arrays of one step.
struct StepArrays {
  std::vector<std::int32_t> positions, row_of_token, row_begin{0}, context;
  std::vector<BlockId> tables;
  std::vector<float> qkv;
  std::vector<std::pair<int, int>> sources;  // (sequence, position) of each token
};

class Schedule {
 public:
  explicit Schedule(const AttentionCase& c) : case_(c), done_(c.lengths.size()) {
    for (const int length : c.lengths) {
      width_ = std::max(width_, (length + c.block_size - 1) / c.block_size);
    }
    blocks_.resize(c.lengths.size() * static_cast<std::size_t>(width_));
    std::iota(blocks_.begin(), blocks_.end(), 1);  // block 0 belongs to nobody
    std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(7));
  }

  int width() const { return width_; }
  int num_blocks() const { return static_cast<int>(blocks_.size()) + 1; }

  StepArrays next(const Step& step) {
    StepArrays a;
    for (int s = 0; s < static_cast<int>(step.size()); ++s) {
      const int granted = step[static_cast<std::size_t>(s)];
      if (granted == 0) continue;
      int& done = done_[static_cast<std::size_t>(s)];
      for (int i = 0; i < granted; ++i, ++done) {
        a.positions.push_back(done);
        a.row_of_token.push_back(static_cast<std::int32_t>(a.context.size()));
        a.sources.emplace_back(s, done);
        const std::vector<float> row = qkv_of(case_, s, done);
        a.qkv.insert(a.qkv.end(), row.begin(), row.end());
      }
      a.row_begin.push_back(static_cast<std::int32_t>(a.positions.size()));
      a.context.push_back(done);
      const int first_seen = case_.window > 0 ? done - granted + 1 - case_.window : 0;
      for (int b = 0; b < width_; ++b) {  // entries beyond the context are no block at all
        const bool used = b * case_.block_size < done;
        const BlockId block = blocks_[static_cast<std::size_t>(s * width_ + b)];
        const bool seen = (b + 1) * case_.block_size > first_seen;
        a.tables.push_back(!used ? -1000000 : seen ? block : 0);
      }
    }
    return a;
  }

 private:
  const AttentionCase& case_;
  std::vector<int> done_;
  std::vector<BlockId> blocks_;
  int width_ = 0;
};

}  // namespace

std::unique_ptr<Device> open_backend(const std::string& name, int num_threads,
                                     const std::string& dtype) {
  DeviceOptions options;
  options.kind = name == "reference" ? "reference" : "cpu";
  options.isa = name == "reference" ? "auto" : name;
  options.dtype = dtype;
  options.num_threads = num_threads;
  auto device = open_device(options);
  return device.ok() ? *std::move(device) : nullptr;
}

std::vector<std::string> cpu_backends() {
  std::vector<std::string> names;
  for (const char* name : {"avx512", "avx512-vnni", "avx2"}) {
    if (open_backend(name, 1) != nullptr) names.emplace_back(name);
  }
  return names;
}

std::vector<float> random_floats(std::size_t count, std::uint32_t seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& x : values) x = normal(random);
  return values;
}

ActivationBuffer::ActivationBuffer(Device& device, ActivationLayout layout, int rows, int columns)
    : is_reference_(device.numerics_id().starts_with("reference")),
      bytes_(device, device.ops().activation_bytes(layout, rows, columns)),
      activation_{bytes_.data(), layout, rows, columns} {
  bytes_.poison();
}

std::vector<float> ActivationBuffer::floats() const {
  const Activation& a = activation_;
  std::vector<float> out;
  for (int t = 0; t < a.rows; ++t) {
    const std::vector<std::byte> row = row_bytes(t);
    for (int k = 0; k < a.columns; ++k) {
      const auto i = static_cast<std::size_t>(k);
      if (a.layout == ActivationLayout::kF32) {
        float x = 0.0f;
        std::memcpy(&x, row.data() + 4 * i, 4);
        out.push_back(x);
      } else if (a.layout == ActivationLayout::kBf16) {
        Bf16 x;
        std::memcpy(&x.bits, row.data() + 2 * i, 2);
        out.push_back(to_float(x));
      } else {
        const cpu::Q8Row q = cpu::q8_row(a, t);
        out.push_back(q.scales[k / 32] * static_cast<float>(q.values[k]));
      }
    }
  }
  return out;
}

std::vector<std::byte> ActivationBuffer::row_bytes(int row) const {
  const std::size_t stride = is_reference_
                                 ? static_cast<std::size_t>(activation_.columns) * sizeof(float)
                                 : cpu::activation_stride(activation_.layout, activation_.columns);
  const auto* base = static_cast<const std::byte*>(activation_.data);
  return {base + static_cast<std::size_t>(row) * stride,
          base + static_cast<std::size_t>(row + 1) * stride};
}

void ActivationBuffer::check_padding() const {
  const Activation& a = activation_;
  const auto k = static_cast<std::size_t>(a.columns);
  for (int t = 0; t < a.rows; ++t) {
    const std::vector<std::byte> row = row_bytes(t);
    const auto expect_zero = [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) ASSERT_EQ(row[i], std::byte{0}) << t << " " << i;
    };
    if (a.layout == ActivationLayout::kF32) {
      expect_zero(4 * k, row.size());
    } else if (a.layout == ActivationLayout::kBf16) {
      expect_zero(2 * k, row.size());
    } else {
      const cpu::Q8Row q = cpu::q8_row(a, t);
      const int blocks = cpu::num_blocks32(a.columns);
      for (int b = 0; b < blocks; ++b) {
        const std::int8_t* values = q.values + 32 * b;
        const int sum = std::accumulate(values, values + 32, 0);
        ASSERT_EQ(q.sums[b], sum);
        ASSERT_LE(*std::max_element(values, values + 32), cpu::kLargestQ8);
        ASSERT_GE(*std::min_element(values, values + 32), cpu::kSmallestQ8);
      }
      expect_zero(k, cpu::align64(k));
      const std::size_t scales = cpu::align64(k);
      const std::size_t used = static_cast<std::size_t>(blocks) * 4;
      const std::size_t array = cpu::align64(used);
      for (int i = 0; i < 2; ++i) {
        const std::size_t begin = scales + static_cast<std::size_t>(i) * array;
        expect_zero(begin + used, begin + array);
      }
    }
  }
}

void expect_near(const std::vector<float>& actual, const std::vector<float>& expected,
                 float absolute, float relative) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const float allowed = absolute + relative * std::fabs(expected[i]);
    ASSERT_LE(std::fabs(actual[i] - expected[i]), allowed)
        << "element " << i << ": " << actual[i] << " instead of " << expected[i];
  }
}

std::vector<Step> whole(const AttentionCase& c) {
  return {c.lengths};
}

std::vector<Step> chunked(const AttentionCase& c, int tokens) {
  std::vector<Step> steps;
  std::vector<int> left = c.lengths;
  while (std::any_of(left.begin(), left.end(), [](int n) { return n > 0; })) {
    Step step;
    for (int& n : left) {
      step.push_back(std::min(n, tokens));
      n -= step.back();
    }
    steps.push_back(std::move(step));
  }
  return steps;
}

AttentionRun run_attention(Device& device, const AttentionCase& c, const std::vector<Step>& steps,
                           ActivationLayout layout) {
  Ops& ops = device.ops();
  Schedule schedule(c);
  const std::size_t block_bytes =
      ops.kv_block_bytes(c.dtype, c.num_kv_heads, c.head_dim, c.block_size);
  Buffer<std::byte> arena(device, static_cast<std::size_t>(schedule.num_blocks()) * block_bytes);
  arena.poison();
  const KvLayer kv{arena.data(), block_bytes, c.dtype, c.num_kv_heads, c.head_dim, c.block_size};
  const AttentionSpec spec{c.num_heads,
                           c.num_kv_heads,
                           c.head_dim,
                           c.first_head,
                           c.first_kv_head,
                           c.group_heads,
                           1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                           c.window,
                           c.soft_cap};
  RopeSpec rope;
  rope.dims = c.rope_dims;
  rope.interleaved = c.interleaved;
  Buffer<float> angles(device,
                       rope_table(c, *std::max_element(c.lengths.begin(), c.lengths.end())));

  AttentionRun run;
  for (const int length : c.lengths) {
    run.bytes.emplace_back(static_cast<std::size_t>(length));
    run.floats.emplace_back(static_cast<std::size_t>(length));
  }
  for (const Step& step : steps) {
    const StepArrays a = schedule.next(step);
    Buffer<float> qkv(device, a.qkv);
    Batch batch;
    batch.num_tokens = static_cast<int>(a.positions.size());
    batch.num_rows = static_cast<int>(a.context.size());
    batch.block_size = c.block_size;
    batch.max_blocks = schedule.width();
    batch.most_tokens = *std::max_element(step.begin(), step.end());
    Buffer<std::int32_t> positions(device, a.positions), row_of_token(device, a.row_of_token),
        row_begin(device, a.row_begin), context(device, a.context);
    Buffer<BlockId> tables(device, a.tables);
    batch.positions = positions.data();
    batch.row_of_token = row_of_token.data();
    batch.row_begin = row_begin.data();
    batch.context = context.data();
    batch.block_tables = tables.data();
    ActivationBuffer out(device, layout, batch.num_tokens, c.num_heads * c.head_dim);
    ops.rope_store(qkv.data(), spec, rope, angles.data(), batch, kv);
    ops.attention(qkv.data(), spec, batch, kv, out.get());
    EXPECT_TRUE(device.wait().ok());
    const std::vector<float> floats = out.floats();
    const auto columns = static_cast<std::size_t>(c.num_heads * c.head_dim);
    for (std::size_t t = 0; t < a.sources.size(); ++t) {
      const auto s = static_cast<std::size_t>(a.sources[t].first);
      const auto p = static_cast<std::size_t>(a.sources[t].second);
      run.bytes[s][p] = out.row_bytes(static_cast<int>(t));
      run.floats[s][p].assign(floats.begin() + static_cast<std::ptrdiff_t>(t * columns),
                              floats.begin() + static_cast<std::ptrdiff_t>((t + 1) * columns));
    }
  }
  return run;
}

void check_block_copies(Device& device) {
  constexpr std::size_t kBlocks = 6;
  for (const std::size_t bytes : {std::size_t{256}, std::size_t{20}, std::size_t{40000}}) {
    std::vector<std::uint8_t> values(kBlocks * bytes);
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<std::uint8_t>(i * 2654435761u >> 13);
    }
    Buffer<std::uint8_t> arena(device, values);
    const KvBlocks blocks{reinterpret_cast<std::byte*>(arena.data()), bytes};
    device.ops().copy_blocks(blocks, std::vector<BlockId>{5, 0, 5}, std::vector<BlockId>{2, 1, 4});
    const std::vector<std::uint8_t> got = arena.read();
    const std::size_t source[kBlocks] = {0, 0, 5, 3, 5, 5};
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i], values[source[i / bytes] * bytes + i % bytes])
          << "block " << i / bytes << ", byte " << i % bytes << " of " << bytes;
    }
  }
}

}  // namespace quire::test
