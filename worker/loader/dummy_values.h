// Weights that nobody trained: numbers that depend on the tensor's name and the element's place
// alone, so that every cut of a model holds the same. Near enough to a normal distribution of
// deviation 0.02 around zero for activations to stay finite; norms are 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/model_file/model_file.h"
#include "common/shard.h"

namespace quire {

class DummyValues {
 public:
  explicit DummyValues(const TensorInfo& tensor);

  // The blocks that hold columns [columns.begin, columns.end) of row `row`, one after the other.
  void fill_row(int row, Range columns, std::byte* out) const;
  // Of formats that have them; the same for every row.
  float row_scale() const { return row_scale_; }
  // Elements of a vector: 1 of a norm, else as small as a matrix's.
  std::vector<float> vector(Range range) const;

 private:
  void fill_elements(int row, Range columns, std::byte* out) const;
  void fill_blocks(int row, Range blocks, std::byte* out) const;
  std::uint64_t draw(std::uint64_t counter) const;

  Format format_;
  std::int64_t columns_;  // of the whole tensor
  std::uint64_t key_;
  bool norm_;
  float row_scale_ = 1.0f;
  std::vector<std::byte> codes_;   // elements: the encoding of each of the kSteps values
  std::vector<std::byte> header_;  // blocks: the bytes that are the same in all of them
  std::size_t header_at_ = 0;      // where in the block
};

}  // namespace quire
