// Reference ops other than attention and sampling. What is captured: pointers to device memory and
// small structs by value; spans are copied, because only the memory they describe must outlive
// wait().
#include "kernels/reference/ops.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "kernels/formats/table.h"

namespace quire::reference {
namespace {

constexpr float kGelu = 1.5957691216057308f;  // 2 sqrt(2 / pi)

// out = x / rms(x) * weight over one row. RMSNorm: arXiv 1910.07467.
void norm_row(const float* x, int columns, const float* weight, float eps, float* out) {
  float sum = 0.0f;
  for (int i = 0; i < columns; ++i) sum += x[i] * x[i];
  const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(columns) + eps);
  for (int i = 0; i < columns; ++i) out[i] = x[i] * inverse * weight[i];
}

// One output row of one token: leaves one after the other, partial sums on a stack.
void dot_by_plan(const float* x, const float* w, const SumPlan& plan, std::vector<float>& stack) {
  stack.clear();
  for (std::size_t i = 0; i < plan.leaves.size(); ++i) {
    float sum = 0.0f;
    for (int k = plan.leaves[i].begin; k < plan.leaves[i].end; ++k) sum += x[k] * w[k];
    stack.push_back(sum);
    for (int m = 0; m < plan.merges[i]; ++m) {
      const float upper = stack.back();
      stack.pop_back();
      stack.back() += upper;
    }
  }
}

// Runs the post-order program for one element.
float combine_element(const std::vector<int>& program, const std::vector<const float*>& partials,
                      std::size_t index, std::vector<float>& stack) {
  stack.clear();
  for (const int entry : program) {
    if (entry >= 0) {
      stack.push_back(partials[static_cast<std::size_t>(entry)][index]);
    } else {
      const float upper = stack.back();
      stack.pop_back();
      stack.back() += upper;
    }
  }
  QUIRE_CHECK_EQ(stack.size(), std::size_t{1});
  return stack.back();
}

}  // namespace

float* activation_row(const Activation& a, int row) {
  QUIRE_CHECK(a.layout == ActivationLayout::kF32);
  return static_cast<float*>(a.data) + static_cast<std::size_t>(row) * a.columns;
}

std::size_t ReferenceOps::activation_bytes(ActivationLayout, int rows, int columns) const {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns) * sizeof(float);
}

// A weight is its decoded value in fp32, the factor of its row included.
absl::StatusOr<Weight> ReferenceOps::pack(const MatrixSource& source) {
  QUIRE_RETURN_IF_ERROR(check_source(source));
  Weight weight;
  weight.format = source.format;
  weight.columns = source.columns;
  weight.sum = source.sum;
  for (const MatrixPart& part : source.parts) weight.rows += part.rows;
  weight.bytes = static_cast<std::size_t>(weight.rows) * weight.columns * sizeof(float);
  QUIRE_ASSIGN_OR_RETURN(weight.data, memory_.allocate(weight.bytes, "a weight"));
  float* out = static_cast<float*>(weight.data);
  for (const MatrixPart& part : source.parts) {
    for (int n = 0; n < part.rows; ++n, out += weight.columns) {
      formats::decode_columns(source.format,
                              part.data + static_cast<std::size_t>(n) * part.row_stride,
                              source.first_column, weight.columns, out);
      if (part.row_scales == nullptr) continue;
      for (int k = 0; k < weight.columns; ++k) out[k] *= part.row_scales[n];
    }
  }
  return weight;
}

void ReferenceOps::embed(const Weight& table, TokenId first_id, const TokenId* tokens,
                         int num_tokens, float* out) {
  enqueue([w = &table, first_id, tokens, num_tokens, out] {
    for (int t = 0; t < num_tokens; ++t) {
      const int n = tokens[t] - first_id;
      if (n < 0 || n >= w->rows) continue;
      const float* row =
          static_cast<const float*>(w->data) + static_cast<std::size_t>(n) * w->columns;
      std::copy_n(row, w->columns, out + static_cast<std::size_t>(t) * w->columns);
    }
  });
}

void ReferenceOps::rms_norm(const float* x, const std::int32_t* rows, int num_rows, int columns,
                            const float* weight, float eps, const Activation& out) {
  enqueue([=] {
    for (int i = 0; i < num_rows; ++i) {
      const std::size_t row = static_cast<std::size_t>(rows != nullptr ? rows[i] : i);
      norm_row(x + row * static_cast<std::size_t>(columns), columns, weight, eps,
               activation_row(out, i));
    }
  });
}

