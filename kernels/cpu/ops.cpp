// Commands of the row-wise ops. Threads take contiguous shares of the rows.
#include "kernels/cpu/ops.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/sampler.h"

namespace quire::cpu {
namespace {

constexpr int kGatedColumns = 512;  // one thread's piece of a row; a multiple of 64

// CHECKs that a program is a whole post-order walk within the depth the kernels keep.
void check_program(const std::vector<int>& program, std::size_t num_partials) {
  int depth = 0;
  for (const int entry : program) {
    depth += entry >= 0 ? 1 : -1;
    QUIRE_CHECK_LT(entry, static_cast<int>(num_partials));
    QUIRE_CHECK(depth >= 1 && depth <= kMaxCombineDepth);
  }
  QUIRE_CHECK_EQ(depth, 1);
}

}  // namespace

const VectorOps& vector_ops(Isa isa) {
  return isa == Isa::kAvx512 ? vector_ops_avx512() : vector_ops_avx2();
}

RowTarget row_target(const Activation& a) {
  RowTarget target{.layout = a.layout,
                   .data = static_cast<std::byte*>(a.data),
                   .stride = activation_stride(a.layout, a.columns),
                   .columns = a.columns};
  if (a.layout == ActivationLayout::kQ8) {
    const Q8Row row = q8_row(a, 0);
    target.scales_offset =
        static_cast<std::size_t>(reinterpret_cast<std::byte*>(row.scales) - target.data);
    target.sums_offset =
        static_cast<std::size_t>(reinterpret_cast<std::byte*>(row.sums) - target.data);
  }
  return target;
}

CpuOps::CpuOps(Isa isa, Arithmetic arithmetic, std::optional<DType> kv_dtype, int num_threads,
               HostMemory& memory, std::vector<Command>& commands)
    : isa_(isa),
      arithmetic_(arithmetic),
      kv_dtype_(kv_dtype),
      num_threads_(num_threads),
      vector_ops_(vector_ops(isa)),
      memory_(memory),
      commands_(commands),
      attention_scratch_(num_threads) {}

void CpuOps::begin_list() {
  last_linear_.reset();
  since_attention_.clear();
}

std::size_t CpuOps::activation_bytes(ActivationLayout layout, int rows, int columns) const {
  return static_cast<std::size_t>(rows) * activation_stride(layout, columns);
}

std::size_t CpuOps::kv_block_bytes(DType dtype, int num_kv_heads, int head_dim,
                                   int block_size) const {
  return cpu::kv_block_bytes(dtype, num_kv_heads, head_dim, block_size);
}

DType CpuOps::kv_dtype(Format format) const {
  if (kv_dtype_.has_value()) return *kv_dtype_;
  if (arithmetic_ == Arithmetic::kFloat32) return DType::kF32;
  return format == Format::kF32 ? DType::kF32 : DType::kBf16;
}

absl::StatusOr<Weight> CpuOps::pack(const MatrixSource& source) {
  if (arithmetic_ == Arithmetic::kBfloat16 && source.format != Format::kBf16) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype bfloat16 computes bf16 weights only, this model has ",
                     traits(source.format).name, " ones; use dtype auto or float32."));
  }
  QUIRE_ASSIGN_OR_RETURN(const PackedShape shape,
                         packed_shape(source, isa_, arithmetic_ == Arithmetic::kFloat32));
  Weight weight;
  weight.format = source.format;
  weight.input = shape.input;
  weight.columns = source.columns;
  for (const MatrixPart& part : source.parts) weight.rows += part.rows;
  weight.sum = source.sum;
  weight.bytes = shape.bytes;
  QUIRE_ASSIGN_OR_RETURN(weight.data, memory_.allocate(shape.bytes, "a weight matrix"));
  cpu::pack(source, isa_, weight);
  return weight;
}

void CpuOps::embed(const Weight& table, TokenId first_id, const TokenId* tokens, int num_tokens,
                   float* out) {
  enqueue(num_tokens,
          [isa = isa_, w = &table, first_id, tokens, num_tokens, out](int thread, int num_threads) {
            const Range share = share_of(num_tokens, thread, num_threads);
            for (int t = share.begin; t < share.end; ++t) {
              const int n = tokens[t] - first_id;
              if (n < 0 || n >= w->rows) continue;
              unpack_row(isa, *w, n,
                         out + static_cast<std::size_t>(t) * static_cast<std::size_t>(w->columns));
            }
          });
}

