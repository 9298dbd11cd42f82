#include "kernels/cuda/ops.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/sampling_params.h"
#include "common/status.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/row/row.h"
#include "kernels/cuda/sample/input.h"
#include "kernels/cuda/sample/sample.h"
#include "kernels/cuda/status.h"

namespace quire::cuda {
namespace {

static_assert(kMaxBest == kMaxRowLogprobs);

// The column ranges of the maximal subtrees, by running the plan's merges over ranges.
std::vector<Columns> output_ranges(const SumPlan& plan) {
  std::vector<Columns> stack;
  for (std::size_t i = 0; i < plan.leaves.size(); ++i) {
    stack.push_back({plan.leaves[i].begin, plan.leaves[i].end});
    for (int merge = 0; merge < plan.merges[i]; ++merge) {
      const int end = stack.back().end;
      stack.pop_back();
      stack.back().end = end;
    }
  }
  QUIRE_CHECK_EQ(static_cast<int>(stack.size()), plan.num_outputs);
  return stack;
}

std::vector<TokenLogprob> logprobs_of(const SampledRow& row) {
  std::vector<TokenLogprob> logprobs = {{row.token, row.token_logprob}};
  for (int i = 0; i < row.num_best; ++i) logprobs.push_back({row.best[i], row.best_logprob[i]});
  return logprobs;
}

void use_logits(const SampleArgs& args, SampleJob& job) {
  QUIRE_CHECK_LE(args.pieces.size(), std::size_t{kMaxPieces});
  job.num_pieces = static_cast<int>(args.pieces.size());
  std::copy(args.pieces.begin(), args.pieces.end(), job.pieces);
  std::copy(args.piece_strides.begin(), args.piece_strides.end(), job.strides);
  std::copy(args.piece_begin.begin(), args.piece_begin.end(), job.begin);
}

}  // namespace

CudaOps::CudaOps(Queue& queue, Memories& memories, bool float32, bool deterministic,
                 const std::string& cache_folder, std::optional<DType> kv_dtype)
    : queue_(queue),
      memories_(memories),
      float32_(float32),
      kv_dtype_(kv_dtype),
      linear_(make_linear(deterministic, cache_folder)),
      device_step_(memories, Place::kDevice),
      host_step_(memories, Place::kHost) {}

std::size_t CudaOps::activation_bytes(ActivationLayout layout, int rows, int columns) const {
  QUIRE_CHECK(layout != ActivationLayout::kQ8);
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns) *
         (layout == ActivationLayout::kF32 ? 4 : 2);
}

std::size_t CudaOps::kv_block_bytes(DType dtype, int num_kv_heads, int head_dim,
                                    int block_size) const {
  return cuda::kv_block_bytes(dtype, num_kv_heads, head_dim, block_size);
}

DType CudaOps::kv_dtype(Format format) const {
  if (kv_dtype_.has_value()) return *kv_dtype_;
  return float32_ || format == Format::kF32 ? DType::kF32 : DType::kBf16;
}

absl::StatusOr<Weight> CudaOps::pack(const MatrixSource& source) {
  QUIRE_RETURN_IF_ERROR(check_source(source));
  Weight weight;
  weight.format = source.format;
  weight.input = input_layout(source.format, float32_);
  weight.columns = source.columns;
  weight.sum = source.sum;
  for (const MatrixPart& part : source.parts) weight.rows += part.rows;
  weight.bytes = packed_bytes(source.format, weight.rows, weight.columns, source.first_column);

  std::vector<std::byte> packed(weight.bytes);
  int first = 0;
  for (const MatrixPart& part : source.parts) {
    if (!pack_rows(source.format, weight.columns, source.first_column, part, first, weight.rows,
                   packed.data())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a ", traits(source.format).name, " matrix holds NaN; the model's file is damaged."));
    }
    first += part.rows;
  }
  QUIRE_ASSIGN_OR_RETURN(weight.data,
                         memories_.allocate(Place::kDevice, weight.bytes, "a weight matrix"));
  cudaError_t error = cudaMemcpy(weight.data, packed.data(), packed.size(), cudaMemcpyHostToDevice);
  if (error == cudaSuccess) error = cudaStreamSynchronize(nullptr);  // it may still be on its way
  if (error != cudaSuccess) return to_status(error, "sending a weight matrix");
  matrices_[weight.data] = {
      weight.format, weight.input,       weight.rows, weight.columns, output_ranges(source.sum),
      weight.data,   source.first_column};
  return weight;
}

