// One answer, whatever way requests are served (kernels/README.md): 64 prompts on the project's own
// tiny models, by the real scheduler over real ranks; tokens and the bits of the logprobs. For each
// stored format, type of K and V and instruction set that this machine has.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

#include "tests/worker/one_answer_engine.h"
#include "tests/worker/one_answer_prompts.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

constexpr std::uint64_t kSeed = 20261124;
constexpr int kContext = 512;  // of the tiny models

using Storage = TinyOptions::Storage;

struct Kind {
  const char* name;
  Storage storage;
  Format matrices;  // instead, all of one format; kF32: as `storage` says
  const char* isa;
  const char* kv_dtype;
};

// All 2-d tensors in one format.
TinyOptions tiny_options(const Kind& kind) {
  TinyOptions tiny;
  tiny.seed = kSeed;
  tiny.storage = kind.storage;
  tiny.tied = kind.storage != Storage::kBf16;
  if (kind.matrices != Format::kF32) {
    tiny.edit = [format = kind.matrices](std::vector<TinyTensor>& tensors) {
      for (TinyTensor& tensor : tensors) {
        if (tensor.shape.size() == 2) tensor.format = format;
      }
    };
  }
  return tiny;
}

class OneAnswerMatrix : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    DeviceOptions device;
    device.kind = "cpu";
    device.isa = GetParam().isa;
    const auto opened = open_device(device);
    if (absl::IsNotFound(opened.status())) GTEST_SKIP() << opened.status().message();
    write_tiny_gguf(scratch_ / "tiny.gguf", tiny_options(GetParam()));
  }

  static GroupOptions options() {
    GroupOptions options;
    options.device = "cpu";
    options.dtype = "auto";
    options.kv_dtype = GetParam().kv_dtype;
    options.open_device = [](DeviceOptions device) {
      device.isa = GetParam().isa;
      return open_device(device);
    };
    options.limits = {.num_blocks = 64 * kContext / 16,
                      .block_size = 16,
                      .max_num_seqs = 64,
                      .max_num_batched_tokens = 10000,
                      .max_model_len = kContext};
    return options;
  }

  // Serves the requests in this way and compares with `want`, unless that is empty.
  Served serve_as(const Way& way, const std::vector<Prompt>& requests,
                  const std::vector<Output>& want) {
    const auto begin = std::chrono::steady_clock::now();
    auto group = open_for(scratch_ / "tiny.gguf", options(), way);
    EXPECT_TRUE(group.ok()) << group.status();
    if (!group.ok()) return {};
    auto served = serve(**group, requests, way);
    EXPECT_TRUE(served.ok()) << way.name << ": " << served.status();
    if (!served.ok()) return {};
    int different = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      const std::string differs = difference(served->outputs[i], want[i]);
      if (differs.empty()) continue;
      if (++different <= 3) ADD_FAILURE() << way.name << ", request " << i << ": " << differs;
    }
    EXPECT_EQ(different, 0) << way.name << ": so many of " << want.size() << " requests differ";
    const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin);
    const Traffic& traffic = served->traffic;
    std::printf(
        "%-28s %5.2f s, %d steps, rows <= %d, pieces <= %d, %lu preempted, %lu found, "
        "%lu guessed, %lu loaded\n",
        way.name.c_str(), seconds.count(), traffic.num_steps, traffic.most_rows,
        traffic.longest_piece, traffic.preemptions, traffic.prefix_hits, traffic.guesses,
        traffic.loaded_blocks);
    return *std::move(served);
  }
  // One after the other: what every way must give.
  std::vector<Output> serve_alone(const std::vector<Prompt>& requests) {
    return serve_as({.name = "alone", .together = 1}, requests, {}).outputs;
  }
  ScratchFolder scratch_;
};

// Each way for itself.
class OneAnswerInEveryWay : public OneAnswerMatrix {};

