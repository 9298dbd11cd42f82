// Paged attention of SmolLM2-135M's, Llama-3.2-1B's and Llama-3-8B's heads on the CPU device, one
// layer, beside the machine's own limits in the same run.
//   ceiling/...                          instructions and memory reads, as in bench_linear
//   decode/<model>/<kv>/<rows>x<context>           one token each of `rows` sequences
//   prefill/<model>/<kv>/<tokens>@<context>        a chunk that ends at `context`
// Counters: bytes = K and V read once; ops = 4 D per query head and position it sees.
// After all others: --threads=N of the device (2), --isa=NAME, its path (auto).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "bench/kernels/ceiling.h"
#include "bench/kernels/team.h"
#include "kernels/device.h"
#include "kernels/host_memory.h"
#include "kernels/ops.h"

namespace quire::bench {
namespace {

using benchmark::Counter;

struct Heads {
  const char* name;
  int query, kv, dim;
};
constexpr Heads kModels[] = {
    {"smollm2", 9, 3, 64}, {"llama-1b", 32, 8, 64}, {"llama-8b", 32, 8, 128}};
constexpr int kBlockSize = 16;

// Sequences of equal length whose last `tokens` tokens are the step's.
class Problem {
 public:
  Problem(const Heads& heads, DType dtype, int rows, int context, int tokens,
          const DeviceOptions& device)
      : heads_(heads), rows_(rows), context_(context), tokens_(tokens) {
    device_ = std::move(open_device(device)).value();
    spec_ = {.num_heads = heads.query,
             .num_kv_heads = heads.kv,
             .head_dim = heads.dim,
             .group_heads = heads.query / heads.kv,
             .scale = 1.0f / std::sqrt(static_cast<float>(heads.dim))};
    const int blocks = (context + kBlockSize - 1) / kBlockSize;
    for (int i = 0; i < rows * blocks; ++i) tables_.push_back(i);
    const std::size_t bytes = device_->ops().kv_block_bytes(dtype, heads.kv, heads.dim, kBlockSize);
    kv_ = {.data = allocate<std::byte>(bytes * tables_.size()),
           .block_bytes = bytes,
           .dtype = dtype,
           .num_kv_heads = heads.kv,
           .head_dim = heads.dim,
           .block_size = kBlockSize};
    const int widest = std::max(context, rows * tokens);
    qkv_ = allocate<float>(static_cast<std::size_t>(widest) * width());
    angles_ = allocate<float>(static_cast<std::size_t>(context * heads.dim));
    for (int i = 0; i < context * heads.dim; ++i) angles_[i] = i % 2 == 0 ? 0.8f : 0.6f;
    for (int row = 0; row < rows; ++row) fill(row);
    prepare_step();
  }

  void run() {
    device_->ops().attention(qkv_, spec_, batch_, kv_, out_);
    if (!device_->wait().ok()) std::abort();
  }
  double bytes() const {
    return static_cast<double>(kv_.block_bytes) / kBlockSize * context_ * rows_;
  }
  double ops() const {
    double seen = 0;
    for (int t = 0; t < tokens_; ++t) seen += context_ - t;
    return 4.0 * heads_.dim * heads_.query * rows_ * seen;
  }

 private:
  std::size_t width() const {
    return static_cast<std::size_t>((heads_.query + 2 * heads_.kv) * heads_.dim);
  }
  template <class T>
  T* allocate(std::size_t count) {
    return static_cast<T*>(device_->allocate(count * sizeof(T), "a bench").value());
  }
  void randomize(std::size_t count) {
    std::normal_distribution<float> value;
    for (std::size_t i = 0; i < count; ++i) qkv_[i] = value(random_);
  }
  void lay_out(int first_row, int rows, int tokens) {
    begins_ = {0};
    positions_.clear();
    rows_of_.clear();
    contexts_.clear();
    for (int row = 0; row < rows; ++row) {
      for (int t = 0; t < tokens; ++t) {
        positions_.push_back(context_ - tokens + t);
        rows_of_.push_back(row);
      }
      begins_.push_back(static_cast<std::int32_t>(positions_.size()));
      contexts_.push_back(context_);
    }
    const int blocks = static_cast<int>(tables_.size()) / rows_;
    batch_ = {};
    batch_.num_tokens = rows * tokens;
    batch_.num_rows = rows;
    batch_.block_size = kBlockSize;
    batch_.max_blocks = blocks;
    batch_.positions = positions_.data();
    batch_.row_of_token = rows_of_.data();
    batch_.row_begin = begins_.data();
    batch_.context = contexts_.data();
    batch_.block_tables = tables_.data() + first_row * blocks;
  }
  void fill(int row) {
    lay_out(row, 1, context_);
    randomize(static_cast<std::size_t>(context_) * width());
    RopeSpec rope;
    rope.dims = heads_.dim;
    device_->ops().rope_store(qkv_, spec_, rope, angles_, batch_, kv_);
    if (!device_->wait().ok()) std::abort();
  }
  void prepare_step() {
    lay_out(0, rows_, tokens_);
    randomize(static_cast<std::size_t>(batch_.num_tokens) * width());
    const int columns = heads_.query * heads_.dim;
    out_ = {.layout = ActivationLayout::kQ8, .rows = batch_.num_tokens, .columns = columns};
    out_.data =
        allocate<std::byte>(device_->ops().activation_bytes(out_.layout, out_.rows, out_.columns));
  }

