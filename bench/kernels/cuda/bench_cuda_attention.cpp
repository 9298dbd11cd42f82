// Paged attention of one layer on the GPU: decode as a share of memory bandwidth (also with K and V
// in fp8, and with a prefix that all rows share), prefill in TFLOP/s. Heads of Llama-3-8B (32
// query, 8 KV, 128 wide) and of LLaMA-7B (32 of each), bf16 KV, blocks of 16 in scrambled order.
//   bench_cuda_attention [--tiny] [--only decode|prefill]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>

#include "bench/kernels/cuda/measure.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/row/row.h"

namespace quire::bench {
namespace {

struct Shape {
  const char* name;
  int heads, kv_heads, head_dim;
};

struct Rows {
  int rows;     // B
  int tokens;   // of each in this step
  int context;  // of each after it
  DType dtype = DType::kBf16;
  int shared = 0;  // positions at the beginning that all rows have in the same blocks
};

constexpr int kBlockSize = 16;

// One batch and its arena. `copies` arenas where one would stay in the L2.
class Problem {
 public:
  Problem(const Shape& shape, const Rows& rows) : shape_(shape), rows_(rows) {
    spec_.num_heads = shape.heads;
    spec_.num_kv_heads = shape.kv_heads;
    spec_.head_dim = shape.head_dim;
    spec_.group_heads = shape.heads / shape.kv_heads;
    spec_.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    const int tokens = rows.rows * rows.tokens;
    const auto width =
        static_cast<std::size_t>((shape.heads + 2 * shape.kv_heads) * shape.head_dim);
    qkv_ = std::make_unique<DeviceMemory>(static_cast<std::size_t>(tokens) * width * 4);
    qkv_->randomize_f32(1);
    out_ = std::make_unique<DeviceMemory>(static_cast<std::size_t>(tokens * shape.heads) *
                                          static_cast<std::size_t>(shape.head_dim) * 2);
    make_arenas();
    make_batch(tokens);
    workspace_ = std::make_unique<DeviceMemory>(
        std::max<std::size_t>(1, cuda::attention_workspace_bytes(spec_, tokens, rows.context)));
  }

  cudaError_t run(cudaStream_t stream, int i) const {
    KvLayer kv;
    kv.data = arenas_[static_cast<std::size_t>(i) % arenas_.size()]->as<std::byte>();
    kv.block_bytes = block_bytes_;
    kv.dtype = rows_.dtype;
    kv.num_kv_heads = shape_.kv_heads;
    kv.head_dim = shape_.head_dim;
    kv.block_size = kBlockSize;
    const Activation out{out_->as<void>(), ActivationLayout::kBf16, batch_.num_tokens,
                         shape_.heads * shape_.head_dim};
    return cuda::attention(stream, qkv_->as<float>(), spec_, batch_, kv, rows_.context,
                           workspace_->as<void>(), out);
  }

  std::string refusal() const { return cuda::attention_refusal(spec_, rows_.dtype, kBlockSize); }
  // K and V of all rows, once.
  double kv_bytes() const {
    const double positions = 1.0 * rows_.rows * (rows_.context - rows_.shared) + rows_.shared;
    return positions * static_cast<double>(block_bytes_) / kBlockSize;
  }
  double flops() const {  // causal: the tokens of a row see context - tokens + 1 .. context
    const double seen = rows_.tokens * (rows_.context - (rows_.tokens - 1) / 2.0);
    return 4.0 * rows_.rows * seen * shape_.heads * shape_.head_dim;
  }

 private:
  int blocks_of_row() const { return (rows_.context + kBlockSize - 1) / kBlockSize; }

  void make_arenas() {
    block_bytes_ = cuda::kv_block_bytes(DType::kBf16, shape_.kv_heads, shape_.head_dim, kBlockSize);
    const std::size_t bytes = block_bytes_ * static_cast<std::size_t>(rows_.rows * blocks_of_row());
    const int copies = rows_.tokens > 1 ? 1 : copies_to_miss_l2(bytes);
    for (int c = 0; c < copies; ++c) {
      arenas_.push_back(std::make_unique<DeviceMemory>(bytes));
      arenas_.back()->randomize_bf16(static_cast<std::uint32_t>(c) + 7);
    }
  }

