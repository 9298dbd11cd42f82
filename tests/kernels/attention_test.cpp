// Rotary embedding, KV store and paged attention on every backend against the reference, and bit
// for bit against themselves: whole prompts, chunks, token by token, alone or together, on any
// number of threads. Unwritten arena bytes are NaN throughout.
#include <cmath>
#include <cstdio>
#include <numeric>

#include "kernels/cpu/attention_work.h"
#include "tests/kernels/cases.h"

namespace quire::test {
namespace {

// The reference rounds K and V to the arena's dtype too, but a value on the edge may round the
// other way after a rotation in another order: one step of the dtype. With int8 that is a whole
// 127th of the head's largest; q and weights have 14 and 15 bits.
float tolerance(DType dtype) {
  return dtype == DType::kF32   ? 1e-5f
         : dtype == DType::kF16 ? 1e-3f
         : dtype == DType::kI8  ? 3e-3f
                                : 8e-3f;
}

// Those of all backends, and each of them with K and V of 8 bits, which GPUs do not have.
std::vector<AttentionCase> cpu_cases() {
  std::vector<AttentionCase> cases = attention_cases();
  for (AttentionCase c : attention_cases()) {
    c.name += ", int8";
    c.dtype = DType::kI8;
    cases.push_back(std::move(c));
  }
  return cases;
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
  for (const AttentionCase& c : cpu_cases()) {
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
    for (const AttentionCase& c : cpu_cases()) {
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
                       .rope_dims = 32};
    for (int s = 0; s < 32; ++s) many.lengths.push_back(1 + s * 37 % 90);
    const auto device = open_backend(name, 3);
    for (const DType dtype : {DType::kF16, DType::kI8}) {
      many.dtype = dtype;
      const AttentionRun together =
          run_attention(*device, many, chunked(many, 7), ActivationLayout::kF32);
      AttentionCase one = many;
      one.lengths = {many.lengths[0]};  // q, k and v depend on the sequence's index
      const AttentionRun alone = run_attention(*device, one, whole(one), ActivationLayout::kF32);
      EXPECT_EQ(alone.bytes[0], together.bytes[0]) << name << ", " << name_of(dtype);
    }
  }
}

// Then each thread does rows of its own from storing K and V on.
TEST(Attention, ThreadsThatDivideTheRowsChangeNoBit) {
  constexpr int kLast = 5;  // tokens of each sequence that are decoded together with all others
  AttentionCase c{.name = "40 rows",
                  .num_heads = 3,
                  .num_kv_heads = 1,
                  .head_dim = 32,
                  .group_heads = 3,
                  .rope_dims = 32};
  for (int s = 0; s < 40; ++s) c.lengths.push_back(kLast + 1 + s * 67 % 600);
  std::vector<Step> steps(1 + kLast, Step(c.lengths.size(), 1));
  std::vector<Step> alone;  // one sequence after the other
  for (std::size_t s = 0; s < c.lengths.size(); ++s) {
    steps[0][s] = c.lengths[s] - kLast;
    alone.emplace_back(c.lengths.size(), 0)[s] = c.lengths[s];
  }
  std::vector<Step> drafts = steps;  // of several tokens, and of different numbers
  for (std::size_t s = 0; s < c.lengths.size(); ++s) {
    drafts[1][s] = 1 + static_cast<int>(s) % 3;
    drafts[2][s] = kLast - drafts[1][s];
  }
  drafts.resize(3);
  for (const std::string& name : cpu_backends()) {
    for (const DType dtype : {DType::kF32, DType::kBf16, DType::kI8}) {
      SCOPED_TRACE(name + ", " + name_of(dtype));
      c.dtype = dtype;
      const ActivationLayout layout = ActivationLayout::kQ8;
      const AttentionRun base = run_attention(*open_backend(name, 2), c, alone, layout);
      for (const int threads : {1, 2, 3}) {
        expect_same_bits(base, run_attention(*open_backend(name, threads), c, steps, layout));
        expect_same_bits(base, run_attention(*open_backend(name, threads), c, drafts, layout));
      }
    }
  }
}

TEST(Attention, ThreadsDivideManyTokensOfShortSequences) {
  Batch batch;
  batch.num_tokens = batch.num_rows = 40;
  batch.max_blocks = 40;
  EXPECT_FALSE(cpu::AttentionWork::divides_rows(batch, 2));  // there may be a prompt among them
  batch.most_tokens = 1;
  EXPECT_TRUE(cpu::AttentionWork::divides_rows(batch, 2));
  EXPECT_TRUE(cpu::AttentionWork::divides_rows(batch, 3));
  EXPECT_FALSE(cpu::AttentionWork::divides_rows(batch, 4));
  batch.most_tokens = 5;  // of five sequences or more
  EXPECT_TRUE(cpu::AttentionWork::divides_rows(batch, 2));
  batch.most_tokens = 6;
  EXPECT_FALSE(cpu::AttentionWork::divides_rows(batch, 2));
  batch.most_tokens = 1;
  batch.max_blocks = 400;
  EXPECT_FALSE(cpu::AttentionWork::divides_rows(batch, 2));
  batch.max_blocks = 40;
  EXPECT_FALSE(cpu::AttentionWork::divides_rows(only_sampled(batch), 2));
}

TEST(Attention, BlockSizeChangesNoBit) {
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name, 2);
    for (const DType dtype : {DType::kF16, DType::kI8}) {
      AttentionCase c{.name = "block sizes", .dtype = dtype, .lengths = {330, 20}};
      const AttentionRun base = run_attention(*device, c, chunked(c, 50), ActivationLayout::kF32);
      for (const int block_size : {32, 64}) {
        c.block_size = block_size;
        expect_same_bits(base, run_attention(*device, c, chunked(c, 50), ActivationLayout::kF32));
      }
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

// Products of whole numbers are exact, and all else is one operation per lane.
TEST(Attention, InstructionSetsAgreeInInt8) {
  const std::vector<std::string> names = cpu_backends();
  for (const AttentionCase& c : cpu_cases()) {
    if (c.dtype != DType::kI8) continue;
    SCOPED_TRACE(c.name);
    const AttentionRun first =
        run_attention(*open_backend(names[0]), c, whole(c), ActivationLayout::kF32);
    for (const std::string& name : names) {
      const auto device = open_backend(name);
      expect_same_bits(first, run_attention(*device, c, whole(c), ActivationLayout::kF32));
    }
  }
}

// Rounding to fp8 moves each element by at most a sixteenth, to int8 by half of a 127th of the
// largest; answers are averages of them.
TEST(Attention, EightBitsStayNearFp32) {
  constexpr struct {
    DType dtype;
    double least, mean, most;
  } kLimits[] = {{DType::kF8E4M3, 1e-4, 0.02, 0.4}, {DType::kI8, 1e-5, 0.004, 0.1}};
  const auto reference = open_backend("reference");
  for (const auto& limits : kLimits) {
    double sum = 0.0, most = 0.0;
    int count = 0;
    for (AttentionCase c : attention_cases()) {
      c.dtype = DType::kF32;
      const AttentionRun exact = run_attention(*reference, c, whole(c), ActivationLayout::kF32);
      c.dtype = limits.dtype;
      const AttentionRun rounded = run_attention(*reference, c, whole(c), ActivationLayout::kF32);
      for (std::size_t s = 0; s < exact.floats.size(); ++s) {
        for (std::size_t p = 0; p < exact.floats[s].size(); ++p) {
          for (std::size_t i = 0; i < exact.floats[s][p].size(); ++i, ++count) {
            const double d = std::abs(static_cast<double>(exact.floats[s][p][i]) -
                                      static_cast<double>(rounded.floats[s][p][i]));
            sum += d;
            most = std::max(most, d);
          }
        }
      }
    }
    std::printf("%s: %d elements, mean |d| %.2e, max %.2e\n", name_of(limits.dtype), count,
                sum / count, most);
    EXPECT_GT(sum / count, limits.least);  // it is rounded
    EXPECT_LT(sum / count, limits.mean);
    EXPECT_LT(most, limits.most);
  }
}

// Answers of one sequence whose rows of `heads` heads of q, k and v are all of a step; nothing is
// rotated. The later of its blocks lie first.
std::vector<float> answers_of(Device& device, const std::vector<float>& qkv, int heads, int d,
                              DType dtype) {
  Ops& ops = device.ops();
  const int tokens = static_cast<int>(qkv.size()) / (3 * heads * d);
  std::vector<std::int32_t> positions(static_cast<std::size_t>(tokens)), rows(positions.size(), 0),
      begin = {0, tokens}, context = {tokens};
  std::iota(positions.begin(), positions.end(), 0);
  std::vector<BlockId> table((positions.size() + 15) / 16);
  std::iota(table.rbegin(), table.rend(), 0);
  Batch batch;
  batch.num_tokens = tokens;
  batch.num_rows = 1;
  batch.max_blocks = static_cast<int>(table.size());
  batch.positions = positions.data();
  batch.row_of_token = rows.data();
  batch.row_begin = begin.data();
  batch.context = context.data();
  batch.block_tables = table.data();
  const std::size_t block_bytes = ops.kv_block_bytes(dtype, heads, d, 16);
  Buffer<std::byte> arena(device, table.size() * block_bytes);
  const KvLayer kv{arena.data(), block_bytes, dtype, heads, d, 16};
  const AttentionSpec spec{heads, heads, d, 0, 0, 1, 1.0f};
  Buffer<float> in(device, qkv);
  ActivationBuffer out(device, ActivationLayout::kF32, tokens, heads * d);
  ops.rope_store(in.data(), spec, RopeSpec(), nullptr, batch, kv);
  ops.attention(in.data(), spec, batch, kv, out.get());
  EXPECT_TRUE(device.wait().ok());
  return out.floats();
}

// Answers of 7 tokens and 2 heads over K and V of a few steps up to `largest`; one token is huge,
// one head is tiny.
std::vector<float> answers_of_steps(Device& device, DType dtype, float largest) {
  constexpr int kD = 16, kTokens = 7, kHeads = 2, kRow = 3 * kHeads * kD;
  std::vector<float> qkv(kTokens * kRow);
  for (int t = 0; t < kTokens; ++t) {
    for (int h = 0; h < kHeads; ++h) {
      for (int d = 0; d < kD; ++d) {
        float* at = qkv.data() + t * kRow + h * kD + d;
        at[0] = d == t ? 0.01f : 0.0f;
        const float scale = t == 4 ? 0x1p60f : h == 1 ? 0x1p-30f : 1.0f;
        const float step = d == 15 ? largest : static_cast<float>(8 + d % 8);  // four bits
        at[kHeads * kD] = step * scale;
        at[2 * kHeads * kD] = (d < 8 ? -step : step) * scale;
      }
    }
  }
  return answers_of(device, qkv, kHeads, kD, dtype);
}

// Scales are per token and head: a huge token in the same block takes nothing from the others, and
// elements that are whole steps are kept exactly: e4m3 numbers times a power of two, or 127ths.
TEST(Attention, EightBitScalesAreOfATokenAndHead) {
  const auto reference = open_backend("reference");
  const auto exact = answers_of_steps(*reference, DType::kF32, 15.0f);
  EXPECT_EQ(answers_of_steps(*reference, DType::kF8E4M3, 15.0f), exact);
  EXPECT_NE(exact[1], exact[2]);
  const auto wide = answers_of_steps(*reference, DType::kF32, 127.0f);
  expect_near(answers_of_steps(*reference, DType::kI8, 127.0f), wide, 0.0f, 1e-5f);
  for (const std::string& name : cpu_backends()) {
    SCOPED_TRACE(name);
    expect_near(answers_of_steps(*open_backend(name), DType::kI8, 127.0f), wide, 0.0f, 1e-3f);
  }
}

TEST(Attention, HugeScoresStayFinite) {
  // One key dominates by far: its value is the answer, and the others' weights are exact zeros.
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name);
    constexpr int kD = 16, kTokens = 70;
    std::vector<float> qkv(kTokens * 3 * kD, 0.0f);
    for (int t = 0; t < kTokens; ++t) {
      float* row = qkv.data() + t * 3 * kD;
      row[0] = 1000.0f;                       // q
      row[kD] = t == 3 ? 1000.0f : -1000.0f;  // k
      row[2 * kD] = static_cast<float>(t);    // v
    }
    const std::vector<float> y = answers_of(*device, qkv, 1, kD, DType::kF32);
    EXPECT_EQ(y[0], 0.0f);
    EXPECT_FLOAT_EQ(y[2 * kD], 1.0f);  // equal scores of 0, 1, 2
    for (int t = 3; t < kTokens; ++t) EXPECT_EQ(y[static_cast<std::size_t>(t * kD)], 3.0f) << t;
  }
}

}  // namespace
}  // namespace quire::test
