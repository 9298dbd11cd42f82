// A thread's part of a matrix product as a LinearJob, and the choice of its kernel. Threads divide
// the panels, or many rows (share.h); nobody divides K.
#include "kernels/cpu/linear.h"

#include <algorithm>

#include "absl/container/inlined_vector.h"
#include "common/check.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/linear_job.h"
#include "kernels/cpu/pack.h"

namespace quire::cpu {
namespace {

using LeafSteps = absl::InlinedVector<LeafStep, 32>;

LeafSteps leaf_steps(const SumPlan& sum) {
  LeafSteps steps;
  int depth = 0;
  for (std::size_t i = 0; i < sum.leaves.size(); ++i) {
    QUIRE_CHECK_LT(depth, kMaxSumDepth);
    QUIRE_CHECK_LE(sum.merges[i], depth);
    depth += 1 - sum.merges[i];
    steps.push_back({sum.leaves[i].begin, sum.leaves[i].end, sum.merges[i]});
  }
  QUIRE_CHECK_EQ(depth, sum.num_outputs);
  return steps;
}

// What is computed: rows of the activations, and panels.
struct Share {
  Range rows;
  Range panels;
};

// Panels [begin, end) of a thread, in pairs so that tiles are full: thread i of n starts where
// i / n of the pairs end.
Range panels_of(int num_panels, int thread, int num_threads) {
  const std::int64_t pairs = (num_panels + 1) / 2;
  const auto start = [&](std::int64_t i) {
    return static_cast<int>(std::min<std::int64_t>(num_panels, pairs * i / num_threads * 2));
  };
  return {start(thread), start(thread + 1)};
}

LinearJob make_job(const LinearArgs& args, const LeafSteps& steps, const Share& mine) {
  const Weight& weight = *args.weight;
  const PanelLayout layout = panel_layout(weight.format, weight.sum, weight.rows);
  LinearJob job;
  job.panels = static_cast<const std::byte*>(weight.data);
  job.panel_bytes = layout.panel_bytes;
  job.header_offset = layout.header_offset;
  job.num_units = layout.num_units;
  job.panel_begin = mine.panels.begin;
  job.panel_end = mine.panels.end;
  job.rows = weight.rows;
  job.pair_sums = job.panels + layout.pair_sums_offset();
  job.leaves = steps.data();
  job.num_leaves = static_cast<int>(steps.size());
  const auto first_row = static_cast<std::size_t>(mine.rows.begin);
  job.in_stride = activation_stride(args.in.layout, args.in.columns);
  job.num_blocks = num_blocks32(args.in.columns);
  job.in = static_cast<const std::byte*>(args.in.data) + first_row * job.in_stride;
  if (args.in.layout == ActivationLayout::kQ8) {
    const Q8Row first = q8_row(args.in, mine.rows.begin);
    job.in_scales =
        static_cast<std::size_t>(reinterpret_cast<const std::byte*>(first.scales) - job.in);
    job.in_sums = static_cast<std::size_t>(reinterpret_cast<const std::byte*>(first.sums) - job.in);
  }
  job.tokens = mine.rows.size();
  job.bias = args.bias;
  job.out = args.out + first_row * args.out_stride;
  job.out_stride = args.out_stride;
  job.out_subtree_stride = args.out_subtree_stride;
  return job;
}

int num_panels(const Weight& weight) {
  return (weight.rows + kPanelRows - 1) / kPanelRows;
}

// What the thread reads of the matrix after this one.
void set_next(const Weight& next, Range panels, LinearJob& job) {
  const std::size_t panel_bytes = panel_layout(next.format, next.sum, next.rows).panel_bytes;
  job.next = static_cast<const std::byte*>(next.data) +
             static_cast<std::size_t>(panels.begin) * panel_bytes;
  job.next_bytes = static_cast<std::size_t>(panels.size()) * panel_bytes;
}

void run(Isa isa, ActivationLayout layout, Format format, const LinearJob& job) {
  const bool avx512 = isa != Isa::kAvx2;
  switch (layout) {
    case ActivationLayout::kF32:
      return avx512 ? linear_f32_avx512(format, job) : linear_f32_avx2(format, job);
    case ActivationLayout::kQ8:
      return avx512 ? linear_q8_avx512(format, job) : linear_q8_avx2(format, job);
    case ActivationLayout::kBf16:
      QUIRE_CHECK(isa == Isa::kAvx512);
      return linear_bf16_avx512(job);
  }
}

// `next_panels` are those of args.next.
void compute(Isa isa, const LinearArgs& args, const Share& mine, Range next_panels,
             AheadLines* ahead) {
  const Weight& weight = *args.weight;
  QUIRE_CHECK_EQ(args.in.columns, weight.columns);
  QUIRE_CHECK(args.in.layout == weight.input);
  QUIRE_CHECK(args.bias == nullptr || weight.sum.num_outputs == 1);
  if (mine.panels.empty() || mine.rows.empty()) return;
  const LeafSteps steps = leaf_steps(weight.sum);
  LinearJob job = make_job(args, steps, mine);
  if (args.next != nullptr) set_next(*args.next, next_panels, job);
  job.ahead = ahead;
  run(isa, weight.input, weight.format, job);
}

}  // namespace

void linear(Isa isa, const LinearArgs& args, int thread, int num_threads) {
  const bool by_rows = divides_rows(args.in.rows, num_threads);
  const auto panels = [&](const Weight& weight) {
    const int all = num_panels(weight);
    return by_rows ? Range{0, all} : panels_of(all, thread, num_threads);
  };
  const Range rows = by_rows ? share_of(args.in.rows, thread, num_threads) : Range{0, args.in.rows};
  compute(isa, args, {rows, panels(*args.weight)},
          args.next != nullptr ? panels(*args.next) : Range(), nullptr);
}

void linear_rows(Isa isa, const LinearArgs& args, Range run, const RowShares& shares, int thread) {
  const Range mine = shares.of(thread);
  const bool last = run.end == mine.end;
  const AheadPart& part = last ? args.next_attention : args.next_group;
  const ReadAhead::Pieces pieces =
      part.pieces(args.in.rows, shares.group_at(thread, last ? mine.begin : run.end), run.size());
  AheadLines ahead{.piece = pieces.data(),
                   .end = pieces.data() + pieces.size(),
                   .piece_bytes = part.piece_bytes()};
  compute(isa, args, {run, {0, num_panels(*args.weight)}},
          args.next != nullptr ? Range{0, num_panels(*args.next)} : Range(),
          pieces.empty() ? nullptr : &ahead);
}

}  // namespace quire::cpu
