// CUDA attention over the emulation against the reference device, and bit for bit against itself:
// whole prompts, chunks, token by token, cut into splits or not, alone or with others, in blocks of
// any size and under several orders of threads. Unwritten arena, workspace and output bytes are
// NaN.
#include "tests/cuda_emulation/control.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/cuda/attention_harness.h"

namespace quire::test {
namespace {

using cuda::AttentionLimits;

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
  for (const DType dtype : {DType::kF16, DType::kBf16}) {
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

}  // namespace
}  // namespace quire::test
