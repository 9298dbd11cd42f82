#include "tests/kernels/cuda/attention_harness.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "kernels/cuda/row/row.h"
#include "kernels/formats/f8_e4m3.h"
#include "kernels/formats/half.h"
#include "kernels/shared_runs.h"

namespace quire::test {
namespace {

// Device memory of exactly this content, guarded by the emulation on both sides.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : count_(values.size()) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), std::max<std::size_t>(bytes(), 1)),
              cudaSuccess);
    write(values);
  }
  ~DeviceArray() { EXPECT_EQ(cudaFree(data_), cudaSuccess); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  void write(const std::vector<T>& values) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice), cudaSuccess);
  }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }

 private:
  std::size_t bytes() const { return count_ * sizeof(T); }
  T* data_ = nullptr;
  std::size_t count_;
};

// Codes of n values; returns their scale as the arena has it.
std::byte store_f8(const float* from, int n, std::byte* to) {
  float largest = 0.0f;
  for (int i = 0; i < n; ++i) largest = std::max(largest, std::fabs(from[i]));
  const int exponent = static_cast<int>(std::ceil(std::log2(static_cast<double>(largest) / 448.0)));
  for (int i = 0; i < n; ++i) {
    const float scaled = std::ldexp(from[i], -exponent);
    formats::F8E4M3::encode(&scaled, &to[i]);
  }
  return static_cast<std::byte>(exponent + 127);
}

// All sequences of a case and how far they have come.
class Sequences {
 public:
  Sequences(const AttentionCase& c, const CudaAttentionOptions& options)
      : case_(c),
        prefixes_(options.prefixes),
        done_(c.lengths.size()),
        block_bytes_(cuda::kv_block_bytes(c.dtype, c.num_kv_heads, c.head_dim, c.block_size)) {
    const int longest = *std::max_element(c.lengths.begin(), c.lengths.end());
    width_ = (longest + c.block_size - 1) / c.block_size;
    blocks_.resize(c.lengths.size() * static_cast<std::size_t>(width_));
    std::iota(blocks_.begin(), blocks_.end(), 1);  // block 0 belongs to nobody
    std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(11));
    arena_.assign((blocks_.size() + 1) * block_bytes_, std::byte{0xff});
  }

  // What the step's batch consists of; K and V of its tokens are in the arena afterwards.
  void advance(const Step& step) {
    positions.clear(), rows.clear(), context.clear(), tables.clear(), qkv.clear();
    sources.clear();
    begin = {0};
    for (std::size_t s = 0; s < step.size(); ++s) {
      if (step[s] == 0) continue;
      for (int i = 0; i < step[s]; ++i) add_token(static_cast<int>(s), done_[s]++);
      begin.push_back(static_cast<std::int32_t>(positions.size()));
      context.push_back(done_[s]);
      const int first_seen = case_.window > 0 ? done_[s] - step[s] + 1 - case_.window : 0;
      for (int b = 0; b < width_; ++b) {
        const bool used =
            b * case_.block_size < done_[s] && (b + 1) * case_.block_size > first_seen;
        tables.push_back(used ? block(static_cast<int>(s), b) : -1000000);
      }
    }
  }

  const std::vector<std::byte>& arena() const { return arena_; }
  std::size_t block_bytes() const { return block_bytes_; }
  int width() const { return width_; }

  std::vector<std::int32_t> positions, rows, begin, context;
  std::vector<BlockId> tables;
  std::vector<float> qkv;
  std::vector<std::pair<int, int>> sources;  // (sequence, position)

 private:
  // Whose K and V lie at a sequence's position.
  int owner(int sequence, int position) const {
    const auto s = static_cast<std::size_t>(sequence);
    if (s >= prefixes_.size() || position >= prefixes_[s].positions) return sequence;
    return owner(prefixes_[s].sequence, position);
  }
  BlockId block(int sequence, int number) const {
    sequence = owner(sequence, number * case_.block_size);
    return blocks_[static_cast<std::size_t>(sequence * width_ + number)];
  }

  void add_token(int sequence, int position) {
    std::vector<float> row = qkv_row(case_, sequence, position);
    const std::vector<float> kv = qkv_row(case_, owner(sequence, position), position);
    const auto queries = static_cast<std::ptrdiff_t>(case_.num_heads * case_.head_dim);
    std::copy(kv.begin() + queries, kv.end(), row.begin() + queries);
    positions.push_back(position);
    rows.push_back(static_cast<std::int32_t>(context.size()));
    sources.emplace_back(sequence, position);
    qkv.insert(qkv.end(), row.begin(), row.end());
    for (int half = 0; half < 2; ++half) {
      for (int g = 0; g < case_.num_kv_heads; ++g) {
        const int head = case_.num_heads + half * case_.num_kv_heads + g;
        store(row.data() + head * case_.head_dim, half * case_.num_kv_heads + g,
              block(sequence, position / case_.block_size), position % case_.block_size);
      }
    }
  }

  void store(const float* from, int half_and_head, BlockId block_id, int offset) {
    const std::size_t size = size_of(case_.dtype);
    std::byte* to =
        arena_.data() + static_cast<std::size_t>(block_id) * block_bytes_ +
        static_cast<std::size_t>((half_and_head * case_.block_size + offset) * case_.head_dim) *
            size;
    if (case_.dtype == DType::kF8E4M3) {
      const auto values = static_cast<std::size_t>(2 * case_.num_kv_heads * case_.block_size) *
                          static_cast<std::size_t>(case_.head_dim);
      arena_[static_cast<std::size_t>(block_id) * block_bytes_ + values +
             static_cast<std::size_t>(half_and_head * case_.block_size + offset)] =
          store_f8(from, case_.head_dim, to);
      return;
    }
    for (int d = 0; d < case_.head_dim; ++d, to += size) {
      if (case_.dtype == DType::kF32) {
        std::memcpy(to, from + d, size);
      } else if (case_.dtype == DType::kF16) {
        const Half x = to_half(from[d]);
        std::memcpy(to, &x.bits, size);
      } else {
        const Bf16 x = to_bf16(from[d]);
        std::memcpy(to, &x.bits, size);
      }
    }
  }

  const AttentionCase& case_;
  const std::vector<CudaAttentionOptions::Prefix> prefixes_;
  std::vector<int> done_;
  std::vector<BlockId> blocks_;
  std::vector<std::byte> arena_;
  std::size_t block_bytes_;
  int width_ = 0;
};

