// The CUDA device behind the waist: what its kernels' own tests do not reach. Sampling through Ops,
// errors that surface in wait(), memory, and one product cut into subtrees against the reference.
#include "kernels/cuda/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "common/format.h"
#include "tests/fakes/fake_nccl.h"
#include "tests/kernels/harness.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

std::unique_ptr<Device> open(const std::string& dtype = "auto", bool deterministic = false) {
  DeviceOptions options;
  options.kind = "cuda";
  options.dtype = dtype;
  options.deterministic = deterministic;
  auto device = cuda::open_cuda(options, [] { return fake_nccl(); });
  EXPECT_TRUE(device.ok()) << device.status();
  return device.ok() ? *std::move(device) : nullptr;
}

TEST(CudaDevice, SaysWhatItIs) {
  const auto device = open();
  EXPECT_THAT(device->description(), HasSubstr("cuda 0"));
  EXPECT_THAT(device->numerics_id(), HasSubstr("cuda-sm"));
  EXPECT_NE(device->numerics_id(), open("auto", true)->numerics_id());
  EXPECT_NE(device->numerics_id(), open("float32")->numerics_id());
  EXPECT_EQ(device->collective_kind(), "nccl");
  EXPECT_GT(device->free_bytes(), 0);
  DeviceOptions options;
  options.dtype = "float64";
  EXPECT_EQ(cuda::open_cuda(options, [] { return fake_nccl(); }).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CudaDevice, RanksOfOneGpuShareItsMemory) {
  DeviceOptions options;
  options.num_local_ranks = 400;  // over four emulated GPUs
  const auto crowded = cuda::open_cuda(options, [] { return fake_nccl(); });
  ASSERT_TRUE(crowded.ok());
  EXPECT_LT((*crowded)->free_bytes(), open()->free_bytes() / 50);
}

TEST(CudaDevice, MemoryThatIsNotThereIsNamed) {
  const auto device = open();
  const auto memory = device->allocate(std::size_t{1} << 40, "the KV cache");
  ASSERT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(memory.status().message()), HasSubstr("the KV cache"));
  device->copy(nullptr, nullptr, 0);
  EXPECT_TRUE(device->wait().ok()) << "the failed allocation is not the next step's error";
}

TEST(CudaDevice, HostTasksRunInOrderAndTheFirstErrorEndsTheStep) {
  const auto device = open();
  std::vector<int> ran;
  for (const int i : {1, 2, 3}) {
    device->host_task([&ran, i] {
      ran.push_back(i);
      return i == 2 ? absl::AbortedError("two") : absl::OkStatus();
    });
  }
  const absl::Status status = device->wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ran, (std::vector<int>{1, 2}));
  EXPECT_TRUE(device->wait().ok()) << "an error is told once";
}

TEST(CudaDevice, AttentionWithoutAKernelIsRefusedByTheStep) {
  const auto device = open();
  AttentionSpec spec;
  spec.num_heads = spec.num_kv_heads = 1;
  spec.head_dim = 512;
  KvLayer kv;
  kv.head_dim = 512;
  Batch batch;
  batch.num_tokens = batch.num_rows = batch.max_blocks = 1;
  device->ops().attention(nullptr, spec, batch, kv, {});
  const absl::Status status = device->wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("512"));
}

std::vector<RowResult> sample(Device& device, const std::vector<float>& logits, int vocab,
                              const std::vector<SampleRow>& rows) {
  Buffer<float> on_device(device, logits);
  const float* piece = on_device.data();
  const auto stride = static_cast<std::size_t>(vocab);
  const TokenId begin[] = {0, vocab};
  std::vector<RowResult> results(rows.size());
  SampleArgs args;
  args.num_rows = static_cast<int>(rows.size());
  args.rows = rows;
  args.pieces = absl::MakeConstSpan(&piece, 1);
  args.piece_strides = absl::MakeConstSpan(&stride, 1);
  args.piece_begin = begin;
  args.results = results.data();
  device.ops().sample(args);
  EXPECT_TRUE(device.wait().ok());
  return results;
}

