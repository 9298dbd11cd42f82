// What holds for the tensors of every container: sizes that do not overflow, unique names, and
// bytes that no two tensors share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model_file/model_file.h"

namespace quire {

// Bytes of a tensor of this shape, every dimension positive and rows made of whole blocks; else
// DataLoss naming file and tensor.
absl::StatusOr<std::uint64_t> tensor_bytes(const std::string& file, const TensorInfo& tensor);
absl::StatusOr<std::uint64_t> tensor_bytes(const std::string& file, const StoredTensor& tensor);

// DataLoss if two tensors have one name, or overlap. `tensors` are of one file; sorts by offset.
absl::Status check_tensors(const std::string& file, std::vector<TensorInfo>* tensors);
absl::Status check_tensors(const std::string& file, std::vector<StoredTensor>* tensors);

// "F32", and bytes of an element.
const char* name_of(Dtype dtype);
int element_bytes(Dtype dtype);

}  // namespace quire
