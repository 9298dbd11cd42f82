// Host side: describes the batch to the kernels, chooses a variant, divides rows between the decode
// and the prefill kernel by their number of tokens and launches what the batch may need. Reads no
// device memory; grids follow from num_tokens, num_rows and max_context alone.
#include <algorithm>

#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/attention_launch.h"
#include "kernels/cuda/attention/merge_launch.h"
#include "kernels/cuda/attention/table.h"
#include "kernels/cuda/dev/launch.h"

namespace quire::cuda {
namespace {

static_assert(kSplitPositions == kSharedPositions);
constexpr double kLog2e = 1.4426950408889634;
// Rows of at most so many (token, query head) pairs of a KV head are worth cutting into splits: a
// token, or a few that are verified at once.
constexpr int kDecodePairs = 32;

int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}

// Of one row, that a token sees something of. A row of the decode kernel has few tokens.
int most_splits(const AttentionSpec& spec, int max_context) {
  const int splits = ceil_div(max_context, kSplitPositions);
  if (spec.window == 0) return splits;
  return std::min(splits, (spec.window + kDecodePairs) / kSplitPositions + 2);
}

// Where the parts of the workspace lie, in bytes.
struct Workspace {
  int slots = 0;
  std::size_t tops = 0;
  std::size_t values = 0;
  std::size_t bytes = 0;
};
Workspace workspace_of(const AttentionSpec& spec, int tokens, int max_context,
                       const AttentionLimits& limits) {
  Workspace w;
  const auto splits = static_cast<std::size_t>(most_splits(spec, max_context));
  if (splits <= 1 || tokens == 0) return w;
  const auto align = [](std::size_t bytes) { return (bytes + 255) / 256 * 256; };
  const auto heads = static_cast<std::size_t>(spec.num_heads);
  const std::size_t slot_values = heads * static_cast<std::size_t>(spec.head_dim) * sizeof(float);
  const std::size_t slot_tops = heads * 2 * sizeof(float);
  const std::size_t wanted = static_cast<std::size_t>(tokens) * splits;
  const std::size_t slots = std::min(wanted, limits.partial_bytes / (slot_values + slot_tops));
  w.slots = static_cast<int>(slots);
  w.tops = align(static_cast<std::size_t>(tokens) * sizeof(std::int32_t));
  w.values = w.tops + align(slots * slot_tops);
  w.bytes = w.values + slots * slot_values;
  return w;
}

int most_heads_of_a_group(const AttentionSpec& spec) {
  int most = 1;
  for (int g = 0; g < spec.num_kv_heads; ++g) {
    const int begin = (spec.first_kv_head + g) * spec.group_heads - spec.first_head;
    const int end = std::min(begin + spec.group_heads, spec.num_heads);
    most = std::max(most, end - std::max(begin, 0));
  }
  return most;
}

AttentionProblem describe_problem(const float* qkv, const AttentionSpec& spec, const Batch& batch,
                                  const KvLayer& kv, const Activation& out) {
  AttentionProblem p;
  p.qkv = qkv;
  p.qkv_stride = static_cast<std::int64_t>(spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim;
  p.out = out.data;
  p.out_is_bf16 = out.layout == ActivationLayout::kBf16;
  p.num_heads = spec.num_heads;
  p.num_kv_heads = spec.num_kv_heads;
  p.head_dim = spec.head_dim;
  p.first_head = spec.first_head;
  p.first_kv_head = spec.first_kv_head;
  p.group_heads = spec.group_heads;
  p.max_group_heads = most_heads_of_a_group(spec);
  if (spec.window > 0) p.window = std::min(spec.window, kNoWindow);
  p.scale_log2e = static_cast<float>(spec.scale * kLog2e);
  if (spec.soft_cap > 0.0f) {
    p.cap_log2e = static_cast<float>(spec.soft_cap * kLog2e);
    p.cap_rate = static_cast<float>(2.0 * kLog2e * spec.scale / spec.soft_cap);
  }
  p.kv = kv.data;
  p.block_bytes = static_cast<std::int64_t>(kv.block_bytes);
  p.block_size = batch.block_size;
  p.num_tokens = batch.num_tokens;
  p.num_rows = batch.num_rows;
  p.max_blocks = batch.max_blocks;
  p.positions = batch.positions;
  p.row_begin = batch.row_begin;
  p.context = batch.context;
  p.block_tables = batch.block_tables;
  if (batch.num_shared_runs > 0) {
    p.num_shared_runs = batch.num_shared_runs;
    p.shared_runs = batch.shared_runs;
    p.shared_rows = batch.shared_rows;
    p.shared_of_row = batch.shared_of_row;
  }
  return p;
}

cudaError_t device_attribute(cudaDeviceAttr attribute, int& value) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  return error != cudaSuccess ? error : cudaDeviceGetAttribute(&value, attribute, device);
}

cudaError_t launch_items(cudaStream_t stream, const AttentionLaunch& how, long long blocks,
                         const AttentionProblem& p) {
  cudaError_t error = allow_shared_bytes(how.kernel, static_cast<std::size_t>(how.shared_bytes));
  if (error != cudaSuccess) return error;
  return launch(how.kernel, dim3(static_cast<unsigned>(blocks)),
                dim3(static_cast<unsigned>(how.threads)),
                static_cast<std::size_t>(how.shared_bytes), stream, p);
}

// As many blocks as the device holds at once, or as there can be items: of so many pairs of a KV
// head in so many rows or runs.
cudaError_t launch_resident(cudaStream_t stream, const AttentionLaunch& how, int pairs, int runs,
                            int splits, const AttentionProblem& p) {
  int processors = 0;
  int shared_bytes = 0;
  cudaError_t error = device_attribute(cudaDevAttrMultiProcessorCount, processors);
  if (error == cudaSuccess) {
    error = device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, shared_bytes);
  }
  if (error != cudaSuccess) return error;
  constexpr int kReservedBytes = 1024;  // of every block's shared memory
  const int fit = std::min(shared_bytes / (how.shared_bytes + kReservedBytes), 512 / how.threads);
  const long long tiles = ceil_div(pairs, how.rows) + runs;
  const long long items = tiles * splits * p.num_kv_heads;
  return launch_items(stream, how, std::min<long long>(items, processors * std::max(fit, 1)), p);
}