  const Heads heads_;
  const int rows_, context_, tokens_;
  std::unique_ptr<Device> device_;
  std::mt19937 random_{7};
  AttentionSpec spec_;
  KvLayer kv_;
  Batch batch_;
  Activation out_;
  float* qkv_ = nullptr;
  float* angles_ = nullptr;
  std::vector<BlockId> tables_;
  std::vector<std::int32_t> positions_, rows_of_, begins_, contexts_;
};

Counter rate(double per_iteration) {
  return {per_iteration, Counter::kIsIterationInvariantRate, Counter::OneK::kIs1000};
}

void add_case(const std::string& name, const Heads& heads, DType dtype, int rows, int context,
              int tokens, const DeviceOptions& device) {
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
    Problem problem(heads, dtype, rows, context, tokens, device);
    problem.run();
    for (auto _ : state) problem.run();
    state.counters["bytes"] = rate(problem.bytes());
    state.counters["ops"] = rate(problem.ops());
  })->UseRealTime();
}

void add_ceiling(const char* name, void (*run)(long), double ops, int threads) {
  benchmark::RegisterBenchmark(name, [=](benchmark::State& state) {
    Team team(threads);
    constexpr long kRounds = 200000;
    for (auto _ : state) team.run([&](int, Team&) { run(kRounds); });
    state.counters["ops"] = rate(ops * kInstructionsPerRound * kRounds * threads);
  })->UseRealTime();
}

void add_all(const DeviceOptions& device) {
  const int threads = device.num_threads;
  add_ceiling("ceiling/fma", &run_fma, kOpsPerFma, threads);
  add_ceiling("ceiling/dpbf16", &run_dpbf16, kOpsPerDpbf16, threads);
  add_ceiling("ceiling/dpbusd", &run_dpbusd, kOpsPerDpbusd, threads);
  benchmark::RegisterBenchmark("ceiling/read", [=](benchmark::State& state) {
    constexpr std::size_t kBytes = 256u << 20;
    HostMemory memory;  // as weights and the arena lie
    auto* data = static_cast<std::byte*>(memory.allocate(kBytes, "reading").value());
    std::fill_n(data, kBytes, std::byte{1});
    Team team(threads);
    const std::size_t share = kBytes / static_cast<std::size_t>(threads);
    for (auto _ : state) {
      team.run([&](int thread, Team&) {
        read_memory(data + static_cast<std::size_t>(thread) * share, share);
      });
    }
    state.counters["bytes"] = rate(kBytes);
  })->UseRealTime();
  for (const Heads& heads : kModels) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16, DType::kI8}) {
      const std::string model = absl::StrCat(heads.name, "/", name_of(dtype), "/");
      for (const int context : {128, 512, 1024, 2048, 4096, 8192}) {
        const int rows = std::max(1, 32768 / context / (heads.dim * heads.kv / 192));
        add_case(absl::StrCat("decode/", model, rows, "x", context), heads, dtype, rows, context, 1,
                 device);
      }
      for (const int tokens : {4, 16, 64, 128, 512}) {
        for (const int context : {128, 512, 1024, 2048, 4096, 8192}) {
          if (tokens > context) continue;
          add_case(absl::StrCat("prefill/", model, tokens, "@", context), heads, dtype, 1, context,
                   tokens, device);
        }
      }
    }
  }
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  quire::DeviceOptions device;
  device.kind = "cpu";
  device.num_threads = 2;
  benchmark::Initialize(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    absl::string_view value = argv[i];
    if (absl::ConsumePrefix(&value, "--isa=")) {
      device.isa = std::string(value);
    } else if (!absl::ConsumePrefix(&value, "--threads=") ||
               !absl::SimpleAtoi(value, &device.num_threads) || device.num_threads < 1) {
      std::fprintf(stderr, "bench_attention: unknown argument %s\n", argv[i]);
      return 64;
    }
  }
  const auto opened = quire::open_device(device);
  if (!opened.ok()) {
    std::fprintf(stderr, "bench_attention: %s\n", std::string(opened.status().message()).c_str());
    return 64;
  }
  quire::bench::add_all(device);
  benchmark::RunSpecifiedBenchmarks();
}