// A record runs as it is, is captured, and runs from its graph: always the same work, on what the
// memory holds then.
TEST(CudaDevice, RecordsAreReplayed) {
  const auto device = open();
  Buffer<float> from(*device, std::vector<float>{0.0f}), to(*device, std::vector<float>{0.0f});
  ASSERT_TRUE(device->keeps_records());
  int recorded = 0;
  for (int i = 1; i <= 5; ++i) {
    const auto value = static_cast<float>(i);
    device->copy(from.data(), &value, sizeof value);
    device->replay(7, [&] {
      ++recorded;
      device->copy(to.data(), from.data(), sizeof(float));
    });
    EXPECT_EQ(to.read()[0], value);
  }
  EXPECT_EQ(recorded, 2);
  device->forget_records();
  device->replay(7, [&] { ++recorded; });
  EXPECT_EQ(recorded, 3);
}

TEST(CudaDevice, WorkThatIsNotCapturedRunsAllTheSame) {
  const auto device = open();
  Buffer<float> to(*device, std::vector<float>{0.0f});
  for (int i = 1; i <= 4; ++i) {
    const auto value = static_cast<float>(i);
    device->replay(7, [&] {
      static_cast<void>(device->wait());  // no capture allows that
      device->copy(to.data(), &value, sizeof value);
    });
    EXPECT_EQ(to.read()[0], value);
  }
}

TEST(CudaDevice, StepsAreWaitedForOneByOne) {
  const auto device = open();
  EXPECT_TRUE(device->runs_ahead());
  std::atomic<int> ran = 0;
  for (int i = 0; i < 2; ++i) {
    device->host_task([&ran] {
      ++ran;
      return absl::OkStatus();
    });
    device->end_step();
  }
  EXPECT_TRUE(device->wait_step().ok());
  EXPECT_GE(ran, 1);
  EXPECT_TRUE(device->wait_step().ok());
  EXPECT_EQ(ran, 2);
}

TEST(CudaDevice, CopiedBlocksAreCopiesInEveryLayer) {
  check_block_copies(*open());
}

// Each wish alone (so that the pass without filters is taken where it may be) and all at once.
TEST(CudaDevice, SamplesLikeTheReference) {
  constexpr int kVocab = 3000;
  std::vector<SampleRow> rows(6);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].seed = 77 + i;
  rows[0].temperature = 0.0f;
  rows[0].num_logprobs = 5;
  rows[2].top_k = 3;
  rows[3].top_p = 0.4f;
  rows[4].min_p = 0.2f;
  rows[4].num_logprobs = 0;
  rows[5] = {0.7f, 0.9f, 40, 0.05f, 5, 1, 9, 20};
  // Two rows that are adjusted, one with a mask.
  const std::vector<LogitEntry> entries = {{7, -3.0f, -1}, {1024, 6.0f, 0}, {2999, 8.0f, 3}};
  std::vector<std::uint32_t> even(allowed_words(kVocab), 0x55555555u);
  const LogitAdjustment penalized = {entries, nullptr, 1.5f, 0.5f, 1.0f};
  const LogitAdjustment masked = {entries, even.data(), 1.0f, 0.0f, 0.0f};
  rows.resize(8);
  rows[6] = {.temperature = 0.0f, .num_logprobs = 3, .adjustment = &penalized};
  rows[7] = {.seed = 5, .adjustment = &masked};
  const std::vector<float> logits = random_floats(rows.size() * kVocab, 3, 3.0f);
  const auto device = open();
  const auto reference = open_backend("reference");
  const auto expected = sample(*reference, logits, kVocab, rows);
  const auto together = sample(*device, logits, kVocab, rows);
  for (std::size_t b = 0; b < rows.size(); ++b) {
    const std::vector<float> row(logits.begin() + static_cast<std::ptrdiff_t>(b * kVocab),
                                 logits.begin() + static_cast<std::ptrdiff_t>((b + 1) * kVocab));
    const auto alone = sample(*device, row, kVocab, {rows[b]});
    EXPECT_EQ(together[b].token, expected[b].token) << b;
    EXPECT_EQ(alone[0].token, expected[b].token) << b;
    ASSERT_EQ(together[b].logprobs.size(), expected[b].logprobs.size()) << b;
    for (std::size_t i = 0; i < expected[b].logprobs.size(); ++i) {
      EXPECT_EQ(together[b].logprobs[i].token, expected[b].logprobs[i].token) << b;
      EXPECT_NEAR(together[b].logprobs[i].logprob, expected[b].logprobs[i].logprob, 1e-5) << b;
    }
  }
}