AttentionRun empty_run(const AttentionCase& c) {
  AttentionRun run;
  for (const int length : c.lengths) {
    run.bytes.emplace_back(static_cast<std::size_t>(length));
    run.floats.emplace_back(static_cast<std::size_t>(length));
  }
  return run;
}

std::vector<float> as_floats(const std::vector<std::byte>& bytes, ActivationLayout layout) {
  std::vector<float> values;
  const std::size_t size = layout == ActivationLayout::kF32 ? 4 : 2;
  for (std::size_t i = 0; i < bytes.size(); i += size) {
    float x = 0.0f;
    if (layout == ActivationLayout::kF32) {
      std::memcpy(&x, bytes.data() + i, size);
    } else {
      Bf16 half;
      std::memcpy(&half.bits, bytes.data() + i, size);
      x = to_float(half);
    }
    values.push_back(x);
  }
  return values;
}

// The step that `s` has advanced to, in device memory.
class DeviceBatch {
 public:
  DeviceBatch(const AttentionCase& c, const Sequences& s, const CudaAttentionOptions& o)
      : positions_(padded(s.positions, o.padding_tokens, 1 << 20)),
        rows_(padded(s.rows, o.padding_tokens, 0)),
        begin_(padded(s.begin, o.padding_rows, s.begin.back())),
        context_(padded(s.context, o.padding_rows, 0)),
        tables_(padded(s.tables, o.padding_rows * s.width(), -1000000)),
        runs_(o.tell_shared_runs ? find_runs(s, c.block_size) : SharedRuns()),
        shared_runs_(padded(runs_.runs(), 4 * (o.padding_rows + 1), 0)),
        shared_rows_(padded(runs_.rows(), 1, -1)),
        shared_of_row_(padded(runs_.of_row(), o.padding_rows, 0)) {
    batch_.num_tokens = static_cast<int>(s.positions.size()) + o.padding_tokens;
    batch_.num_rows = static_cast<int>(s.context.size()) + o.padding_rows;
    batch_.block_size = c.block_size;
    batch_.max_blocks = s.width();
    batch_.positions = positions_.data();
    batch_.row_of_token = rows_.data();
    batch_.row_begin = begin_.data();
    batch_.context = context_.data();
    batch_.block_tables = tables_.data();
    if (!o.tell_shared_runs) return;
    EXPECT_GT(runs_.count(), 0);
    batch_.num_shared_runs = runs_.count() + o.padding_rows;
    batch_.shared_runs = shared_runs_.data();
    batch_.shared_rows = shared_rows_.data();
    batch_.shared_of_row = shared_of_row_.data();
  }
  const Batch& get() const { return batch_; }

 private:
  static std::vector<std::int32_t> padded(std::vector<std::int32_t> values, int count,
                                          std::int32_t value) {
    values.resize(values.size() + static_cast<std::size_t>(count), value);
    return values;
  }
  static SharedRuns find_runs(const Sequences& s, int block_size) {
    Batch host;
    host.num_rows = static_cast<int>(s.context.size());
    host.block_size = block_size;
    host.max_blocks = s.width();
    host.row_begin = s.begin.data();
    host.context = s.context.data();
    host.block_tables = s.tables.data();
    SharedRuns runs;
    runs.find(host);
    return runs;
  }

