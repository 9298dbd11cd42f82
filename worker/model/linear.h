// The two kinds of tensor-parallel linear layers: besides common/shard, the only places that know
// parallelism. A ColumnLinear computes this rank's output columns from a replicated input; a
// RowLinear sums over this rank's part of the input and meets the other ranks.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "worker/comm/comm.h"
#include "worker/device_buffer.h"

namespace quire {

// A packed matrix and the memory it lives in.
struct LocalWeight {
  Weight weight;
  DeviceBuffer memory;
};

// One replicated input in every layout that its readers want. Formats may differ between matrices
// that read the same row (a Q8_0 value beside Q4_1 queries, or F16 beside them).
class Inputs {
 public:
  void set(const Activation& activation) {
    all_[static_cast<std::size_t>(activation.layout)] = activation;
  }
  const Activation& at(ActivationLayout layout) const {
    return all_[static_cast<std::size_t>(layout)];
  }

 private:
  std::array<Activation, 3> all_;
};

class ColumnLinear {
 public:
  // Matrices stacked along N; each writes its own columns of the output.
  void add(LocalWeight weight);
  void set_bias(DeviceBuffer bias) { bias_ = std::move(bias); }  // [N]

  int columns() const { return columns_; }  // local N
  const std::vector<ActivationLayout>& layouts() const { return layouts_; }
  std::size_t bytes() const;
  // out: [T][N]
  void forward(Ops& ops, const Inputs& in, float* out) const;

 private:
  struct Piece {
    LocalWeight weight;
    int first_column = 0;
  };
  std::vector<Piece> pieces_;
  DeviceBuffer bias_;
  std::vector<ActivationLayout> layouts_;
  int columns_ = 0;
};

class RowLinear {
 public:
  // A rank that owns no leaf has no matrix, but takes part in the meeting.
  void set(LocalWeight weight) { weight_ = std::move(weight); }
  void set_bias(DeviceBuffer bias) { bias_ = std::move(bias); }  // [E], whole on every rank

  ActivationLayout layout() const { return weight_.weight.input; }
  std::size_t bytes() const { return weight_.weight.bytes; }
  // residual += all ranks' in * weight + bias, then the norm that `meet` names. `meet` brings plan,
  // rows, columns, residual, norm and output; the bias is ours.
  void forward(Ops& ops, Comm& comm, const Activation& in, MeetArgs meet) const;

 private:
  LocalWeight weight_;
  DeviceBuffer bias_;
};

}  // namespace quire
