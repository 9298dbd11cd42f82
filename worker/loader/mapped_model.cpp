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
    if (tensor.recipe >= 0) continue;
    QUIRE_RETURN_IF_ERROR(
        model->check_place(tensor.name, tensor.file, tensor.offset, tensor.bytes));
  }
  for (const Recipe& recipe : file.recipes) {
    for (const StoredTensor* part :
         {&recipe.values, &recipe.scales, &recipe.zeros, &recipe.order}) {
      QUIRE_RETURN_IF_ERROR(model->check_place(part->name, part->file, part->offset, part->bytes));
    }
  }
  return model;
}

absl::Status MappedModel::check_place(const std::string& name, int file, std::uint64_t offset,
                                      std::uint64_t bytes) const {
  const auto index = static_cast<std::size_t>(file);
  QUIRE_CHECK_LT(index, mappings_.size());
  const std::size_t size = mappings_[index].bytes().size();
  if (offset <= size && bytes <= size - offset) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(file_.files[index], ": the tensor ", name, " ends at byte ", offset + bytes,
                   ", but the file has ", size,
                   " bytes; it was cut short after it was opened. Download it again."));
}

const std::byte* MappedModel::at(int file, std::uint64_t offset) const {
  const absl::string_view bytes = mappings_[static_cast<std::size_t>(file)].bytes();
  return reinterpret_cast<const std::byte*>(bytes.data()) + offset;
}

MatrixPart MappedModel::rows(const TensorInfo& tensor, Range rows) const {
  QUIRE_CHECK_LE(static_cast<std::int64_t>(rows.end), tensor.shape[0]);
  const std::size_t stride = file_row_bytes(tensor);
  return {at(tensor.file, tensor.offset) + static_cast<std::size_t>(rows.begin) * stride, stride,
          rows.size()};
}

absl::StatusOr<MatrixPart> MappedModel::columns(const TensorInfo& tensor, Range columns) const {
  QUIRE_CHECK_LE(static_cast<std::int64_t>(columns.end), tensor.shape.back());
  QUIRE_RETURN_IF_ERROR(check_column_cut(file_, tensor, columns));
  return MatrixPart{at(tensor.file, tensor.offset) + row_bytes(tensor.format, columns.begin),
                    file_row_bytes(tensor), static_cast<int>(tensor.shape[0])};
}

std::vector<float> MappedModel::vector(const TensorInfo& tensor, Range range) const {
  QUIRE_CHECK_LE(static_cast<std::int64_t>(range.end), tensor.shape[0]);
  QUIRE_CHECK_EQ(traits(tensor.format).block, 1);
  std::vector<float> values(static_cast<std::size_t>(range.size()));
  formats::decode_row(tensor.format,
                      at(tensor.file, tensor.offset) + row_bytes(tensor.format, range.begin),
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

absl::Status check_column_cut(const ModelFile& file, const TensorInfo& tensor, Range columns) {
  const FormatTraits& format = traits(tensor.format);
  if (columns.begin % format.cut == 0 && columns.end % format.cut == 0) return absl::OkStatus();
  const auto index = static_cast<std::size_t>(tensor.file);
  return absl::InvalidArgumentError(absl::StrCat(
      index < file.files.size() ? file.files[index] : file.path, ": the tensor ", tensor.name, " (",
      format.name, ", blocks of ", format.cut, ") cannot be cut at columns ", columns.begin, " to ",
      columns.end, "; use another --tensor-parallel-size."));
}

}  // namespace quire
