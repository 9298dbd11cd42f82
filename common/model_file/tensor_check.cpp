#include "common/model_file/tensor_check.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_join.h"
#include "common/model_file/file_error.h"

namespace quire {
namespace {

struct DtypeTraits {
  const char* name;
  int bytes;
};
constexpr DtypeTraits kDtypeTraits[] = {
    {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F8_E4M3", 1}, {"I8", 1}, {"I32", 4}, {"I64", 8},
};

// `block` elements of a row are stored together.
struct Blocks {
  const char* name;
  int block;
  int block_bytes;
};

absl::StatusOr<std::uint64_t> checked_bytes(const std::string& file, const std::string& name,
                                            const std::vector<std::int64_t>& shape,
                                            const Blocks& format) {
  std::uint64_t elements = 1;
  for (const std::int64_t dim : shape) {
    if (dim <= 0) {
      return corrupt(file, "tensor '", name, "' has a dimension of ", dim,
                     ", but must be at least 1.");
    }
    if (__builtin_mul_overflow(elements, static_cast<std::uint64_t>(dim), &elements)) {
      return corrupt(file, "tensor '", name, "' has more elements than fit 64 bits (shape ",
                     absl::StrJoin(shape, " x "), ").");
    }
  }
  const std::int64_t columns = shape.empty() ? 1 : shape.back();
  if (columns % format.block != 0) {
    return corrupt(file, "tensor '", name, "' has rows of ", columns, " elements, which blocks of ",
                   format.block, " (", format.name, ") do not divide.");
  }
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / static_cast<std::uint64_t>(format.block),
                             static_cast<std::uint64_t>(format.block_bytes), &bytes)) {
    return corrupt(file, "tensor '", name, "' has more bytes than fit 64 bits.");
  }
  return bytes;
}

template <typename Tensor>
absl::Status check_all(const std::string& file, std::vector<Tensor>* tensors) {
  std::stable_sort(tensors->begin(), tensors->end(),
                   [](const Tensor& a, const Tensor& b) { return a.offset < b.offset; });
  absl::flat_hash_set<absl::string_view> names;
  const Tensor* previous = nullptr;
  for (const Tensor& tensor : *tensors) {
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

}  // namespace

absl::StatusOr<std::uint64_t> tensor_bytes(const std::string& file, const TensorInfo& tensor) {
  const FormatTraits& format = traits(tensor.format);
  return checked_bytes(file, tensor.name, tensor.shape,
                       {format.name, format.block, format.block_bytes});
}

absl::StatusOr<std::uint64_t> tensor_bytes(const std::string& file, const StoredTensor& tensor) {
  return checked_bytes(file, tensor.name, tensor.shape,
                       {name_of(tensor.dtype), 1, element_bytes(tensor.dtype)});
}

absl::Status check_tensors(const std::string& file, std::vector<TensorInfo>* tensors) {
  return check_all(file, tensors);
}
absl::Status check_tensors(const std::string& file, std::vector<StoredTensor>* tensors) {
  return check_all(file, tensors);
}

const char* name_of(Dtype dtype) {
  return kDtypeTraits[static_cast<std::size_t>(dtype)].name;
}
int element_bytes(Dtype dtype) {
  return kDtypeTraits[static_cast<std::size_t>(dtype)].bytes;
}

}  // namespace quire
