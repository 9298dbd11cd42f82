// Where column- and row-parallel products are enqueued.
#include "worker/model/linear.h"

#include <algorithm>

namespace quire {

void ColumnLinear::add(LocalWeight weight) {
  const ActivationLayout layout = weight.weight.input;
  if (std::find(layouts_.begin(), layouts_.end(), layout) == layouts_.end()) {
    layouts_.push_back(layout);
  }
  const int first_column = columns_;
  columns_ += weight.weight.rows;
  pieces_.push_back({std::move(weight), first_column});
}

std::size_t ColumnLinear::bytes() const {
  std::size_t total = 0;
  for (const Piece& piece : pieces_) total += piece.weight.weight.bytes;
  return total;
}

void ColumnLinear::forward(Ops& ops, const Inputs& in, float* out) const {
  for (const Piece& piece : pieces_) {
    const Weight& weight = piece.weight.weight;
    const float* bias = bias_.data() == nullptr ? nullptr : bias_.floats() + piece.first_column;
    ops.linear(weight, in.at(weight.input), bias, out + piece.first_column,
               static_cast<std::size_t>(columns_), 0);
  }
}

void RowLinear::forward(Ops& ops, Comm& comm, const Activation& in, MeetArgs meet) const {
  float* partials = comm.begin_meet(*meet.plan, meet.rows, meet.columns);
  const auto columns = static_cast<std::size_t>(meet.columns);
  if (weight_.weight.sum.num_outputs > 0 && weight_.weight.data != nullptr) {
    ops.linear(weight_.weight, in, nullptr, partials, columns,
               columns * static_cast<std::size_t>(meet.rows));
  }
  meet.bias = bias_.floats();
  comm.meet(meet);
}

}  // namespace quire