void ReferenceOps::linear(const Weight& weight, const Activation& in, const float* bias, float* out,
                          std::size_t out_stride, std::size_t out_subtree_stride) {
  enqueue([w = &weight, in, bias, out, out_stride, out_subtree_stride] {
    QUIRE_CHECK_EQ(w->columns, in.columns);
    QUIRE_CHECK(bias == nullptr || w->sum.num_outputs == 1);
    std::vector<float> sums;
    for (int t = 0; t < in.rows; ++t) {
      for (int n = 0; n < w->rows; ++n) {
        const float* row =
            static_cast<const float*>(w->data) + static_cast<std::size_t>(n) * w->columns;
        dot_by_plan(activation_row(in, t), row, w->sum, sums);
        QUIRE_CHECK_EQ(static_cast<int>(sums.size()), w->sum.num_outputs);
        for (std::size_t o = 0; o < sums.size(); ++o) {
          out[o * out_subtree_stride + static_cast<std::size_t>(t) * out_stride +
              static_cast<std::size_t>(n)] = sums[o] + (bias != nullptr ? bias[n] : 0.0f);
        }
      }
    }
  });
}

void ReferenceOps::copy_blocks(const KvBlocks& arena, absl::Span<const BlockId> from,
                               absl::Span<const BlockId> to) {
  enqueue([arena, from = std::vector<BlockId>(from.begin(), from.end()),
           to = std::vector<BlockId>(to.begin(), to.end())] {
    for (std::size_t i = 0; i < from.size(); ++i) {
      std::copy_n(arena.data + static_cast<std::size_t>(from[i]) * arena.block_bytes,
                  arena.block_bytes,
                  arena.data + static_cast<std::size_t>(to[i]) * arena.block_bytes);
    }
  });
}

void ReferenceOps::gated(Gate gate, const float* gate_up, int num_tokens, int ffn,
                         const Activation& out) {
  enqueue([=] {
    for (int t = 0; t < num_tokens; ++t) {
      const float* x = gate_up + static_cast<std::size_t>(t) * 2 * ffn;
      const float* up = x + ffn;
      float* y = activation_row(out, t);
      for (int i = 0; i < ffn; ++i) {
        const float a =
            gate == Gate::kSilu ? x[i] : kGelu * x[i] * (1.0f + 0.044715f * x[i] * x[i]);
        y[i] = x[i] / (1.0f + std::exp(-a)) * up[i];
      }
    }
  });
}

void ReferenceOps::combine(const CombineArgs& args) {
  std::vector<int> program(args.program.begin(), args.program.end());
  std::vector<const float*> partials(args.partials.begin(), args.partials.end());
  enqueue([args, program = std::move(program), partials = std::move(partials)] {
    std::vector<float> stack;
    for (int t = 0; t < args.rows; ++t) {
      const std::size_t row = static_cast<std::size_t>(t) * static_cast<std::size_t>(args.columns);
      for (int i = 0; i < args.columns; ++i) {
        float sum = combine_element(program, partials, row + static_cast<std::size_t>(i), stack);
        if (args.bias != nullptr) sum += args.bias[i];
        args.residual[row + static_cast<std::size_t>(i)] += sum;
      }
      if (args.norm_weight != nullptr) {
        norm_row(args.residual + row, args.columns, args.norm_weight, args.eps,
                 activation_row(args.out, t));
      }
    }
  });
}

void ReferenceOps::select(absl::Span<const float* const> parts, absl::Span<const TokenId> ends,
                          const TokenId* tokens, int rows, int columns, float* out) {
  enqueue([sources = std::vector<const float*>(parts.begin(), parts.end()),
           ends = std::vector<TokenId>(ends.begin(), ends.end()), tokens, rows, columns, out] {
    for (int t = 0; t < rows; ++t) {
      std::size_t owner = 0;
      while (ends[owner] <= tokens[t]) ++owner;
      const std::size_t row = static_cast<std::size_t>(t) * static_cast<std::size_t>(columns);
      std::copy_n(sources[owner] + row, columns, out + row);
    }
  });
}

void ReferenceOps::take_rows(const float* x, const std::int32_t* rows, int num_rows, int columns,
                             float* out) {
  enqueue([=] {
    const auto width = static_cast<std::size_t>(columns);
    for (int i = 0; i < num_rows; ++i) {
      std::copy_n(x + static_cast<std::size_t>(rows[i]) * width, width,
                  out + static_cast<std::size_t>(i) * width);
    }
  });
}

void ReferenceOps::feed(TokenId* tokens, const std::int32_t* sources, const TokenId* ids,
                        int num_tokens) {
  enqueue([=] {
    for (int t = 0; t < num_tokens; ++t) {
      if (sources[t] >= 0) tokens[t] = ids[sources[t]];
    }
  });
}

}  // namespace quire::reference
