// The tensors that a checkpoint of a spec would have, for weights that are made up.
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "worker/model/arch/arch.h"

namespace quire {
namespace {

absl::Status check_rows(const ModelFile& file, const TensorInfo& tensor) {
  const FormatTraits& format = traits(tensor.format);
  if (tensor.shape.back() % format.block == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      file.path, ": the tensor ", tensor.name, " would have rows of ", tensor.shape.back(),
      " elements, which blocks of ", format.block, " (", format.name,
      ") do not divide; its quantization_config does not fit its shape."));
}

}  // namespace

absl::Status add_dummy_tensors(const Arch& arch, ModelFile* file) {
  QUIRE_CHECK(file->dummy.has_value());
  if (file->gguf) return absl::OkStatus();  // its header has them
  for (const TensorRow& row : arch.tensors) {
    if (!is_needed(row, file->spec)) continue;
    for (int layer = 0; layer < (is_per_layer(row) ? file->spec.num_layers : 1); ++layer) {
      TensorInfo tensor;
      tensor.name = tensor_name(row, file->gguf, layer);
      tensor.format =
          is_per_layer(row) && is_matrix(row) ? file->dummy->matrices : file->dummy->plain;
      tensor.shape = {dim_size(row.rows, file->spec)};
      if (is_matrix(row)) tensor.shape.push_back(dim_size(row.columns, file->spec));
      if (absl::Status status = check_rows(*file, tensor); !status.ok()) return status;
      const auto rows = static_cast<std::uint64_t>(is_matrix(row) ? tensor.shape[0] : 1);
      tensor.bytes = rows * (row_bytes(tensor.format, tensor.shape.back()) +
                             (has_row_scales(tensor.format) ? sizeof(float) : 0));
      file->tensors.push_back(std::move(tensor));
    }
  }
  return absl::OkStatus();
}

}  // namespace quire
