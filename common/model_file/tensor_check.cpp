#include "common/model_file/tensor_check.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_join.h"
#include "common/model_file/file_error.h"

namespace quire {

absl::StatusOr<std::uint64_t> tensor_bytes(const std::string& file, const TensorInfo& tensor) {
  const FormatTraits& format = traits(tensor.format);
  std::uint64_t elements = 1;
  for (const std::int64_t dim : tensor.shape) {
    if (dim <= 0) {
      return corrupt(file, "tensor '", tensor.name, "' has a dimension of ", dim,
                     ", but must be at least 1.");
    }
    if (__builtin_mul_overflow(elements, static_cast<std::uint64_t>(dim), &elements)) {
      return corrupt(file, "tensor '", tensor.name, "' has more elements than fit 64 bits (shape ",
                     absl::StrJoin(tensor.shape, " x "), ").");
    }
  }
  const std::int64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (columns % format.block != 0) {
    return corrupt(file, "tensor '", tensor.name, "' has rows of ", columns,
                   " elements, which blocks of ", format.block, " (", format.name,
                   ") do not divide.");
  }
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / static_cast<std::uint64_t>(format.block),
                             static_cast<std::uint64_t>(format.block_bytes), &bytes)) {
    return corrupt(file, "tensor '", tensor.name, "' has more bytes than fit 64 bits.");
  }
  return bytes;
}

absl::Status check_tensors(const std::string& file, std::vector<TensorInfo>* tensors) {
  std::stable_sort(tensors->begin(), tensors->end(),
                   [](const TensorInfo& a, const TensorInfo& b) { return a.offset < b.offset; });
  absl::flat_hash_set<absl::string_view> names;
  const TensorInfo* previous = nullptr;
  for (const TensorInfo& tensor : *tensors) {
    if (!names.insert(tensor.name).second) {
      return corrupt(file, "tensor '", tensor.name, "' is described twice.");
    }
    if (previous != nullptr && previous->offset + previous->bytes > tensor.offset) {
      return corrupt(file, "tensor '", tensor.name, "' begins at byte ", tensor.offset,
                     ", inside tensor '", previous->name, "'.");
    }
    previous = &tensor;
  }
  return absl::OkStatus();
}

}  // namespace quire
