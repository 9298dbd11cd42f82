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

// Groups of rows read the weights of the layer again and again: from a cache, so these are smaller.
constexpr std::size_t kGroupedWeight = std::size_t{4} << 20;  // bytes
// And a group is large enough to compute longer than that takes: 8 rows of 4 bits, 13 of q8_0, 26
// of bf16. Larger ones would read so far ahead that it is gone again from the caches.
int rows_per_group(const Weight& weight) {
  const double elements = static_cast<double>(weight.rows) * weight.columns;
  return static_cast<int>(13 * static_cast<double>(weight.bytes) / std::max(1.0, elements));
}

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
      attention_scratch_(num_threads) {
  begin_list();
}

void CpuOps::begin_list() {
  last_linear_.reset();
  next_attention_ = std::make_shared<AheadWork>();
  sequences_.reset();
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
  if (weight.bytes <= kGroupedWeight) {
    rows_per_group_ = std::max(rows_per_group_, rows_per_group(weight));
  }
  return weight;
}

void CpuOps::embed(const Weight& table, TokenId first_id, const TokenId* tokens, int num_tokens,
                   float* out) {
  enqueue_rows(num_tokens, [isa = isa_, w = &table, first_id, tokens, out](Range run, int) {
    for (int t = run.begin; t < run.end; ++t) {
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
  const auto norm = [ops = &vector_ops_, x, rows, weight, eps, target = row_target(out)](Range run,
                                                                                         int) {
    for (int i = run.begin; i < run.end; ++i) {
      const auto row = static_cast<std::size_t>(rows != nullptr ? rows[i] : i);
      ops->norm_row(x + row * static_cast<std::size_t>(target.columns), weight, eps, target, i);
    }
  };
  if (rows == nullptr) return enqueue_rows(num_rows, norm);
  enqueue([norm, num_rows](int thread, int num_threads) {
    norm(share_of(num_rows, thread, num_threads), thread);
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
  args->next_attention = take_part(next_attention_, weight);
  if (!divides_rows(in.rows, num_threads_)) {
    return enqueue([isa = isa_, args](int thread, int num_threads) {
      cpu::linear(isa, *args, thread, num_threads);
    });
  }
  const auto shares = this->shares(in.rows);
  const bool may_be_grouped = weight.bytes <= kGroupedWeight;
  if (may_be_grouped && joins_groups(shares)) args->next_group = take_part(next_group_, weight);
  enqueue_rows(
      in.rows,
      [isa = isa_, args, shares](Range run, int thread) {
        linear_rows(isa, *args, run, *shares, thread);
      },
      may_be_grouped);
}

void CpuOps::rope_store(float* qkv, const AttentionSpec& spec, const RopeSpec& rope,
                        const float* cos_sin, const Batch& batch, const KvLayer& kv) {
  RopeJob job{.num_heads = spec.num_heads,
              .num_kv_heads = spec.num_kv_heads,
              .dims = rope.dims,
              .interleaved = rope.interleaved,
              .kv = kv_head(kv),
              .kv_head_bytes = kv_head_bytes(kv.dtype, kv.head_dim, kv.block_size)};
  enqueue_rows(batch.num_tokens, [ops = &vector_ops_, qkv, job, cos_sin, batch](Range run, int) {
    const auto stride =
        static_cast<std::size_t>((job.num_heads + 2 * job.num_kv_heads) * job.kv.head_dim);
    RopeJob mine = job;
    for (int t = run.begin; t < run.end; ++t) {
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
    next_attention_->read.emplace(batch, kv, spec.window);
    next_group_ = std::make_shared<AheadWork>();
    next_group_->read.emplace(batch, kv, spec.window);
    know_sequences(batch);
    enqueue_rows(
        batch.num_tokens, [work](Range run, int thread) { work->run_rows(run, thread); }, false);
    commands_.back().begins_groups = true;
  } else {
    enqueue([work](int thread, int num_threads) { work->run(thread, num_threads); });
  }
  next_attention_ = std::make_shared<AheadWork>();
}

void CpuOps::know_sequences(const Batch& batch) {
  if (batch.most_tokens == 1) return;  // each token is one
  if (sequences_ != nullptr && sequences_->rows() == batch.num_tokens) return;
  const auto sequences =
      std::make_shared<RowShares>(batch.num_tokens, num_threads_, rows_per_group_);
  enqueue([sequences, batch](int thread, int) {
    const auto count = static_cast<std::size_t>(batch.num_rows) + 1;
    if (thread == 0) sequences->keep_together({batch.row_begin, count});
  });
  sequences_ = sequences;
}

const std::shared_ptr<const RowShares>& CpuOps::shares(int rows) {
  if (sequences_ != nullptr && sequences_->rows() == rows) return sequences_;
  if (shares_ == nullptr || shares_->rows() != rows) {
    shares_ = std::make_shared<RowShares>(rows, num_threads_, rows_per_group_);
  }
  return shares_;
}

bool CpuOps::joins_groups(const std::shared_ptr<const RowShares>& shares) const {
  for (auto last = commands_.rbegin(); last != commands_.rend(); ++last) {
    if (last->shares != shares) return false;
    if (last->begins_groups || !last->may_be_grouped) return last->begins_groups;
  }
  return false;
}

void CpuOps::enqueue_rows(int rows, std::function<void(Range, int)> fn, bool may_be_grouped) {
  commands_.push_back(
      {.by_rows = std::move(fn), .shares = shares(rows), .may_be_grouped = may_be_grouped});
}

void CpuOps::copy_blocks(const KvBlocks& arena, absl::Span<const BlockId> from,
                         absl::Span<const BlockId> to) {
  enqueue([arena, from = std::vector<BlockId>(from.begin(), from.end()),
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
  const int pieces = (ffn + kGatedColumns - 1) / kGatedColumns;
  const auto gate_pieces = [ops = &vector_ops_, gate, gate_up, ffn, pieces,
                            target = row_target(out)](Range run) {
    for (int i = run.begin; i < run.end; ++i) {
      const int row = i / pieces;
      const int begin = i % pieces * kGatedColumns;
      const float* x = gate_up + static_cast<std::size_t>(row) * 2 * static_cast<std::size_t>(ffn);
      ops->gated_span(gate, x, x + ffn, begin, std::min(ffn, begin + kGatedColumns), target, row);
    }
  };
  if (divides_rows(num_tokens, num_threads_)) {
    return enqueue_rows(num_tokens, [gate_pieces, pieces](Range run, int) {
      gate_pieces({run.begin * pieces, run.end * pieces});
    });
  }
  enqueue([gate_pieces, n = num_tokens * pieces](int thread, int num_threads) {
    gate_pieces(share_of(n, thread, num_threads));
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
  enqueue_rows(args.rows, [ops = &vector_ops_, job, program = std::move(program),
                           partials = std::move(partials)](Range run, int) {
    CombineJob mine = job;
    mine.program = program.data();
    mine.program_size = static_cast<int>(program.size());
    mine.partials = partials.data();
    for (int t = run.begin; t < run.end; ++t) ops->combine_row(mine, t);
  });
}

void CpuOps::select(absl::Span<const float* const> parts, absl::Span<const TokenId> ends,
                    const TokenId* tokens, int rows, int columns, float* out) {
  enqueue_rows(rows, [sources = std::vector<const float*>(parts.begin(), parts.end()),
                      ends = std::vector<TokenId>(ends.begin(), ends.end()), tokens, columns,
                      out](Range run, int) {
    for (int t = run.begin; t < run.end; ++t) {
      const auto at = static_cast<std::size_t>(t) * static_cast<std::size_t>(columns);
      const auto owner = std::upper_bound(ends.begin(), ends.end(), tokens[t]) - ends.begin();
      std::copy_n(sources[static_cast<std::size_t>(owner)] + at, columns, out + at);
    }
  });
}

void CpuOps::take_rows(const float* x, const std::int32_t* rows, int num_rows, int columns,
                       float* out) {
  enqueue([=](int thread, int num_threads) {
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
  enqueue([=](int thread, int) {
    for (int t = 0; thread == 0 && t < num_tokens; ++t) {
      if (sources[t] >= 0) tokens[t] = ids[sources[t]];
    }
  });
}

void CpuOps::sample(const SampleArgs& args) {
  enqueue([sampler = Sampler(vector_ops_, args)](int thread, int num_threads) {
    for (int b = thread; b < sampler.num_rows(); b += num_threads) sampler.sample_row(b);
  });
}

}  // namespace quire::cpu
