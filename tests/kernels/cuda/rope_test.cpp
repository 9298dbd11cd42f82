// Rotation and the paged arena: bit for bit what the reference computes, rounded to the arena's
// dtype, in the layout of kernels/cuda/row/row.h; every byte of the arena that belongs to no token
// of the batch stays as it was.
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "kernels/cuda/row/row.h"
#include "kernels/formats/f8_e4m3.h"
#include "kernels/formats/half.h"
#include "kernels/kv_scale.h"
#include "kernels/reference/ops.h"
#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/device_array.h"
#include "tests/kernels/cases.h"

namespace quire::test {
namespace {

using cuda_emulation::DeviceArray;

// Rows of the batch: (first position, number of tokens).
const std::vector<std::pair<int, int>> kRows = {{0, 5}, {17, 1}, {30, 4}, {63, 1}, {3, 1}};
constexpr int kMaxPositions = 64;

struct Step {
  std::vector<std::int32_t> positions, row_of_token;
  std::vector<BlockId> tables;
  std::vector<float> qkv, cos_sin;
  int max_blocks = 0, num_blocks = 0;
};

Step make_step(const AttentionCase& c) {
  Step step;
  step.max_blocks = (kMaxPositions + c.block_size - 1) / c.block_size;
  step.num_blocks = step.max_blocks * static_cast<int>(kRows.size()) + 1;
  step.tables.resize(static_cast<std::size_t>(step.num_blocks) - 1);
  std::iota(step.tables.begin(), step.tables.end(), 1);
  std::shuffle(step.tables.begin(), step.tables.end(), std::mt19937(3));
  for (std::size_t row = 0; row < kRows.size(); ++row) {
    for (int i = 0; i < kRows[row].second; ++i) {
      step.positions.push_back(kRows[row].first + i);
      step.row_of_token.push_back(static_cast<std::int32_t>(row));
    }
  }
  step.qkv =
      random_floats(step.positions.size() *
                        static_cast<std::size_t>((c.num_heads + 2 * c.num_kv_heads) * c.head_dim),
                    11, 2.0f);
  for (int p = 0; p < kMaxPositions; ++p) {
    for (int i = 0; i < c.rope_dims / 2; ++i) {
      const double angle = p * std::pow(10000.0, -2.0 * i / c.rope_dims);
      step.cos_sin.push_back(static_cast<float>(std::cos(angle)));
      step.cos_sin.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return step;
}

template <typename Tokens, typename Tables>
Batch batch_of(const AttentionCase& c, const Step& step, Tokens& positions, Tokens& row_of_token,
               Tables& tables) {
  Batch batch;
  batch.num_tokens = static_cast<int>(step.positions.size());
  batch.num_rows = static_cast<int>(kRows.size());
  batch.block_size = c.block_size;
  batch.max_blocks = step.max_blocks;
  batch.positions = positions.data();
  batch.row_of_token = row_of_token.data();
  batch.block_tables = tables.data();
  return batch;
}

// Codes of n values, which `rounded` are as numbers; returns their scale.
std::byte encode_f8(const float* from, const float* rounded, int n, std::byte* to) {
  float largest = 0.0f;
  for (int i = 0; i < n; ++i) largest = std::max(largest, std::fabs(from[i]));
  const int exponent = kv_exponent(std::bit_cast<std::uint32_t>(largest));
  for (int i = 0; i < n; ++i) {
    const float scaled = std::ldexp(from[i], -exponent);
    formats::F8E4M3::encode(&scaled, &to[i]);
    float decoded = 0.0f;
    formats::F8E4M3::decode(&to[i], &decoded);
    EXPECT_EQ(std::ldexp(decoded, exponent), rounded[i]);
  }
  return static_cast<std::byte>(exponent + kKvExponentBias);
}

struct Stored {
  std::vector<float> qkv;
  std::vector<std::byte> arena;
};

// The reference's q, and its arena in the layout of the CUDA kernels; unwritten bytes are 0xff.
Stored expected(const AttentionCase& c, const Step& step) {
  const auto device = open_backend("reference");
  Ops& ops = device->ops();
  const std::size_t reference_bytes =
      ops.kv_block_bytes(c.dtype, c.num_kv_heads, c.head_dim, c.block_size);
  const auto blocks = static_cast<std::size_t>(step.num_blocks);
  Buffer<std::byte> arena(*device, blocks * reference_bytes);
  arena.poison();
  Buffer<float> qkv(*device, step.qkv), angles(*device, step.cos_sin);
  Buffer<std::int32_t> positions(*device, step.positions), rows(*device, step.row_of_token);
  Buffer<BlockId> tables(*device, step.tables);
  const KvLayer kv{arena.data(),   reference_bytes, c.dtype,
                   c.num_kv_heads, c.head_dim,      c.block_size};
  const AttentionSpec spec{c.num_heads, c.num_kv_heads, c.head_dim, 0, 0, c.group_heads, 1.0f};
  RopeSpec rope;
  rope.dims = c.rope_dims;
  rope.interleaved = c.interleaved;
  ops.rope_store(qkv.data(), spec, rope, angles.data(), batch_of(c, step, positions, rows, tables),
                 kv);
  EXPECT_TRUE(device->wait().ok());

  const std::size_t block_bytes =
      cuda::kv_block_bytes(c.dtype, c.num_kv_heads, c.head_dim, c.block_size);
  Stored stored = {qkv.read(), std::vector<std::byte>(blocks * block_bytes, std::byte{0xff})};
  for (std::size_t t = 0; t < step.positions.size(); ++t) {
    const int position = step.positions[t];
    const BlockId block = step.tables[static_cast<std::size_t>(
        step.row_of_token[t] * step.max_blocks + position / c.block_size)];
    // Where the token's rotated k, then its v, lie: the reference rotates k in place.
    const std::size_t first = (t * static_cast<std::size_t>(c.num_heads + 2 * c.num_kv_heads) +
                               static_cast<std::size_t>(c.num_heads)) *
                              static_cast<std::size_t>(c.head_dim);
    for (int part = 0; part < 2 * c.num_kv_heads; ++part) {
      const int head = part % c.num_kv_heads, offset = position % c.block_size;
      const float* from = part < c.num_kv_heads ? reference::kv_key(kv, block, head, offset)
                                                : reference::kv_value(kv, block, head, offset);
      const auto line = static_cast<std::size_t>(part * c.block_size + offset);
      std::byte* to = stored.arena.data() + static_cast<std::size_t>(block) * block_bytes +
                      line * static_cast<std::size_t>(c.head_dim) * size_of(c.dtype);
      if (c.dtype == DType::kF8E4M3) {
        const auto values = static_cast<std::size_t>(2 * c.num_kv_heads * c.block_size) *
                            static_cast<std::size_t>(c.head_dim);
        stored.arena[static_cast<std::size_t>(block) * block_bytes + values + line] =
            encode_f8(stored.qkv.data() + first + static_cast<std::size_t>(part * c.head_dim), from,
                      c.head_dim, to);
        continue;
      }
      for (int d = 0; d < c.head_dim; ++d) {
        const auto at = static_cast<std::size_t>(d);
        const std::uint16_t half =
            c.dtype == DType::kF16 ? to_half(from[d]).bits : to_bf16(from[d]).bits;
        if (c.dtype == DType::kF32) {
          std::memcpy(to + 4 * at, &from[d], 4);
        } else {
          std::memcpy(to + 2 * at, &half, 2);
        }
      }
    }
  }
  return stored;
}

Stored run_cuda(const AttentionCase& c, const Step& step, std::size_t shift) {
  const std::size_t block_bytes =
      cuda::kv_block_bytes(c.dtype, c.num_kv_heads, c.head_dim, c.block_size);
  DeviceArray<std::byte> arena(std::vector<std::byte>(
      static_cast<std::size_t>(step.num_blocks) * block_bytes, std::byte{0xff}));
  std::vector<float> shifted(shift);
  shifted.insert(shifted.end(), step.qkv.begin(), step.qkv.end());
  DeviceArray<float> qkv(shifted), angles(step.cos_sin);
  DeviceArray<std::int32_t> positions(step.positions), rows(step.row_of_token);
  DeviceArray<BlockId> tables(step.tables);
  const KvLayer kv{arena.data(), block_bytes, c.dtype, c.num_kv_heads, c.head_dim, c.block_size};
  const cuda::RopeJob job = {qkv.data() + shift, c.num_heads,   c.num_kv_heads, c.head_dim,
                             c.rope_dims,        c.interleaved, angles.data()};
  EXPECT_EQ(cuda::rope_store(nullptr, job, batch_of(c, step, positions, rows, tables), kv),
            cudaSuccess);
  std::vector<float> all = qkv.get();
  all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(shift));
  return {all, arena.get()};
}

void expect_stored(const AttentionCase& c, const Step& step, const Stored& want,
                   std::size_t shift) {
  const Stored got = run_cuda(c, step, shift);
  EXPECT_EQ(got.arena, want.arena);
  const int stride = (c.num_heads + 2 * c.num_kv_heads) * c.head_dim;
  for (std::size_t i = 0; i < got.qkv.size(); ++i) {
    if (static_cast<int>(i) % stride >= c.num_heads * c.head_dim) continue;  // k and v
    ASSERT_EQ(got.qkv[i], want.qkv[i]) << "element " << i;
  }
}

TEST(CudaRope, RotatesAndStoresLikeTheReference) {
  std::vector<AttentionCase> cases = attention_cases();
  for (const int head_dim : {2, 6, 64, 96, 128, 256}) {
    cases.push_back({.name = "whole head of " + std::to_string(head_dim),
                     .num_heads = 4,
                     .num_kv_heads = 2,
                     .head_dim = head_dim,
                     .group_heads = 2,
                     .rope_dims = head_dim});
    cases.push_back(cases.back());
    cases.back().interleaved = true;
    cases.back().block_size = 32;
  }
  cases.push_back({.name = "nothing rotated", .head_dim = 64, .rope_dims = 0});
  for (AttentionCase c : cases) {
    if (c.num_heads > 16) c.num_heads = 16;
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16, DType::kF8E4M3}) {
      c.dtype = dtype;
      const Step step = make_step(c);
      const Stored want = expected(c, step);
      for (const std::uint64_t seed : {std::uint64_t{1}, std::uint64_t{99}}) {
        SCOPED_TRACE(c.name + " " + name_of(dtype) + " seed " + std::to_string(seed));
        cuda_emulation::set_seed(seed);
        expect_stored(c, step, want, 0);
        expect_stored(c, step, want, 1);  // no wide accesses
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CudaRope, OddSizesAreRefused) {
  Batch batch;
  batch.num_tokens = 1;
  KvLayer kv;
  for (const auto& [head_dim, rope_dims] : {std::pair{5, 4}, {8, 3}, {8, 10}}) {
    const cuda::RopeJob job = {nullptr, 1, 1, head_dim, rope_dims, false, nullptr};
    EXPECT_EQ(cuda::rope_store(nullptr, job, batch, kv), cudaErrorInvalidValue);
  }
}

}  // namespace
}  // namespace quire::test