TEST_P(OneAnswerInEveryWay, ByTurnsGreedyAndSeeded) {
  constexpr int kTokens = 128;
  const auto prompts = answer_prompts(tiny_spec().vocab, kContext - kTokens);
  const auto requests = answer_requests(prompts, kTokens, Draw::kByTurns);
  const std::vector<Output> alone = serve_alone(requests);
  ASSERT_EQ(alone.size(), 64u);

  Traffic traffic = serve_as({.name = "64 together"}, requests, alone).traffic;
  EXPECT_EQ(traffic.most_rows, 64);
  EXPECT_EQ(traffic.cut_prompts, 0);
  for (const int chunk : {16, 64, 512}) {
    const std::string name = "chunks of " + std::to_string(chunk);
    traffic = serve_as({.name = name, .chunk = chunk}, requests, alone).traffic;
    EXPECT_LE(traffic.longest_piece, chunk);
    EXPECT_EQ(traffic.cut_prompts > 0, chunk < kContext - kTokens);
  }
  for (const int threads : {2, 3}) {
    serve_as({.name = std::to_string(threads) + " threads", .threads = threads}, requests, alone);
  }
  for (const int world : {2, 3, 4, 8}) {
    serve_as({.name = std::to_string(world) + " ranks", .world = world}, requests, alone);
  }
  traffic = serve_as({.name = "prefix cache", .prefix_cache = true, .rounds = 2}, requests, alone)
                .traffic;
  EXPECT_GT(traffic.prefix_hits, 1000u);
  for (const std::uint64_t seed : {1, 2, 3}) {
    const std::string name = "preempted, seed " + std::to_string(seed);
    const int blocks = 250 + static_cast<int>(seed) * 37;
    traffic = serve_as({.name = name, .blocks = blocks, .seed = seed}, requests, alone).traffic;
    EXPECT_GT(traffic.preemptions, 10u);
  }
  serve_as({.name = "guesses, 8 together", .together = 8, .guesses = 4}, requests, alone);
  traffic = serve_as({.name = "guesses", .together = 4, .guesses = 4}, requests, alone).traffic;
  EXPECT_GT(traffic.guesses, 100u);  // hardly ever right: the text is random
  traffic = serve_as({.name = "offload",
                      .blocks = 300,
                      .host_blocks = 2000,
                      .prefix_cache = true,
                      .rounds = 2},
                     requests, alone)
                .traffic;
  EXPECT_GT(traffic.loaded_blocks, 10u);
}

// All prompts in both ways to draw, all of it at once.
TEST_P(OneAnswerInEveryWay, GreedyAndThenSeeded) {
  constexpr int kTokens = 128;
  const auto prompts = answer_prompts(tiny_spec().vocab, kContext - kTokens);
  for (const Draw draw : {Draw::kGreedy, Draw::kSeeded}) {
    const auto requests = answer_requests(prompts, kTokens, draw);
    const std::vector<Output> alone = serve_alone(requests);
    ASSERT_EQ(alone.size(), 64u);
    const Traffic traffic = serve_as({.name = "all at once, 3 ranks",
                                      .world = 3,
                                      .threads = 2,
                                      .chunk = 64,
                                      .blocks = 400,
                                      .host_blocks = 400,
                                      .prefix_cache = true,
                                      .guesses = 3,
                                      .seed = 9},
                                     requests, alone)
                                .traffic;
    EXPECT_GT(traffic.preemptions, 5u);
  }
}

