// Slices of a checkpoint as views into its mapped files.
#include "worker/loader/mapped_model.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "kernels/formats/table.h"

namespace quire {
namespace {

// Bytes of one whole row of a matrix in the file.
std::size_t file_row_bytes(const TensorInfo& tensor) {
  return row_bytes(tensor.format, tensor.shape.back());
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedModel>> MappedModel::open(const ModelFile& file) {
  auto model = std::unique_ptr<MappedModel>(new MappedModel(file));
  for (const std::string& path : file.files) {
    QUIRE_ASSIGN_OR_RETURN(MappedFile mapping, MappedFile::open(path));
    model->mappings_.push_back(std::move(mapping));
  }
  for (const TensorInfo& tensor : file.tensors) {
    const auto index = static_cast<std::size_t>(tensor.file);
    QUIRE_CHECK_LT(index, model->mappings_.size());
    const std::size_t size = model->mappings_[index].bytes().size();
    if (tensor.offset > size || tensor.bytes > size - tensor.offset) {
      return absl::DataLossError(
          absl::StrCat(file.files[index], ": the tensor ", tensor.name, " ends at byte ",
                       tensor.offset + tensor.bytes, ", but the file has ", size,
                       " bytes; it was cut short after it was opened. Download it again."));
    }
  }
  return model;
}

const std::byte* MappedModel::data(const TensorInfo& tensor) const {
  const absl::string_view bytes = mappings_[static_cast<std::size_t>(tensor.file)].bytes();
  return reinterpret_cast<const std::byte*>(bytes.data()) + tensor.offset;
}

MatrixPart MappedModel::rows(const TensorInfo& tensor, Range rows) const {
  QUIRE_CHECK_LE(static_cast<std::int64_t>(rows.end), tensor.shape[0]);
  const std::size_t stride = file_row_bytes(tensor);
  return {data(tensor) + static_cast<std::size_t>(rows.begin) * stride, stride, rows.size()};
}

absl::StatusOr<MatrixPart> MappedModel::columns(const TensorInfo& tensor, Range columns) const {
  QUIRE_CHECK_LE(static_cast<std::int64_t>(columns.end), tensor.shape.back());
  const int block = traits(tensor.format).block;
  if (columns.begin % block != 0 || columns.end % block != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        file_.files[static_cast<std::size_t>(tensor.file)], ": the tensor ", tensor.name, " (",
        traits(tensor.format).name, ", blocks of ", block, ") cannot be cut at columns ",
        columns.begin, " to ", columns.end, "; use another --tensor-parallel-size."));
  }
  return MatrixPart{data(tensor) + row_bytes(tensor.format, columns.begin), file_row_bytes(tensor),
                    static_cast<int>(tensor.shape[0])};
}

std::vector<float> MappedModel::vector(const TensorInfo& tensor, Range range) const {
  QUIRE_CHECK_LE(static_cast<std::int64_t>(range.end), tensor.shape[0]);
  QUIRE_CHECK_EQ(traits(tensor.format).block, 1);
  std::vector<float> values(static_cast<std::size_t>(range.size()));
  formats::decode_row(tensor.format, data(tensor) + row_bytes(tensor.format, range.begin),
                      range.size(), values.data());
  return values;
}

void MappedModel::drop(const MatrixPart& part) const {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(part.data);
  const std::uintptr_t end = begin + part.row_stride * static_cast<std::size_t>(part.rows);
  for (const MappedFile& mapping : mappings_) {
    const auto base = reinterpret_cast<std::uintptr_t>(mapping.bytes().data());
    const std::uintptr_t limit = base + mapping.bytes().size();
    if (begin < base || begin >= limit) continue;
    const std::uintptr_t first = begin / page * page;
    const std::uintptr_t last = std::min(end, limit);
    if (last > first) {
      ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
    }
  }
}

}  // namespace quire