void CpuOps::rms_norm(const float* x, const std::int32_t* rows, int num_rows, int columns,
                      const float* weight, float eps, const Activation& out) {
  QUIRE_CHECK_EQ(out.columns, columns);
  const int own_rows = rows == nullptr ? num_rows : 0;
  enqueue(own_rows, [ops = &vector_ops_, x, rows, num_rows, weight, eps, target = row_target(out)](
                        int thread, int num_threads) {
    const Range share = share_of(num_rows, thread, num_threads);
    for (int i = share.begin; i < share.end; ++i) {
      const auto row = static_cast<std::size_t>(rows != nullptr ? rows[i] : i);
      ops->norm_row(x + row * static_cast<std::size_t>(target.columns), weight, eps, target, i);
    }
  });
}

void CpuOps::linear(const Weight& weight, const Activation& in, const float* bias, float* out,
                    std::size_t out_stride, std::size_t out_subtree_stride) {
  QUIRE_CHECK(in.layout == weight.input);
  QUIRE_CHECK_EQ(in.columns, weight.columns);
  QUIRE_CHECK(bias == nullptr || weight.sum.num_outputs == 1);
  const auto args = std::make_shared<LinearArgs>(
      LinearArgs{&weight, in, bias, out, out_stride, out_subtree_stride});
  if (last_linear_ != nullptr) last_linear_->next = &weight;
  last_linear_ = args;
  since_attention_.push_back(args);
  const int rows = divides_rows(in.rows, num_threads_) ? in.rows : 0;
  enqueue(rows, [isa = isa_, args](int thread, int num_threads) {
    cpu::linear(isa, *args, thread, num_threads);
  });
}

void CpuOps::rope_store(float* qkv, const AttentionSpec& spec, const RopeSpec& rope,
                        const float* cos_sin, const Batch& batch, const KvLayer& kv) {
  RopeJob job{.num_heads = spec.num_heads,
              .num_kv_heads = spec.num_kv_heads,
              .dims = rope.dims,
              .interleaved = rope.interleaved,
              .kv = kv_head(kv),
              .kv_head_bytes = kv_head_bytes(kv.dtype, kv.head_dim, kv.block_size)};
  enqueue(batch.num_tokens,
          [ops = &vector_ops_, qkv, job, cos_sin, batch](int thread, int num_threads) mutable {
            const auto stride =
                static_cast<std::size_t>((job.num_heads + 2 * job.num_kv_heads) * job.kv.head_dim);
            const Range share = share_of(batch.num_tokens, thread, num_threads);
            RopeJob mine = job;
            for (int t = share.begin; t < share.end; ++t) {
              const int position = batch.positions[t];
              const auto table = static_cast<std::size_t>(batch.row_of_token[t]) *
                                 static_cast<std::size_t>(batch.max_blocks);
              mine.row = qkv + static_cast<std::size_t>(t) * stride;
              mine.cos_sin =
                  cos_sin + static_cast<std::size_t>(position) * static_cast<std::size_t>(job.dims);
              mine.block =
                  batch.block_tables[table + static_cast<std::size_t>(position / batch.block_size)];
              mine.offset = position % batch.block_size;
              ops->rope_store(mine);
            }
          });
}

void CpuOps::attention(const float* qkv, const AttentionSpec& spec, const Batch& batch,
                       const KvLayer& kv, const Activation& out) {
  auto work =
      std::make_shared<AttentionWork>(vector_ops_, qkv, spec, batch, kv, out, attention_scratch_);
  if (AttentionWork::divides_rows(batch, num_threads_)) {
    read_ahead(batch, kv, spec.window);
    enqueue(batch.num_rows,
            [work](int thread, int num_threads) { work->run_rows(thread, num_threads); });
  } else {
    enqueue(0, [work](int thread, int num_threads) { work->run(thread, num_threads); });
  }
  since_attention_.clear();
}

void CpuOps::read_ahead(const Batch& batch, const KvLayer& kv, int window) {
  const auto ahead = std::make_shared<ReadAhead>(batch, kv, window);
  std::size_t whole = 0;
  for (const auto& linear : since_attention_) whole += linear->weight->bytes;
  std::size_t done = 0;
  for (const auto& linear : since_attention_) {
    if (linear->in.rows == batch.num_rows) linear->ahead = ahead;
    linear->ahead_begin = done;
    linear->ahead_end = done += linear->weight->bytes;
    linear->ahead_whole = whole;
  }
}

