// Picks tokens on the CPU; definitions in kernels/sampling.h. A row is sampled by one thread with
// sums over segments of kVocabSegment ids, each in a fixed order of lanes and merged in order of
// segments: the same pick whatever the batch and however ranks share the vocabulary.
#pragma once

#include <vector>

#include "kernels/cpu/row_sampler.h"
#include "kernels/cpu/vector_ops.h"
#include "kernels/sampling.h"

namespace quire::cpu {

class Sampler {
 public:
  Sampler(const VectorOps& ops, const SampleArgs& args);

  int num_rows() const { return args_.num_rows; }
  void sample_row(int row) const;

 private:
  // At most kVocabSegment ids of a piece.
  struct Segment {
    std::size_t piece = 0;
    int offset = 0;  // of its first id in the piece
    int size = 0;
    TokenId first_id = 0;
  };

  std::vector<LogitRun> runs_of(int row) const;
  void pick_adjusted(const SampleRow& row, std::vector<LogitRun> runs, RowResult* result) const;
  static void pick(const SampleRow& row, const RowSampler& sampler, RowResult* result);

  const VectorOps& ops_;
  SampleArgs args_;  // its spans point at the copies below or are not used
  std::vector<const float*> pieces_;
  std::vector<std::size_t> strides_;
  std::vector<Segment> segments_;
};

}  // namespace quire::cpu