const PackedMatrix& CudaOps::packed(const Weight& weight) const {
  const auto found = matrices_.find(weight.data);
  QUIRE_CHECK(found != matrices_.end());
  return found->second;
}

// What fails while a step is captured is the capture's failure.
void CudaOps::fail(const absl::Status& status) {
  if (!queue_.capturing()) error_.Update(status);
}

bool CudaOps::has_all(std::initializer_list<const void*> taken) {
  if (std::find(taken.begin(), taken.end(), nullptr) == taken.end()) return true;
  fail(host_step_.status());
  fail(device_step_.status());
  return false;
}

void CudaOps::embed(const Weight& table, TokenId first_id, const TokenId* tokens, int num_tokens,
                    float* out) {
  queue_.check(cuda::embed(queue_.stream(), packed(table), first_id, tokens, num_tokens, out),
               "the embedding");
}

void CudaOps::rms_norm(const float* x, const std::int32_t* rows, int num_rows, int columns,
                       const float* weight, float eps, const Activation& out) {
  queue_.check(cuda::rms_norm(queue_.stream(), x, rows, num_rows, columns, weight, eps, out),
               "a norm");
}

void CudaOps::linear(const Weight& weight, const Activation& in, const float* bias, float* out,
                     std::size_t out_stride, std::size_t out_subtree_stride) {
  queue_.check(
      linear_->run(queue_.stream(), packed(weight), in, bias, out, out_stride, out_subtree_stride),
      "a matrix product");
}

void CudaOps::rope_store(float* qkv, const AttentionSpec& spec, const RopeSpec& rope,
                         const float* cos_sin, const Batch& batch, const KvLayer& kv) {
  const RopeJob job{
      qkv, spec.num_heads, spec.num_kv_heads, spec.head_dim, rope.dims, rope.interleaved, cos_sin};
  queue_.check(cuda::rope_store(queue_.stream(), job, batch, kv), "rotary embedding");
}

void CudaOps::copy_blocks(const KvBlocks& arena, absl::Span<const BlockId> from,
                          absl::Span<const BlockId> to) {
  const std::size_t count = from.size();
  auto* ids = host_step_.take<BlockId>(2 * count);
  auto* device_ids = device_step_.take<BlockId>(2 * count);
  if (!has_all({ids, device_ids})) return;
  std::copy(from.begin(), from.end(), ids);
  std::copy(to.begin(), to.end(), ids + count);
  queue_.copy(device_ids, ids, 2 * count * sizeof(BlockId));
  queue_.check(cuda::copy_blocks(queue_.stream(), arena.data, arena.block_bytes, device_ids,
                                 device_ids + count, static_cast<int>(count)),
               "copying blocks");
}

void* CudaOps::attention_workspace(std::size_t bytes) {
  if (bytes <= workspace_bytes_) return workspace_;
  // The old one stays: steps in flight and graphs name it. Doubling bounds what that costs.
  const std::size_t room = std::max(bytes, 2 * workspace_bytes_);
  auto memory = memories_.allocate(Place::kDevice, room, "attention's partial results");
  if (!memory.ok()) {
    fail(memory.status());
    return nullptr;
  }
  workspace_ = *memory;
  workspace_bytes_ = room;
  return workspace_;
}

void CudaOps::attention(const float* qkv, const AttentionSpec& spec, const Batch& batch,
                        const KvLayer& kv, const Activation& out) {
  if (std::string refusal = attention_refusal(spec, kv.dtype, kv.block_size); !refusal.empty()) {
    fail(absl::UnimplementedError(refusal));
    return;
  }
  const int max_context = batch.max_blocks * batch.block_size;
  const std::size_t bytes = attention_workspace_bytes(spec, batch.num_tokens, max_context);
  void* workspace = attention_workspace(bytes);
  if (bytes > 0 && workspace == nullptr) return;
  queue_.check(cuda::attention(queue_.stream(), qkv, spec, batch, kv, max_context, workspace, out),
               "attention");
}

