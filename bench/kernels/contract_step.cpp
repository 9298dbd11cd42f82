#include "bench/kernels/contract_step.h"

#include <utility>

#include "kernels/cpu/panel.h"

namespace quire::bench {
namespace {

constexpr int kTileRows = 2 * cpu::kPanelRows;  // what threads divide N by

}  // namespace

std::byte* SharedBytes::get(const Key& key, std::size_t bytes) {
  std::byte*& data = data_[{key, bytes}];
  if (data == nullptr) {
    data = allocate(memory_, bytes);
    fill_random(data, bytes);
  }
  return data;
}

ContractStep::ContractStep(const LinearModel& model, Format format, Way way, cpu::Isa isa,
                           int threads, int least_rows, SharedBytes& bytes)
    : way_(way), isa_(isa), threads_(threads), least_rows_(least_rows), bytes_(bytes) {
  for (int layer = 0; layer < model.layers; ++layer) {
    for (const LinearShape& shape : model.layer) add(shape, format);
  }
  add(model.vocabulary, format == Format::kQ4_1 ? Format::kQ8_0 : format);
}

// As few as give a thread its rows; they divide the threads.
int ContractStep::pieces_of(const LinearShape& shape) const {
  if (way_ != Way::kSplit) return 1;
  int pieces = 1;
  for (int more = 2; more <= threads_ && 32 * more <= shape.columns; ++more) {
    if (shape.rows * pieces / threads_ >= least_rows_) break;
    if (threads_ % more == 0) pieces = more;
  }
  return pieces;
}

void ContractStep::add(LinearShape shape, Format format) {
  Stage stage;
  stage.rows = shape.rows;
  stage.pieces = pieces_of(shape);
  stage.is_row_parallel = shape.is_ffn || shape.kv_groups > 0;
  if (way_ != Way::kLeaves) {
    shape.kv_groups = 0;
    shape.is_ffn = false;
  }
  const int parts = threads_ / stage.pieces;  // of N
  const int tiles = (shape.rows + kTileRows - 1) / kTileRows;
  for (int thread = 0; thread < threads_; ++thread) {
    const Range mine = cpu::share_of(tiles, thread % parts, parts);
    const Range blocks = cpu::share_of(shape.columns / 32, thread / parts, stage.pieces);
    LinearShape part = shape;
    part.rows = std::min(shape.rows, mine.end * kTileRows) - mine.begin * kTileRows;
    if (stage.pieces > 1) part.columns = 32 * blocks.size();
    Product& product = stage.products.emplace_back();
    product.piece = thread / parts;
    product.first_row = mine.begin * kTileRows;
    if (part.rows <= 0) continue;
    product.weight = shaped_matrix(part, format, isa_);
    const SharedBytes::Key key = {1 + stages_.size(), static_cast<std::size_t>(thread),
                                  static_cast<std::size_t>(part.rows)};
    product.weight.data = bytes_.get(key, product.weight.bytes);
  }
  stages_.push_back(std::move(stage));
}

std::size_t ContractStep::most_floats(int tokens) const {
  int most = 0;
  for (const Stage& stage : stages_) most = std::max(most, stage.rows * stage.pieces);
  return static_cast<std::size_t>(most) * static_cast<std::size_t>(tokens);
}

void ContractStep::set_tokens(int tokens, float* out) {
  tokens_ = tokens;
  out_ = out;
  std::size_t widest = 0;
  for (const Stage& stage : stages_) {
    if (stage.is_row_parallel) widest = std::max(widest, static_cast<std::size_t>(stage.rows));
  }
  residual_.assign(widest * static_cast<std::size_t>(tokens), 0.0f);
  inputs_.clear();
  for (Stage& stage : stages_) {
    for (const Product& product : stage.products) {
      Activation& in = inputs_[product.weight.columns];
      const Weight& weight = product.weight;
      if (weight.rows == 0 || in.data != nullptr) continue;
      const std::size_t bytes =
          cpu::activation_stride(weight.input, weight.columns) * static_cast<std::size_t>(tokens);
      in = {bytes_.get({0, 0, 0}, bytes), weight.input, tokens, weight.columns};
    }
    // What is row-parallel is added to the residual, a split of the others to its first piece.
    const int first = stage.is_row_parallel ? 0 : 1;
    stage.sum = stage.is_row_parallel ? residual_.data() : stage.pieces > 1 ? out : nullptr;
    stage.partials.clear();
    stage.program.clear();
    for (int piece = first; piece < stage.pieces; ++piece) {
      stage.program.push_back(piece - first);
      if (piece > first) stage.program.push_back(-1);
      stage.partials.push_back(out + static_cast<std::size_t>(piece) *
                                         static_cast<std::size_t>(stage.rows) *
                                         static_cast<std::size_t>(tokens));
    }
  }
}

void ContractStep::multiply(std::size_t stage, int thread) const {
  const Product& product = stages_[stage].products[static_cast<std::size_t>(thread)];
  if (product.weight.rows == 0) return;
  const auto rows = static_cast<std::size_t>(stages_[stage].rows);
  const Product& next =
      stages_[(stage + 1) % stages_.size()].products[static_cast<std::size_t>(thread)];
  cpu::LinearArgs args;
  args.weight = &product.weight;
  args.next = next.weight.rows > 0 ? &next.weight : nullptr;
  args.in = inputs_.at(product.weight.columns);
  args.out = out_ +
             static_cast<std::size_t>(product.piece) * rows * static_cast<std::size_t>(tokens_) +
             product.first_row;
  args.out_stride = rows;
  cpu::linear(isa_, args, 0, 1);
}

void ContractStep::combine(const Stage& stage, int thread) const {
  cpu::CombineJob job;
  job.program = stage.program.data();
  job.program_size = static_cast<int>(stage.program.size());
  job.partials = stage.partials.data();
  job.columns = stage.rows;
  job.residual = stage.sum;
  const Range mine = cpu::share_of(tokens_, thread, threads_);
  for (int t = mine.begin; t < mine.end; ++t) cpu::vector_ops(isa_).combine_row(job, t);
}

void ContractStep::run(int thread, Team& team) const {
  for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
    multiply(stage, thread);
    team.meet();
    if (stages_[stage].sum == nullptr) continue;
    combine(stages_[stage], thread);
    team.meet();
  }
}

}  // namespace quire::bench
