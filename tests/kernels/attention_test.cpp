// Rotary embedding, KV store and paged attention on every backend against the reference, and bit
// for bit against themselves: whole prompts, chunks, token by token, alone or together, on any
// number of threads. Unwritten arena bytes are NaN throughout.
#include "tests/kernels/cases.h"

namespace quire::test {
namespace {

// The reference rounds K and V to the arena's dtype too, but a value on the edge may round the
// other way after a rotation in another order: one step of the dtype.
float tolerance(DType dtype) {
  return dtype == DType::kF32 ? 1e-5f : dtype == DType::kF16 ? 1e-3f : 8e-3f;
}

void expect_close(const AttentionRun& actual, const AttentionRun& expected, float allowed) {
  for (std::size_t s = 0; s < expected.floats.size(); ++s) {
    for (std::size_t p = 0; p < expected.floats[s].size(); ++p) {
      SCOPED_TRACE("sequence " + std::to_string(s) + " position " + std::to_string(p));
      expect_near(actual.floats[s][p], expected.floats[s][p], allowed, allowed);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

void expect_same_bits(const AttentionRun& a, const AttentionRun& b) {
  for (std::size_t s = 0; s < a.bytes.size(); ++s) {
    for (std::size_t p = 0; p < a.bytes[s].size(); ++p) {
      ASSERT_EQ(a.bytes[s][p], b.bytes[s][p]) << "sequence " << s << " position " << p;
    }
  }
}

TEST(Attention, MatchesTheReference) {
  const auto reference = open_backend("reference");
  for (const AttentionCase& c : attention_cases()) {
    const AttentionRun want = run_attention(*reference, c, whole(c), ActivationLayout::kF32);
    for (const std::string& name : cpu_backends()) {
      SCOPED_TRACE(name + ", " + c.name);
      const auto device = open_backend(name);
      expect_close(run_attention(*device, c, whole(c), ActivationLayout::kF32), want,
                   tolerance(c.dtype));
      expect_close(run_attention(*device, c, whole(c), ActivationLayout::kBf16), want,
                   tolerance(c.dtype) + 0x1p-8f);
    }
  }
}

TEST(Attention, ScheduleAndThreadsChangeNoBit) {
  for (const std::string& name : cpu_backends()) {
    for (const AttentionCase& c : attention_cases()) {
      SCOPED_TRACE(name + ", " + c.name);
      const ActivationLayout layout = ActivationLayout::kQ8;
      const AttentionRun base = run_attention(*open_backend(name, 1), c, whole(c), layout);
      for (const int threads : {2, 3}) {
        expect_same_bits(base, run_attention(*open_backend(name, threads), c, whole(c), layout));
      }
      const auto device = open_backend(name, 2);
      for (const int tokens : {1, 5, 17, 64}) {
        expect_same_bits(base, run_attention(*device, c, chunked(c, tokens), layout));
      }
      expect_same_bits(base, run_attention(*open_backend(name, 1), c, chunked(c, 1), layout));
    }
  }
}

TEST(Attention, ASequenceAloneHasTheBitsItHasAmong32) {
  for (const std::string& name : cpu_backends()) {
    AttentionCase many{.name = "32 rows",
                       .num_heads = 6,
                       .num_kv_heads = 2,
                       .head_dim = 32,
                       .group_heads = 3,
                       .rope_dims = 32,
                       .dtype = DType::kF16};
    for (int s = 0; s < 32; ++s) many.lengths.push_back(1 + s * 37 % 90);
    const auto device = open_backend(name, 3);
    const AttentionRun together =
        run_attention(*device, many, chunked(many, 7), ActivationLayout::kF32);
    AttentionCase one = many;
    one.lengths = {many.lengths[0]};  // q, k and v depend on the sequence's index
    const AttentionRun alone = run_attention(*device, one, whole(one), ActivationLayout::kF32);
    EXPECT_EQ(alone.bytes[0], together.bytes[0]) << name;
  }
}

TEST(Attention, BlockSizeChangesNoBit) {
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name, 2);
    AttentionCase c{.name = "block sizes", .dtype = DType::kF16, .lengths = {330, 20}};
    const AttentionRun base = run_attention(*device, c, chunked(c, 50), ActivationLayout::kF32);
    for (const int block_size : {32, 64}) {
      c.block_size = block_size;
      expect_same_bits(base, run_attention(*device, c, chunked(c, 50), ActivationLayout::kF32));
    }
  }
}

TEST(Attention, ARankWithPartOfTheHeadsHasTheirBits) {
  // Heads 4..6 of 9 in groups of 3: the end of group 1 and the beginning of group 2. Give every
  // head of the whole the same q, k and v by position of the local one.
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name, 2);
    AttentionCase c{.name = "one head", .dtype = DType::kF16, .lengths = {280}};
    const AttentionRun first = run_attention(*device, c, whole(c), ActivationLayout::kF32);
    c.group_heads = 3;
    c.first_head = 5;  // the last head of group 1
    c.first_kv_head = 1;
    const AttentionRun inside = run_attention(*device, c, whole(c), ActivationLayout::kF32);
    expect_same_bits(first, inside);
  }
}

TEST(Attention, HugeScoresStayFinite) {
  // One key dominates by far: its value is the answer, and the others' weights are exact zeros.
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name);
    Ops& ops = device->ops();
    constexpr int kD = 16, kTokens = 70;
    std::vector<float> qkv(kTokens * 3 * kD, 0.0f);
    for (int t = 0; t < kTokens; ++t) {
      float* row = qkv.data() + t * 3 * kD;
      row[0] = 1000.0f;                       // q
      row[kD] = t == 3 ? 1000.0f : -1000.0f;  // k
      row[2 * kD] = static_cast<float>(t);    // v
    }
    const std::size_t block_bytes = ops.kv_block_bytes(DType::kF32, 1, kD, 16);
    Buffer<std::byte> arena(*device, 5 * block_bytes);
    std::vector<std::int32_t> positions(kTokens), rows(kTokens, 0), begin = {0, kTokens},
                                                                    context = {kTokens};
    for (int t = 0; t < kTokens; ++t) positions[static_cast<std::size_t>(t)] = t;
    const std::vector<BlockId> table = {4, 3, 2, 1, 0};
    Batch batch;
    batch.num_tokens = kTokens;
    batch.num_rows = 1;
    batch.max_blocks = 5;
    batch.positions = positions.data();
    batch.row_of_token = rows.data();
    batch.row_begin = begin.data();
    batch.context = context.data();
    batch.block_tables = table.data();
    const KvLayer kv{arena.data(), block_bytes, DType::kF32, 1, kD, 16};
    const AttentionSpec spec{1, 1, kD, 0, 0, 1, 1.0f};
    RopeSpec rope;  // no dimension rotated
    Buffer<float> in(*device, qkv);
    ActivationBuffer out(*device, ActivationLayout::kF32, kTokens, kD);
    ops.rope_store(in.data(), spec, rope, nullptr, batch, kv);
    ops.attention(in.data(), spec, batch, kv, out.get());
    ASSERT_TRUE(device->wait().ok());
    const std::vector<float> y = out.floats();
    EXPECT_EQ(y[0], 0.0f);
    EXPECT_FLOAT_EQ(y[2 * kD], 1.0f);  // equal scores of 0, 1, 2
    for (int t = 3; t < kTokens; ++t) EXPECT_EQ(y[static_cast<std::size_t>(t * kD)], 3.0f) << t;
  }
}

}  // namespace
}  // namespace quire::test
