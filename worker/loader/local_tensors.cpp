// Which of the three kinds a tensor is, and the buffers of those that are made.
#include "worker/loader/local_tensors.h"

#include <algorithm>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/loader/dummy_values.h"
#include "worker/loader/parallel.h"
#include "worker/loader/transcode.h"

namespace quire {

absl::StatusOr<std::unique_ptr<LocalTensors>> LocalTensors::open(const ModelFile& file,
                                                                 int num_threads) {
  auto tensors = std::unique_ptr<LocalTensors>(new LocalTensors(file, num_threads));
  if (!file.dummy) {
    QUIRE_ASSIGN_OR_RETURN(tensors->mapped_, MappedModel::open(file));
  }
  return tensors;
}

absl::StatusOr<MatrixPart> LocalTensors::rows(const TensorInfo& tensor, Range rows) {
  const Range columns = {0, static_cast<int>(tensor.shape[1])};
  if (file_.dummy || tensor.recipe >= 0) return make(tensor, rows, columns);
  return mapped_->rows(tensor, rows);
}

absl::StatusOr<MatrixPart> LocalTensors::columns(const TensorInfo& tensor, Range columns) {
  if (!file_.dummy && tensor.recipe < 0) return mapped_->columns(tensor, columns);
  QUIRE_RETURN_IF_ERROR(check_column_cut(file_, tensor, columns));
  return make(tensor, {0, static_cast<int>(tensor.shape[0])}, columns);
}

std::vector<float> LocalTensors::vector(const TensorInfo& tensor, Range range) const {
  return file_.dummy ? DummyValues(tensor).vector(range) : mapped_->vector(tensor, range);
}

absl::StatusOr<MatrixPart> LocalTensors::make(const TensorInfo& tensor, Range rows, Range columns) {
  return file_.dummy ? made_up(tensor, rows, columns) : transcoded(tensor, rows, columns);
}

absl::StatusOr<MatrixPart> LocalTensors::stage(const TensorInfo& tensor, int rows,
                                               std::size_t row_stride) {
  const std::size_t bytes = row_stride * static_cast<std::size_t>(rows);
  Staged& staged = staged_.emplace_back();
  staged.bytes.reset(new (std::nothrow) std::byte[bytes]);
  if (staged.bytes == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("there is no memory for the ", bytes, " bytes of the tensor ", tensor.name));
  }
  return MatrixPart{staged.bytes.get(), row_stride, rows};
}

absl::StatusOr<MatrixPart> LocalTensors::made_up(const TensorInfo& tensor, Range rows,
                                                 Range columns) {
  QUIRE_ASSIGN_OR_RETURN(
      MatrixPart part,
      stage(tensor, rows.size(), span_bytes(tensor.format, columns.begin, columns.end)));
  std::byte* out = staged_.back().bytes.get();
  const DummyValues values(tensor);
  parallel_rows(rows, 1, num_threads_, [&](Range mine) {
    for (int row = mine.begin; row < mine.end; ++row) {
      values.fill_row(row, columns,
                      out + static_cast<std::size_t>(row - rows.begin) * part.row_stride);
    }
  });
  if (!has_row_scales(tensor.format)) return part;
  staged_.back().row_scales.assign(static_cast<std::size_t>(rows.size()), values.row_scale());
  part.row_scales = staged_.back().row_scales.data();
  return part;
}

absl::StatusOr<MatrixPart> LocalTensors::transcoded(const TensorInfo& tensor, Range rows,
                                                    Range columns) {
  const Recipe& recipe = file_.recipes[static_cast<std::size_t>(tensor.recipe)];
  const auto view = [&](const StoredTensor& stored) {
    return stored.name.empty() ? StoredView() : StoredView(stored, mapped_->data(stored));
  };
  const RecipeBytes in = {&recipe, view(recipe.values), view(recipe.scales), view(recipe.zeros),
                          view(recipe.order)};
  if (recipe.scheme == Recipe::Scheme::kScaledRows) {
    const auto stride = static_cast<std::size_t>(tensor.shape[1]);
    const MatrixPart part = {
        in.values.data() + static_cast<std::size_t>(rows.begin) * stride + columns.begin, stride,
        rows.size()};
    return scaled(tensor, recipe, rows, part);
  }
  QUIRE_ASSIGN_OR_RETURN(const MatrixPart part,
                         stage(tensor, rows.size(), row_bytes(tensor.format, columns.size())));
  const TranscodeJob job = {rows, columns, staged_.back().bytes.get(), part.row_stride,
                            num_threads_};
  const absl::Status status = recipe.scheme == Recipe::Scheme::kAwq    ? transcode_awq(in, job)
                              : recipe.scheme == Recipe::Scheme::kGptq ? transcode_gptq(in, job)
                                                                       : transcode_packed(in, job);
  mapped_->drop({in.values.data(), recipe.values.bytes, 1});
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat(file_.files[static_cast<std::size_t>(tensor.file)],
                                     ": the tensor ", recipe.values.name, ": ", status.message()));
  }
  return part;
}

// One scale for the whole tensor becomes one for each row.
MatrixPart LocalTensors::scaled(const TensorInfo& tensor, const Recipe& recipe, Range rows,
                                MatrixPart part) {
  const StoredView scales(recipe.scales, mapped_->data(recipe.scales));
  std::int64_t count = 1;
  for (const std::int64_t dim : recipe.scales.shape) count *= dim;
  const bool per_row = count == tensor.shape[0];
  const auto width =
      static_cast<std::size_t>(recipe.scales.shape.empty() ? 1 : recipe.scales.shape.back());
  Staged& staged = staged_.emplace_back();
  for (int n = rows.begin; n < rows.end; ++n) {
    const std::size_t at = per_row ? static_cast<std::size_t>(n) : 0;
    staged.row_scales.push_back(scales.number(at / width, at % width));
  }
  part.row_scales = staged.row_scales.data();
  return part;
}

void LocalTensors::drop(const MatrixPart& part) {
  if (mapped_ != nullptr) mapped_->drop(part);
  const auto is_of = [&](const Staged& staged) {
    return staged.bytes != nullptr ? staged.bytes.get() == part.data
                                   : staged.row_scales.data() == part.row_scales;
  };
  const auto last = std::remove_if(staged_.begin(), staged_.end(), is_of);
  staged_.erase(last, staged_.end());
}

}  // namespace quire