// Several ways at once, for every format, type of K and V, and instruction set.
TEST_P(OneAnswerMatrix, InSeveralWaysAtOnce) {
  constexpr int kTokens = 48;
  const auto prompts = answer_prompts(tiny_spec().vocab, 300);
  const auto requests = answer_requests(prompts, kTokens, Draw::kByTurns);
  const std::vector<Output> alone = serve_alone(requests);
  ASSERT_EQ(alone.size(), 64u);
  const Way ways[] = {
      {.name = "1 rank of 3 threads, chunks of 512", .threads = 3, .chunk = 512},
      {.name = "2 ranks, chunks of 16, cached",
       .world = 2,
       .chunk = 16,
       .prefix_cache = true,
       .rounds = 2},
      {.name = "3 ranks, chunks of 64, preempted",
       .world = 3,
       .chunk = 64,
       .blocks = 80,
       .seed = 5},
      {.name = "4 ranks, whole", .world = 4},
  };
  for (const Way& way : ways) {
    const Traffic traffic = serve_as(way, requests, alone).traffic;
    EXPECT_EQ(traffic.preemptions > 3, way.blocks > 0) << way.name;
    EXPECT_EQ(traffic.prefix_hits > 0, way.prefix_cache) << way.name;
  }
}

constexpr Format kAsStored = Format::kF32;
constexpr Kind kThorough[] = {
    {"mixed", Storage::kMixed, kAsStored, "auto", "auto"},
    {"mixed_int8", Storage::kMixed, kAsStored, "auto", "int8"},
};
constexpr Kind kKinds[] = {
    {"f32_avx512", Storage::kF32, kAsStored, "avx512", "auto"},
    {"f32_avx2", Storage::kF32, kAsStored, "avx2", "auto"},
    {"bf16_avx512", Storage::kBf16, kAsStored, "avx512", "auto"},
    {"bf16_avx2", Storage::kBf16, kAsStored, "avx2", "auto"},
    {"q8_0_avx512", Storage::kF32, Format::kQ8_0, "avx512", "auto"},
    {"q8_0_avx2", Storage::kF32, Format::kQ8_0, "avx2", "auto"},
    {"q4_0_avx512", Storage::kF32, Format::kQ4_0, "avx512", "auto"},
    {"q4_0_avx2", Storage::kF32, Format::kQ4_0, "avx2", "auto"},
    {"q4_1_avx512", Storage::kF32, Format::kQ4_1, "avx512", "auto"},
    {"q4_1_avx2", Storage::kF32, Format::kQ4_1, "avx2", "auto"},
    {"q4_k_avx512", Storage::kSuperblocks, Format::kQ4_K, "avx512", "auto"},
    {"q4_k_avx2", Storage::kSuperblocks, Format::kQ4_K, "avx2", "auto"},
    {"q6_k_avx512", Storage::kSuperblocks, Format::kQ6_K, "avx512", "auto"},
    {"q6_k_avx2", Storage::kSuperblocks, Format::kQ6_K, "avx2", "auto"},
    {"q4_k_m_avx512", Storage::kSuperblocks, kAsStored, "avx512", "auto"},
    {"mixed_layers", Storage::kMixedLayers, kAsStored, "auto", "auto"},
    {"mixed_kv_f32_avx512", Storage::kMixed, kAsStored, "avx512", "float32"},
    {"mixed_kv_bf16_avx512", Storage::kMixed, kAsStored, "avx512", "bfloat16"},
    {"mixed_kv_bf16_avx2", Storage::kMixed, kAsStored, "avx2", "bfloat16"},
    {"mixed_kv_int8_avx512", Storage::kMixed, kAsStored, "avx512", "int8"},
    {"mixed_kv_int8_avx2", Storage::kMixed, kAsStored, "avx2", "int8"},
    {"bf16_kv_int8_avx512", Storage::kBf16, kAsStored, "avx512", "int8"},
    {"bf16_kv_f16_avx512", Storage::kBf16, kAsStored, "avx512", "float16"},
    {"bf16_kv_f32_avx512", Storage::kBf16, kAsStored, "avx512", "float32"},
};
std::string name_of_kind(const testing::TestParamInfo<Kind>& each) {
  return each.param.name;
}
INSTANTIATE_TEST_SUITE_P(Kinds, OneAnswerInEveryWay, testing::ValuesIn(kThorough), name_of_kind);
INSTANTIATE_TEST_SUITE_P(Kinds, OneAnswerMatrix, testing::ValuesIn(kKinds), name_of_kind);

}  // namespace
}  // namespace quire::test