void CudaOps::gated(Gate gate, const float* gate_up, int num_tokens, int ffn,
                    const Activation& out) {
  queue_.check(cuda::gated(queue_.stream(), gate, gate_up, num_tokens, ffn, out), "the gated unit");
}

void CudaOps::combine(const CombineArgs& args) {
  CombineJob job;
  QUIRE_CHECK_LE(args.partials.size(), std::size_t{CombineJob::kMaxPartials});
  QUIRE_CHECK_LE(args.program.size(), std::size_t{CombineJob::kMaxProgram});
  std::copy(args.program.begin(), args.program.end(), job.program);
  std::copy(args.partials.begin(), args.partials.end(), job.partials);
  job.program_size = static_cast<int>(args.program.size());
  job.rows = args.rows;
  job.columns = args.columns;
  job.bias = args.bias;
  job.residual = args.residual;
  job.norm_weight = args.norm_weight;
  job.eps = args.eps;
  job.out = args.out;
  queue_.check(cuda::combine(queue_.stream(), job), "a combine");
}

void CudaOps::select(absl::Span<const float* const> parts, absl::Span<const TokenId> ends,
                     const TokenId* tokens, int rows, int columns, float* out) {
  QUIRE_CHECK_EQ(parts.size(), ends.size());
  queue_.check(cuda::select(queue_.stream(), parts.data(), ends.data(),
                            static_cast<int>(parts.size()), tokens, rows, columns, out),
               "a select");
}

void CudaOps::take_rows(const float* x, const std::int32_t* rows, int num_rows, int columns,
                        float* out) {
  queue_.check(cuda::take_rows(queue_.stream(), x, rows, num_rows, columns, out), "taking rows");
}

void CudaOps::feed(TokenId* tokens, const std::int32_t* sources, const TokenId* ids,
                   int num_tokens) {
  queue_.check(cuda::feed(queue_.stream(), tokens, sources, ids, num_tokens), "feeding ids");
}

void CudaOps::sample(const SampleArgs& args) {
  if (args.num_rows == 0) return;
  const auto count = static_cast<std::size_t>(args.num_rows);
  const int vocab = args.piece_begin.back();
  const SampleShape shape = sample_shape(args.rows, vocab);
  const std::size_t input_bytes = sample_input_bytes(shape);
  SampleJob job;
  auto* input = host_step_.take<std::byte>(input_bytes);
  auto* device_input = device_step_.take<std::byte>(input_bytes);
  auto* picked = host_step_.take<SampledRow>(count);
  job.out = device_step_.take<SampledRow>(count);
  job.workspace = device_step_.take<std::byte>(sample_workspace_bytes(args.num_rows, vocab));
  job.adjusted = static_cast<float*>(
      static_cast<void*>(device_step_.take<std::byte>(adjusted_bytes(shape.adjusts, vocab))));
  if (!has_all({input, device_input, picked, job.out, job.workspace, job.adjusted})) return;
  write_sample_input(args.rows, shape, input);
  queue_.copy(device_input, input, input_bytes);
  use_sample_input(shape, device_input, job);
  use_logits(args, job);
  job.ids = args.ids;
  job.may_filter = any_filters(args.rows);
  queue_.check(cuda::sample(queue_.stream(), job), "sampling");
  queue_.copy(picked, job.out, count * sizeof(SampledRow));
  const auto* wishes = reinterpret_cast<const SampleWish*>(input);
  deliveries_[current_].push_back([picked, wishes, count, results = args.results] {
    for (std::size_t b = 0; b < count; ++b) {
      results[b].token = picked[b].token;
      results[b].logprobs.clear();
      if (wishes[b].num_logprobs >= 0) results[b].logprobs = logprobs_of(picked[b]);
    }
  });
}

void CudaOps::end_step() {
  current_ = 1 - current_;
  host_step_.turn();
  device_step_.turn();
}

absl::Status CudaOps::finish_step(int steps_ago) {
  auto& deliveries = deliveries_[steps_ago % 2 == 0 ? current_ : 1 - current_];
  for (const std::function<void()>& deliver : deliveries) deliver();
  deliveries.clear();
  return std::exchange(error_, absl::OkStatus());
}

void CudaOps::drop_steps() {
  for (auto& deliveries : deliveries_) deliveries.clear();
  error_ = absl::OkStatus();
}

}  // namespace quire::cuda