// A row more in every step: what steps need is not summed up over their sizes.
TEST(CudaDevice, StepsThatGrowFitWhereTheLargestDoes) {
  constexpr int kVocab = 40000, kMost = 40;
  const auto device = open();
  const std::vector<float> logits = random_floats(std::size_t{kMost} * kVocab, 3, 3.0f);
  LogitEntry entry{7, 1.0f, 2};
  LogitAdjustment adjustment;
  adjustment.entries = absl::MakeConstSpan(&entry, 1);
  const std::int64_t before = device->free_bytes();
  for (int rows = 1; rows <= kMost; ++rows) {
    std::vector<SampleRow> wishes(static_cast<std::size_t>(rows));
    for (SampleRow& wish : wishes) {
      wish.temperature = 0.0f;
      wish.adjustment = &adjustment;
    }
    sample(*device, logits, kVocab, wishes);
  }
  // Two steps may be under way; each has at most four times what the largest one needs.
  const std::int64_t largest = std::int64_t{kMost} * (kVocab * 4 + 80000);
  EXPECT_LT(before - device->free_bytes(), 2 * 4 * largest + (std::int64_t{kVocab} * kMost * 4));
}

// Four leaves of which the rank owns the first three: two maximal subtrees, two partial sums.
TEST(CudaDevice, ProductsWritePartialSumsOfSubtrees) {
  constexpr int kRows = 40, kColumns = 96, kTokens = 3;
  const std::vector<float> weights = random_floats(kRows * kColumns, 1);
  const std::vector<float> input = random_floats(kTokens * kColumns, 2);
  MatrixSource source;
  source.columns = kColumns;
  source.parts = {{reinterpret_cast<const std::byte*>(weights.data()), kColumns * 4, kRows}};
  source.sum = {{{0, 32}, {32, 64}, {64, 96}}, {0, 1, 0}, 2};
  const auto run = [&](Device& device) {
    auto weight = device.ops().pack(source);
    EXPECT_TRUE(weight.ok()) << weight.status();
    Buffer<float> in(device, input);
    Buffer<float> out(device, std::size_t{2} * kTokens * kRows);
    device.ops().linear(*weight, {in.data(), ActivationLayout::kF32, kTokens, kColumns}, nullptr,
                        out.data(), kRows, std::size_t{kTokens} * kRows);
    std::vector<float> values = out.read();
    device.free(weight->data);
    return values;
  };
  expect_near(run(*open("float32")), run(*open_backend("reference")), 1e-5f, 1e-5f);
}

TEST(CudaDevice, ACutInsideABlockIsRefused) {
  const std::vector<std::byte> bytes(row_bytes(Format::kQ8_0, 64));
  MatrixSource source;
  source.format = Format::kQ8_0;
  source.columns = 64;
  source.parts = {{bytes.data(), bytes.size(), 1}};
  source.sum = {{{0, 48}, {48, 64}}, {0, 1}, 1};
  const auto weight = open()->ops().pack(source);
  ASSERT_EQ(weight.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(weight.status().message()), HasSubstr("column 48"));
}

}  // namespace
}  // namespace quire::test
