// The bytes of a checkpoint, mapped read-only and paged in only where a rank touches them. Slices
// are views: valid while the MappedModel lives. Cuts that a quantization block does not allow are
// refused by name.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/mapped_file.h"
#include "common/model_file/model_file.h"
#include "common/shard.h"
#include "kernels/weight.h"

namespace quire {

// Tensors of a recipe are not read by rows or columns here, only at their stored bytes: data().
class MappedModel {
 public:
  // Maps the files that `file` names; `file` must outlive the result. NotFound / DataLoss name the
  // file.
  static absl::StatusOr<std::unique_ptr<MappedModel>> open(const ModelFile& file);

  // Rows [rows.begin, rows.end) of a matrix, as one part to stack along N.
  MatrixPart rows(const TensorInfo& tensor, Range rows) const;
  // Columns [columns.begin, columns.end) of every row, from the block of the first one on.
  // InvalidArgument where the format cannot be cut.
  absl::StatusOr<MatrixPart> columns(const TensorInfo& tensor, Range columns) const;
  // Elements [range.begin, range.end) of a vector (f32, f16 or bf16) as fp32.
  std::vector<float> vector(const TensorInfo& tensor, Range range) const;

  // The first byte of a recipe's tensor.
  const std::byte* data(const StoredTensor& tensor) const { return at(tensor.file, tensor.offset); }

  // Lets the kernel forget the pages of `part`: they were packed and will not be read again.
  void drop(const MatrixPart& part) const;

 private:
  explicit MappedModel(const ModelFile& file) : file_(file) {}
  absl::Status check_place(const std::string& name, int file, std::uint64_t offset,
                           std::uint64_t bytes) const;
  const std::byte* at(int file, std::uint64_t offset) const;

  const ModelFile& file_;
  std::vector<MappedFile> mappings_;  // one per ModelFile::files
};

// InvalidArgument names the tensor where its format cannot be cut at these columns.
absl::Status check_column_cut(const ModelFile& file, const TensorInfo& tensor, Range columns);

}  // namespace quire
