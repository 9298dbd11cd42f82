// CUDA attention over the emulation against the reference device, and bit for bit against itself:
// whole prompts, chunks, token by token, cut into splits or not, alone or with others, in blocks of
// any size and under several orders of threads. Unwritten arena, workspace and output bytes are
// NaN.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cuda/attention/table.h"
#include "tests/cuda_emulation/control.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/cuda/attention_harness.h"

namespace quire::test {
namespace {

// q and the weights are rounded to the arena's type where tensor cores multiply.
float tolerance(DType dtype) {
  return dtype == DType::kF32 ? 1e-5f : dtype == DType::kF16 ? 2e-3f : 1.2e-2f;
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

// One token of every sequence beside a chunk of the first.
std::vector<Step> mixed(const AttentionCase& c, int tokens) {
  std::vector<Step> steps;
  std::vector<int> left = c.lengths;
  while (std::any_of(left.begin(), left.end(), [](int n) { return n > 0; })) {
    Step step;
    for (std::size_t s = 0; s < left.size(); ++s) {
      const std::size_t turn = steps.size() % left.size();
      step.push_back(std::min(left[s], s == turn ? tokens : 1));
      left[s] -= step.back();
    }
    steps.push_back(std::move(step));
  }
  return steps;
}

// Every variant of the table, every way a group may be cut.
std::vector<AttentionCase> cases() {
  std::vector<AttentionCase> all = attention_cases();
  for (const DType dtype : {DType::kF16, DType::kBf16, DType::kF8E4M3}) {
    for (const int dim : {64, 80, 96, 128, 256}) {
      all.push_back({.name = std::string("GQA of 4, ") + name_of(dtype),
                     .num_heads = 4,
                     .num_kv_heads = 1,
                     .head_dim = dim,
                     .group_heads = 4,
                     .block_size = dim == 96 ? 64 : 16,
                     .dtype = dtype,
                     .lengths = {90, 3}});
    }
  }
  all.push_back({.name = "fp8, heads of 40",  // plain arithmetic
                 .num_heads = 2,
                 .num_kv_heads = 2,
                 .head_dim = 40,
                 .block_size = 32,
                 .dtype = DType::kF8E4M3,
                 .window = 50,
                 .lengths = {75, 33}});
  all.push_back({.name = "one KV head for 20",
                 .num_heads = 20,
                 .num_kv_heads = 1,
                 .head_dim = 64,
                 .group_heads = 20,
                 .dtype = DType::kBf16,
                 .lengths = {70, 20}});
  all.push_back({.name = "parts of three groups: 1, 3 and 2 of 3 heads",
                 .num_heads = 6,
                 .num_kv_heads = 3,
                 .head_dim = 64,
                 .group_heads = 3,
                 .first_head = 2,
                 .first_kv_head = 0,
                 .dtype = DType::kF16,
                 .lengths = {66, 30}});
  return all;
}

TEST(CudaAttention, MatchesTheReference) {
  for (const AttentionCase& c : cases()) {
    SCOPED_TRACE(c.name + ", heads of " + std::to_string(c.head_dim));
    const AttentionRun want = reference_attention(c);
    expect_close(cuda_attention(c, whole(c), ActivationLayout::kF32), want, tolerance(c.dtype));
    expect_close(cuda_attention(c, whole(c), ActivationLayout::kBf16), want,
                 tolerance(c.dtype) + 0x1p-8f);
  }
}

TEST(CudaAttention, SchedulesChangeNoBit) {
  for (const AttentionCase& c : cases()) {
    SCOPED_TRACE(c.name + ", heads of " + std::to_string(c.head_dim));
    const ActivationLayout layout = ActivationLayout::kF32;
    const AttentionRun base = cuda_attention(c, whole(c), layout);
    expect_same_bits(base, cuda_attention(c, chunked(c, 37), layout));
    expect_same_bits(base, cuda_attention(c, mixed(c, 50), layout));
  }
}

// Contexts of up to three splits, several heads, rows of both kernels.
AttentionCase long_case(DType dtype, int head_dim) {
  return {.name = "long",
          .num_heads = 4,
          .num_kv_heads = 2,
          .head_dim = head_dim,
          .group_heads = 2,
          .dtype = dtype,
          .lengths = {530, 300, 20}};
}
const std::vector<AttentionCase>& long_cases() {
  static const std::vector<AttentionCase> cases = [] {
    std::vector<AttentionCase> all = {long_case(DType::kBf16, 64), long_case(DType::kF32, 16),
                                      long_case(DType::kF16, 24), long_case(DType::kF8E4M3, 64)};
    for (int i = 0; i < 2; ++i) {  // and of each arithmetic one that sees two splits of three
      all.push_back(all[static_cast<std::size_t>(i)]);
      all.back().window = 262 - i;
      all.back().soft_cap = 2.0f;
    }
    return all;
  }();
  return cases;
}

// The whole of each sequence but its last token, then that one: a prompt and a decode step.
std::vector<Step> prompt_and_token(const AttentionCase& c) {
  Step prompt;
  for (const int n : c.lengths) prompt.push_back(n - 1);
  return {prompt, Step(c.lengths.size(), 1)};
}

TEST(CudaAttention, CuttingRowsIntoSplitsChangesNoBit) {
  for (const AttentionCase& c : long_cases()) {
    SCOPED_TRACE(name_of(c.dtype));
    const AttentionRun base = cuda_attention(c, prompt_and_token(c), ActivationLayout::kF32);
    const std::size_t slot =
        static_cast<std::size_t>(c.num_heads * (c.head_dim + 2)) * sizeof(float);
    for (const std::size_t slots : {0, 2, 3, 5}) {  // of the 3 + 2 that would be needed
      expect_same_bits(base, cuda_attention(c, prompt_and_token(c), ActivationLayout::kF32,
                                            {.limits = {.partial_bytes = slots * slot}}));
    }
  }
}

TEST(CudaAttention, AFewTokensOfARowAreCutToo) {
  for (const AttentionCase& c : long_cases()) {
    SCOPED_TRACE(name_of(c.dtype));
    std::vector<Step> steps = {{250, 290, 10}, {10, 3, 5}, {7, 4, 0}, {1, 3, 5}, {262, 0, 0}};
    expect_same_bits(cuda_attention(c, whole(c), ActivationLayout::kF32),
                     cuda_attention(c, steps, ActivationLayout::kF32));
  }
}

TEST(CudaAttention, TheOrderOfThreadsChangesNoBit) {
  for (const AttentionCase& c : long_cases()) {
    const AttentionRun base = cuda_attention(c, prompt_and_token(c), ActivationLayout::kBf16);
    for (const std::uint64_t seed : {1, 2, 3}) {
      SCOPED_TRACE(std::string(name_of(c.dtype)) + ", seed " + std::to_string(seed));
      cuda_emulation::set_seed(seed);
      cuda_emulation::set_resident_blocks(static_cast<int>(seed));
      expect_same_bits(base, cuda_attention(c, prompt_and_token(c), ActivationLayout::kBf16));
    }
    cuda_emulation::set_seed(0);
    cuda_emulation::set_resident_blocks(0);
  }
}

TEST(CudaAttention, ASequenceAloneHasTheBitsItHasAmong40) {
  AttentionCase many{.name = "40 rows",  // more than a warp looks at at once
                     .num_heads = 3,
                     .num_kv_heads = 1,
                     .head_dim = 64,
                     .group_heads = 3,
                     .dtype = DType::kF16};
  many.lengths = {290};
  for (int s = 1; s < 40; ++s) many.lengths.push_back(1 + s * 37 % 90);
  many.lengths.back() = 270;
  const AttentionRun together =
      cuda_attention(many, prompt_and_token(many), ActivationLayout::kF32);
  AttentionCase one = many;
  one.lengths = {many.lengths[0]};  // q, k and v depend on the sequence's index
  const AttentionRun alone = cuda_attention(one, chunked(one, 100), ActivationLayout::kF32);
  EXPECT_EQ(alone.bytes[0], together.bytes[0]);
}

TEST(CudaAttention, BlockSizeChangesNoBit) {
  for (AttentionCase c : long_cases()) {
    const AttentionRun base = cuda_attention(c, chunked(c, 50), ActivationLayout::kF32);
    for (const int block_size : {32, 64}) {
      c.block_size = block_size;
      expect_same_bits(base, cuda_attention(c, chunked(c, 50), ActivationLayout::kF32));
    }
  }
}

TEST(CudaAttention, SmallSharedMemoryChangesNoBit) {
  for (const DType dtype : {DType::kBf16, DType::kF16, DType::kF8E4M3}) {
    const AttentionCase c = {.name = "heads of 256",
                             .num_heads = 2,
                             .num_kv_heads = 1,
                             .head_dim = 256,
                             .group_heads = 2,
                             .dtype = dtype,
                             .lengths = {270, 40}};
    expect_same_bits(cuda_attention(c, whole(c), ActivationLayout::kF32),
                     cuda_attention(c, whole(c), ActivationLayout::kF32,
                                    {.limits = {.shared_bytes = 99 * 1024}}));
  }
}

TEST(CudaAttention, APaddedBatchInAGraphHasTheSameBits) {
  for (const AttentionCase& c : long_cases()) {
    SCOPED_TRACE(name_of(c.dtype));
    const AttentionRun base = cuda_attention(c, prompt_and_token(c), ActivationLayout::kF32);
    for (const int tokens : {5, 40}) {
      const CudaAttentionOptions padded{
          .padding_rows = 5, .padding_tokens = tokens, .max_context = 2000, .as_graph = true};
      expect_same_bits(base,
                       cuda_attention(c, prompt_and_token(c), ActivationLayout::kF32, padded));
    }
  }
}

// Eleven rows: 0 to 5 begin alike, 3 to 5 for longer, 6 and 7 share something else, 8 shares less
// than a split, 9 is alone and 10 in its prompt.
AttentionCase shared_case(DType dtype, int head_dim, int num_heads, int num_kv_heads) {
  return {.name = "shared",
          .num_heads = num_heads,
          .num_kv_heads = num_kv_heads,
          .head_dim = head_dim,
          .group_heads = num_heads / num_kv_heads,
          .dtype = dtype,
          .lengths = {260, 300, 513, 530, 790, 545, 270, 300, 270, 20, 40}};
}
const std::vector<CudaAttentionOptions::Prefix> kPrefixes = {
    {}, {0, 256}, {0, 256}, {0, 256}, {3, 512}, {4, 528}, {}, {6, 256}, {6, 240}, {}, {}};

// Prompts up to the last two tokens, then those one by one beside the last row's prompt.
std::vector<Step> prompts_and_tokens(const AttentionCase& c) {
  Step prompts, tokens(c.lengths.size(), 1);
  for (const int n : c.lengths) prompts.push_back(n - 2);
  prompts.back() = 0;
  Step beside = tokens;
  beside.back() = c.lengths.back() - 1;
  return {prompts, beside, tokens};
}

void expect_sharing_changes_no_bit(const AttentionCase& c) {
  SCOPED_TRACE(std::string(name_of(c.dtype)) + ", heads of " + std::to_string(c.head_dim));
  CudaAttentionOptions options{.prefixes = kPrefixes, .filled_steps = 1};
  const std::vector<Step> steps = prompts_and_tokens(c);
  const AttentionRun base = cuda_attention(c, steps, ActivationLayout::kF32, options);
  options.tell_shared_runs = true;
  expect_same_bits(base, cuda_attention(c, steps, ActivationLayout::kF32, options));
  const std::size_t slot = static_cast<std::size_t>(c.num_heads * (c.head_dim + 2)) * sizeof(float);
  options.limits.partial_bytes = 9 * slot;  // for some of the sharers only
  expect_same_bits(base, cuda_attention(c, steps, ActivationLayout::kF32, options));
  options.limits = {};
  options.padding_rows = 37;  // more runs than a warp looks at at once, most of them empty
  options.as_graph = true;
  expect_same_bits(base, cuda_attention(c, steps, ActivationLayout::kF32, options));
}

TEST(CudaAttention, SharingAPrefixChangesNoBit) {
  expect_sharing_changes_no_bit(shared_case(DType::kBf16, 64, 8, 2));  // GQA: two tiles of pairs
  expect_sharing_changes_no_bit(shared_case(DType::kF16, 128, 2, 2));  // MHA
  expect_sharing_changes_no_bit(shared_case(DType::kBf16, 256, 2, 1));
  expect_sharing_changes_no_bit(shared_case(DType::kF16, 80, 1, 1));
  expect_sharing_changes_no_bit(shared_case(DType::kF32, 16, 4, 2));
  expect_sharing_changes_no_bit(shared_case(DType::kF8E4M3, 128, 2, 1));
}

TEST(CudaAttention, SharingUnderAWindowChangesNoBit) {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    AttentionCase c = shared_case(dtype, 64, 2, 1);
    c.window = 290;
    c.block_size = 32;
    expect_sharing_changes_no_bit(c);
  }
}

TEST(CudaAttention, OneHugeScoreTakesAllTheWeight) {
  // Scores of some thousands: the key of the highest has weight 1, and the answer is its value.
  for (AttentionCase c : long_cases()) {
    if (c.soft_cap > 0.0f || c.dtype == DType::kF8E4M3) continue;
    SCOPED_TRACE(name_of(c.dtype));
    c.lengths = {300};
    const AttentionRun run =
        cuda_attention(c, whole(c), ActivationLayout::kF32, {.query_scale = 3000.0f});
    const auto dim = static_cast<std::size_t>(c.head_dim);
    int wrong = 0;
    for (int p = 0; p < 300; ++p) {
      const std::vector<float> q = qkv_row(c, 0, p);
      double highest = -INFINITY;
      std::vector<float> value;
      for (int j = 0; j <= p; ++j) {
        const std::vector<float> row = qkv_row(c, 0, j);
        const float* k = row.data() + 4 * dim;
        const double score = std::inner_product(k, k + dim, q.data(), 0.0);
        if (score > highest) value.assign(k + 2 * dim, k + 3 * dim);
        highest = std::max(highest, score);
      }
      const std::vector<float>& out = run.floats[0][static_cast<std::size_t>(p)];
      for (std::size_t d = 0; d < dim; ++d) {  // of head 0
        ASSERT_TRUE(std::isfinite(out[d]));
        if (std::fabs(out[d] - value[d]) > 0.01f + 0.01f * std::fabs(value[d])) {
          ++wrong;
          break;
        }
      }
    }
    EXPECT_LT(wrong, 15);  // two highest scores may be close together
  }
}

TEST(CudaAttention, EveryShapeHasAVariantOnEveryDevice) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16, DType::kF8E4M3}) {
    for (int dim = 1; dim <= cuda::kMaxHeadDim; ++dim) {
      for (const int shared_bytes : {99 * 1024, 163 * 1024, 227 * 1024}) {
        const cuda::AttentionVariant v = cuda::choose_attention(dtype, dim, shared_bytes);
        ASSERT_NE(v.decode.kernel, nullptr) << name_of(dtype) << " " << dim;
        ASSERT_EQ(v.dtype, dtype);
        ASSERT_TRUE(v.head_dim == 0 || v.head_dim == dim) << cuda::describe(v);
        ASSERT_LE(std::max(v.decode.shared_bytes, v.prefill.shared_bytes), shared_bytes);
      }
    }
  }
  EXPECT_EQ(cuda::describe(cuda::choose_attention(DType::kBf16, 128, 227 * 1024)),
            "attention mma bfloat16, heads of 128: decode 16 rows x 32 threads, 42 KiB; prefill "
            "128 rows x 256 threads, 98 KiB; shared 64 rows x 128 threads, 34 KiB");
}

TEST(CudaAttention, RefusesWhatItHasNoKernelFor) {
  AttentionSpec spec{4, 2, 64, 0, 0, 2, 0.125f};
  EXPECT_EQ(cuda::attention_refusal(spec, DType::kF16, 16), "");
  EXPECT_THAT(cuda::attention_refusal(spec, DType::kF16, 8), testing::HasSubstr("not 8"));
  spec.head_dim = 512;
  EXPECT_THAT(cuda::attention_refusal(spec, DType::kF16, 16), testing::HasSubstr("not 512"));
  spec.head_dim = 64;
  spec.scale = 0.0f;
  EXPECT_THAT(cuda::attention_refusal(spec, DType::kF16, 16), testing::HasSubstr("scale"));
  spec.scale = 0.125f;
  spec.window = -1;
  EXPECT_THAT(cuda::attention_refusal(spec, DType::kF16, 16), testing::HasSubstr("not -1"));
  spec.window = 0;
  spec.num_heads = 2;  // both of KV head 0
  EXPECT_THAT(cuda::attention_refusal(spec, DType::kF16, 16), testing::HasSubstr("KV head"));
}

}  // namespace
}  // namespace quire::test