  void make_batch(int tokens) {
    std::vector<std::int32_t> numbers;
    const auto append = [&numbers](const std::vector<std::int32_t>& values) {
      const std::size_t at = numbers.size();
      numbers.insert(numbers.end(), values.begin(), values.end());
      return at;
    };
    std::vector<std::int32_t> positions, row_of_token, begin{0};
    for (int r = 0; r < rows_.rows; ++r) {
      for (int t = 0; t < rows_.tokens; ++t) {
        positions.push_back(rows_.context - rows_.tokens + t);
        row_of_token.push_back(r);
      }
      begin.push_back(static_cast<std::int32_t>(positions.size()));
    }
    std::vector<std::int32_t> blocks(static_cast<std::size_t>(rows_.rows * blocks_of_row()));
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937(3));
    for (int r = 1; r < rows_.rows; ++r) {
      std::copy_n(blocks.begin(), rows_.shared / kBlockSize, blocks.begin() + r * blocks_of_row());
    }
    std::vector<std::int32_t> row_ids(static_cast<std::size_t>(rows_.rows));
    std::iota(row_ids.begin(), row_ids.end(), 0);
    const std::size_t at_positions = append(positions), at_rows = append(row_of_token),
                      at_begin = append(begin),
                      at_context = append(std::vector<std::int32_t>(
                          static_cast<std::size_t>(rows_.rows), rows_.context)),
                      at_blocks = append(blocks),
                      at_runs = append({0, rows_.rows, 0, rows_.shared}),
                      at_shared_rows = append(row_ids),
                      at_shared = append(std::vector<std::int32_t>(
                          static_cast<std::size_t>(rows_.rows), rows_.shared));
    numbers_ = std::make_unique<DeviceMemory>(numbers.size() * 4);
    numbers_->upload(numbers.data(), numbers.size() * 4);
    const auto* base = numbers_->as<std::int32_t>();
    batch_.num_tokens = tokens;
    batch_.num_rows = rows_.rows;
    batch_.block_size = kBlockSize;
    batch_.max_blocks = blocks_of_row();
    batch_.positions = base + at_positions;
    batch_.row_of_token = base + at_rows;
    batch_.row_begin = base + at_begin;
    batch_.context = base + at_context;
    batch_.block_tables = base + at_blocks;
    if (rows_.shared == 0) return;
    batch_.num_shared_runs = 1;
    batch_.shared_runs = base + at_runs;
    batch_.shared_rows = base + at_shared_rows;
    batch_.shared_of_row = base + at_shared;
  }

  const Shape shape_;
  const Rows rows_;
  AttentionSpec spec_;
  Batch batch_;
  std::size_t block_bytes_ = 0;
  std::vector<std::unique_ptr<DeviceMemory>> arenas_;
  std::unique_ptr<DeviceMemory> qkv_, out_, numbers_, workspace_;
};

void bench_decode(const Shape& shape, const Rows& rows, const Ceilings& ceilings,
                  const Effort& effort) {
  const Problem problem(shape, rows);
  if (const std::string refusal = problem.refusal(); !refusal.empty()) {
    Line("cuda_attention_decode").add("kv", name_of(rows.dtype)).add("refused", refusal);
    return;
  }
  const Times times =
      measure([&](cudaStream_t stream, int i) { return problem.run(stream, i); }, effort);
  const double rate = problem.kv_bytes() / times.median_us / 1e3;
  Line("cuda_attention_decode")
      .add("heads", shape.name)
      .add("batch", rows.rows)
      .add("context", rows.context)
      .add("kv", name_of(rows.dtype))
      .add("shared", rows.shared)
      .add("kv_mb", problem.kv_bytes() / 1e6)
      .add(times)
      .add("gb_s", rate)
      .add("hbm_share", rate / ceilings.read_gb_s);
}

void bench_prefill(const Shape& shape, const Rows& rows, const Effort& effort) {
  const Problem problem(shape, rows);
  const Times times =
      measure([&](cudaStream_t stream, int i) { return problem.run(stream, i); }, effort);
  Line("cuda_attention_prefill")
      .add("heads", shape.name)
      .add("rows", rows.rows)
      .add("tokens", rows.tokens)
      .add("context", rows.context)
      .add(times)
      .add("tflop_s", problem.flops() / times.median_us / 1e6);
}

int run(bool tiny, const std::string& only) {
  const Shape gqa{"gqa 32/8 x 128", 32, 8, 128}, mha{"mha 32/32 x 128", 32, 32, 128};
  const Shape small{"gqa 4/2 x 64", 4, 2, 64};
  const Effort effort = tiny ? tiny_effort() : Effort{};
  const Ceilings ceilings =
      measure_ceilings(tiny ? std::size_t{1} << 16 : std::size_t{2} << 30, effort);
  if (only != "prefill") {
    if (tiny) {
      for (const int batch : {1, 3}) bench_decode(small, {batch, 1, 40}, ceilings, effort);
      bench_decode(small, {3, 1, 300, DType::kBf16, 256}, ceilings, effort);
    } else {
      bench_decode(gqa, {1, 1, 1024}, ceilings, effort);
      for (const int batch : {1, 16, 64, 256}) {
        for (const int context : {512, 4096, 32768}) {
          bench_decode(gqa, {batch, 1, context}, ceilings, effort);
        }
      }
      bench_decode(gqa, {64, 1, 4096, DType::kF8E4M3}, ceilings, effort);
      bench_decode(gqa, {64, 1, 4096, DType::kBf16, 2048}, ceilings, effort);
      bench_decode(gqa, {64, 1, 4096, DType::kBf16, 3840}, ceilings, effort);
      bench_decode(mha, {16, 1, 2048}, ceilings, effort);
      bench_decode(mha, {64, 1, 512}, ceilings, effort);
    }
  }
  if (only == "decode") return 0;
  if (tiny) {
    bench_prefill(small, {1, 40, 60}, effort);
    return 0;
  }
  for (const int tokens : {512, 2048, 8192, 16384}) bench_prefill(gqa, {1, tokens, tokens}, effort);
  bench_prefill(gqa, {16, 512, 512}, effort);
  bench_prefill(gqa, {1, 2048, 10240}, effort);  // a chunk on top of a cached prefix
  bench_prefill(mha, {4, 2048, 2048}, effort);
  return 0;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  return quire::bench::run_with_options(
      argc, argv, "bench_cuda_attention [--tiny] [--only decode|prefill]", quire::bench::run);
}