cudaError_t launch_prefill(cudaStream_t stream, const AttentionLaunch& how,
                           const AttentionProblem& p) {
  const long long tiles = ceil_div(p.num_tokens * p.max_group_heads, how.rows) + p.num_rows;
  return launch_items(stream, how, tiles * p.num_kv_heads, p);
}

bool every_group_has_heads(const AttentionSpec& spec) {
  for (int g = 0; g < spec.num_kv_heads; ++g) {
    const int begin = (spec.first_kv_head + g) * spec.group_heads - spec.first_head;
    if (begin + spec.group_heads <= 0 || begin >= spec.num_heads) return false;
  }
  return spec.num_kv_heads > 0 && spec.kv_head_of(0) == 0 &&
         spec.kv_head_of(spec.num_heads - 1) == spec.num_kv_heads - 1;
}

}  // namespace

std::size_t attention_workspace_bytes(const AttentionSpec& spec, int max_tokens, int max_context) {
  return attention_workspace_bytes(spec, max_tokens, max_context, {});
}
std::size_t attention_workspace_bytes(const AttentionSpec& spec, int max_tokens, int max_context,
                                      const AttentionLimits& limits) {
  return workspace_of(spec, max_tokens, max_context, limits).bytes;
}

cudaError_t attention(cudaStream_t stream, const float* qkv, const AttentionSpec& spec,
                      const Batch& batch, const KvLayer& kv, int max_context, void* workspace,
                      const Activation& out) {
  return attention(stream, qkv, spec, batch, kv, max_context, workspace, out, {});
}

cudaError_t attention(cudaStream_t stream, const float* qkv, const AttentionSpec& spec,
                      const Batch& batch, const KvLayer& kv, int max_context, void* workspace,
                      const Activation& out, const AttentionLimits& limits) {
  if (batch.num_tokens == 0) return cudaSuccess;
  if (out.layout == ActivationLayout::kQ8 || kv.block_size != batch.block_size ||
      !attention_refusal(spec, kv.dtype, kv.block_size).empty()) {
    return cudaErrorInvalidValue;
  }
  int shared_bytes = limits.shared_bytes;
  cudaError_t error = cudaSuccess;
  if (shared_bytes == 0) {
    error = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  const AttentionVariant variant = choose_attention(kv.dtype, spec.head_dim, shared_bytes);
  if (variant.decode.kernel == nullptr) return cudaErrorInvalidValue;

  AttentionProblem p = describe_problem(qkv, spec, batch, kv, out);
  const Workspace w = workspace_of(spec, batch.num_tokens, max_context, limits);
  if (w.bytes > 0) {
    auto* base = static_cast<std::byte*>(workspace);
    p.slots = w.slots;
    p.first_slot = reinterpret_cast<std::int32_t*>(base);
    p.partial_tops = reinterpret_cast<float*>(base + w.tops);
    p.partial_values = reinterpret_cast<float*>(base + w.values);
  }
  // With no more tokens than rows none is a prompt; then all are decode's, whatever the rows are.
  const bool prefill = p.num_tokens > p.num_rows;
  p.decode_tokens = prefill ? std::max(1, kDecodePairs / p.max_group_heads) : p.num_tokens;
  const bool decode = p.num_rows > 1 || p.num_tokens <= p.decode_tokens;
  if (prefill && !(p.num_rows == 1 && decode)) {
    error = launch_prefill(stream, variant.prefill, p);
  }
  if (error != cudaSuccess || !decode) return error;
  const int splits = most_splits(spec, max_context);
  const int decode_tokens = std::min(p.num_tokens, p.num_rows * p.decode_tokens);
  error = launch_resident(stream, variant.decode, decode_tokens * p.max_group_heads, p.num_rows,
                          splits, p);
  if (error != cudaSuccess || p.slots == 0) return error;
  if (p.num_shared_runs > 0) {
    error = launch_resident(stream, variant.shared, p.num_rows * p.max_group_heads,
                            p.num_shared_runs, splits, p);
    if (error != cudaSuccess) return error;
  }
  return launch_merge(stream, p);
}

std::string attention_refusal(const AttentionSpec& spec, DType kv_dtype, int block_size) {
  if (block_size != 16 && block_size != 32 && block_size != 64) {
    return "CUDA attention works with KV blocks of 16, 32 or 64 tokens, not " +
           std::to_string(block_size);
  }
  if (spec.head_dim < 1 || spec.head_dim > kMaxHeadDim) {
    return "CUDA attention has kernels for heads of at most " + std::to_string(kMaxHeadDim) +
           ", not " + std::to_string(spec.head_dim);
  }
  if (!(spec.scale > 0.0f)) {
    return "CUDA attention needs a positive score scale, not " + std::to_string(spec.scale);
  }
  if (spec.window < 0 || !(spec.soft_cap >= 0.0f)) {
    return "CUDA attention needs a window and a soft cap that are not negative, not " +
           std::to_string(spec.window) + " and " + std::to_string(spec.soft_cap);
  }
  if (!every_group_has_heads(spec)) {
    return "CUDA attention needs at least one local query head for every local KV head";
  }
  static_cast<void>(kv_dtype);  // all of DType
  return "";
}

}  // namespace quire::cuda