  const DeviceArray<std::int32_t> positions_, rows_, begin_, context_, tables_;
  const SharedRuns runs_;
  const DeviceArray<std::int32_t> shared_runs_, shared_rows_, shared_of_row_;
  Batch batch_;
};

// Calls `enqueue` with a stream and waits; as_graph: it is captured, and the graph launched twice.
template <class Enqueue>
void run_on_stream(bool as_graph, const Enqueue& enqueue) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  if (as_graph) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    EXPECT_EQ(enqueue(stream), cudaSuccess);
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    EXPECT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
    EXPECT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  } else {
    EXPECT_EQ(enqueue(stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

// The bytes of the batch's tokens; what belongs to padding is checked and left out.
std::vector<std::byte> run_step(const AttentionCase& c, const Sequences& s, ActivationLayout layout,
                                const CudaAttentionOptions& o) {
  const AttentionSpec spec{c.num_heads,
                           c.num_kv_heads,
                           c.head_dim,
                           c.first_head,
                           c.first_kv_head,
                           c.group_heads,
                           o.query_scale / std::sqrt(static_cast<float>(c.head_dim)),
                           c.window,
                           c.soft_cap};
  EXPECT_EQ(cuda::attention_refusal(spec, c.dtype, c.block_size), "");
  const DeviceArray<std::byte> arena(s.arena());
  const DeviceArray<float> qkv(s.qkv);
  const DeviceBatch batch(c, s, o);
  const KvLayer kv{arena.data(),   s.block_bytes(), c.dtype,
                   c.num_kv_heads, c.head_dim,      c.block_size};
  const int longest = *std::max_element(s.context.begin(), s.context.end());
  const int max_context = std::max(longest, o.max_context);
  const int tokens = batch.get().num_tokens;
  const DeviceArray<std::byte> workspace(std::vector<std::byte>(
      cuda::attention_workspace_bytes(spec, tokens, max_context, o.limits), std::byte{0xff}));
  const int columns = c.num_heads * c.head_dim;
  const std::size_t row_bytes =
      static_cast<std::size_t>(columns) * (layout == ActivationLayout::kF32 ? 4 : 2);
  const DeviceArray<std::byte> out(
      std::vector<std::byte>(static_cast<std::size_t>(tokens) * row_bytes, std::byte{0xff}));
  run_on_stream(o.as_graph, [&](cudaStream_t stream) {
    return cuda::attention(stream, qkv.data(), spec, batch.get(), kv, max_context, workspace.data(),
                           {out.data(), layout, tokens, columns}, o.limits);
  });
  std::vector<std::byte> bytes = out.read();
  const std::size_t used = s.positions.size() * row_bytes;
  EXPECT_TRUE(std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(used), bytes.end(),
                          [](std::byte b) { return b == std::byte{0xff}; }))
      << "written for tokens of no row";
  bytes.resize(used);
  return bytes;
}

}  // namespace

std::vector<float> qkv_row(const AttentionCase& c, int sequence, int position) {
  const int heads = c.num_heads + 2 * c.num_kv_heads;
  return random_floats(static_cast<std::size_t>(heads * c.head_dim),
                       static_cast<std::uint32_t>(sequence * 100003 + position + 1));
}

AttentionRun reference_attention(const AttentionCase& c) {
  AttentionCase unrotated = c;
  unrotated.rope_dims = 0;
  const auto device = open_backend("reference");
  return run_attention(*device, unrotated, whole(unrotated), ActivationLayout::kF32);
}

AttentionRun cuda_attention(const AttentionCase& c, const std::vector<Step>& steps,
                            ActivationLayout layout, const CudaAttentionOptions& options) {
  Sequences sequences(c, options);
  AttentionRun run = empty_run(c);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    sequences.advance(steps[i]);
    if (i < static_cast<std::size_t>(options.filled_steps)) continue;
    const std::vector<std::byte> out = run_step(c, sequences, layout, options);
    const auto row_bytes = static_cast<std::ptrdiff_t>(out.size() / sequences.sources.size());
    for (std::size_t t = 0; t < sequences.sources.size(); ++t) {
      const auto s = static_cast<std::size_t>(sequences.sources[t].first);
      const auto p = static_cast<std::size_t>(sequences.sources[t].second);
      const auto row = out.begin() + static_cast<std::ptrdiff_t>(t) * row_bytes;
      run.bytes[s][p].assign(row, row + row_bytes);
      run.floats[s][p] = as_floats(run.bytes[s][p], layout);
    }
  }
  return run;
}

}  // namespace quire::test