void CpuOps::copy_blocks(const KvBlocks& arena, absl::Span<const BlockId> from,
                         absl::Span<const BlockId> to) {
  enqueue(0, [arena, from = std::vector<BlockId>(from.begin(), from.end()),
              to = std::vector<BlockId>(to.begin(), to.end())](int thread, int num_threads) {
    const Range share = share_of(static_cast<int>(from.size()), thread, num_threads);
    for (int i = share.begin; i < share.end; ++i) {
      const auto copy = static_cast<std::size_t>(i);
      std::copy_n(arena.data + static_cast<std::size_t>(from[copy]) * arena.block_bytes,
                  arena.block_bytes,
                  arena.data + static_cast<std::size_t>(to[copy]) * arena.block_bytes);
    }
  });
}

void CpuOps::gated(Gate gate, const float* gate_up, int num_tokens, int ffn,
                   const Activation& out) {
  QUIRE_CHECK_EQ(out.columns, ffn);
  const bool by_rows = divides_rows(num_tokens, num_threads_);
  enqueue(by_rows ? num_tokens : 0, [ops = &vector_ops_, gate, gate_up, num_tokens, ffn, by_rows,
                                     target = row_target(out)](int thread, int num_threads) {
    const int pieces = (ffn + kGatedColumns - 1) / kGatedColumns;
    Range share = share_of(by_rows ? num_tokens : num_tokens * pieces, thread, num_threads);
    if (by_rows) share = {share.begin * pieces, share.end * pieces};
    for (int i = share.begin; i < share.end; ++i) {
      const int row = i / pieces;
      const int begin = i % pieces * kGatedColumns;
      const float* x = gate_up + static_cast<std::size_t>(row) * 2 * static_cast<std::size_t>(ffn);
      ops->gated_span(gate, x, x + ffn, begin, std::min(ffn, begin + kGatedColumns), target, row);
    }
  });
}

void CpuOps::combine(const CombineArgs& args) {
  std::vector<int> program(args.program.begin(), args.program.end());
  std::vector<const float*> partials(args.partials.begin(), args.partials.end());
  check_program(program, partials.size());
  CombineJob job{.columns = args.columns,
                 .bias = args.bias,
                 .residual = args.residual,
                 .norm_weight = args.norm_weight,
                 .eps = args.eps};
  if (args.norm_weight != nullptr) {
    QUIRE_CHECK_EQ(args.out.columns, args.columns);
    job.out = row_target(args.out);
  }
  enqueue(args.rows, [ops = &vector_ops_, job, rows = args.rows, program = std::move(program),
                      partials = std::move(partials)](int thread, int num_threads) {
    CombineJob mine = job;
    mine.program = program.data();
    mine.program_size = static_cast<int>(program.size());
    mine.partials = partials.data();
    const Range share = share_of(rows, thread, num_threads);
    for (int t = share.begin; t < share.end; ++t) ops->combine_row(mine, t);
  });
}

void CpuOps::select(absl::Span<const float* const> parts, absl::Span<const TokenId> ends,
                    const TokenId* tokens, int rows, int columns, float* out) {
  enqueue(rows, [sources = std::vector<const float*>(parts.begin(), parts.end()),
                 ends = std::vector<TokenId>(ends.begin(), ends.end()), tokens, rows, columns,
                 out](int thread, int num_threads) {
    const Range share = share_of(rows, thread, num_threads);
    for (int t = share.begin; t < share.end; ++t) {
      const auto at = static_cast<std::size_t>(t) * static_cast<std::size_t>(columns);
      const auto owner = std::upper_bound(ends.begin(), ends.end(), tokens[t]) - ends.begin();
      std::copy_n(sources[static_cast<std::size_t>(owner)] + at, columns, out + at);
    }
  });
}

void CpuOps::take_rows(const float* x, const std::int32_t* rows, int num_rows, int columns,
                       float* out) {
  enqueue(0, [=](int thread, int num_threads) {
    const auto width = static_cast<std::size_t>(columns);
    const Range share = share_of(num_rows, thread, num_threads);
    for (int i = share.begin; i < share.end; ++i) {
      std::copy_n(x + static_cast<std::size_t>(rows[i]) * width, width,
                  out + static_cast<std::size_t>(i) * width);
    }
  });
}

void CpuOps::feed(TokenId* tokens, const std::int32_t* sources, const TokenId* ids,
                  int num_tokens) {
  enqueue(0, [=](int thread, int) {
    for (int t = 0; thread == 0 && t < num_tokens; ++t) {
      if (sources[t] >= 0) tokens[t] = ids[sources[t]];
    }
  });
}

void CpuOps::sample(const SampleArgs& args) {
  enqueue(0, [sampler = Sampler(vector_ops_, args)](int thread, int num_threads) {
    for (int b = thread; b < sampler.num_rows(); b += num_threads) sampler.sample_row(b);
  });
}

}  // namespace quire::cpu
