// The part of every tensor that a rank owns, whatever the checkpoint holds: plain tensors as views
// of their mapped file, quantized ones of a recipe rewritten into blocks, made-up ones made. What
// had to be made lives in a buffer of its own until drop(); nothing else of it ever exists.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model_file/model_file.h"
#include "common/shard.h"
#include "kernels/weight.h"
#include "worker/loader/mapped_model.h"

namespace quire {

class LocalTensors {
 public:
  // `file` must outlive the result. Of a made-up model nothing is opened.
  static absl::StatusOr<std::unique_ptr<LocalTensors>> open(const ModelFile& file, int num_threads);

  // Rows [rows.begin, rows.end) of a matrix, as one part to stack along N.
  absl::StatusOr<MatrixPart> rows(const TensorInfo& tensor, Range rows);
  // Columns [columns.begin, columns.end) of every row, from the block of the first one on.
  // InvalidArgument names the tensor where the format cannot be cut there.
  absl::StatusOr<MatrixPart> columns(const TensorInfo& tensor, Range columns);
  // Elements of a vector as fp32.
  std::vector<float> vector(const TensorInfo& tensor, Range range) const;

  // `part` was packed and will not be read again.
  void drop(const MatrixPart& part);

 private:
  struct Staged {
    std::unique_ptr<std::byte[]> bytes;
    std::vector<float> row_scales;
  };

  LocalTensors(const ModelFile& file, int num_threads) : file_(file), num_threads_(num_threads) {}
  absl::StatusOr<MatrixPart> make(const TensorInfo& tensor, Range rows, Range columns);
  absl::StatusOr<MatrixPart> made_up(const TensorInfo& tensor, Range rows, Range columns);
  absl::StatusOr<MatrixPart> transcoded(const TensorInfo& tensor, Range rows, Range columns);
  MatrixPart scaled(const TensorInfo& tensor, const Recipe& recipe, Range rows, MatrixPart part);
  absl::StatusOr<MatrixPart> stage(const TensorInfo& tensor, int rows, std::size_t row_stride);

  const ModelFile& file_;
  const int num_threads_;
  std::unique_ptr<MappedModel> mapped_;  // null of a made-up model
  std::vector<Staged> staged_;
};

}  // namespace quire
