// Every stored tensor is either the values of a recipe, a part of one (scales, zeros, order), a
// plain tensor, or something that has no place here and is refused where its type does not run.
#include "common/model_file/hf_tensors.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/model_file/file_error.h"
#include "common/model_file/tensor_check.h"
#include "common/status.h"

namespace quire {
namespace {

using Method = HfQuant::Method;
using Shape = std::vector<std::int64_t>;

class Resolver {
 public:
  Resolver(const HfQuant& quant, const std::vector<StoredTensor>& stored, ModelFile* model)
      : quant_(quant), stored_(stored), model_(*model) {
    for (const StoredTensor& tensor : stored) by_name_.emplace(tensor.name, &tensor);
  }

  absl::Status resolve() {
    for (const StoredTensor& tensor : stored_) QUIRE_RETURN_IF_ERROR(place(tensor));
    absl::flat_hash_set<absl::string_view> names;
    for (const TensorInfo& tensor : model_.tensors) {
      if (!names.insert(tensor.name).second) {
        return corrupt(model_.path, "tensor '", tensor.name, "' is there in two forms.");
      }
    }
    return absl::OkStatus();
  }

 private:
  const std::string& file_of(const StoredTensor& tensor) const {
    return model_.files[static_cast<std::size_t>(tensor.file)];
  }

  absl::Status place(const StoredTensor& tensor) {
    absl::string_view module = tensor.name;
    const bool integers = tensor.dtype == Dtype::kI32;
    switch (quant_.method) {
      case Method::kNone:
        break;
      case Method::kAwq:
        if (absl::ConsumeSuffix(&module, ".qweight")) return awq(module, tensor);
        break;
      case Method::kGptq:
        if (absl::ConsumeSuffix(&module, ".qweight")) return gptq(module, tensor);
        break;
      case Method::kPacked:
        if (absl::ConsumeSuffix(&module, ".weight_packed")) return packed(module, tensor);
        break;
      case Method::kRows:
        if (element_bytes(tensor.dtype) == 1 && absl::ConsumeSuffix(&module, ".weight")) {
          return scaled_rows(module, tensor);
        }
        break;
    }
    if (is_part(tensor.name)) return absl::OkStatus();
    if (integers || element_bytes(tensor.dtype) == 1 || tensor.dtype == Dtype::kI64) {
      return unsupported(file_of(tensor), "tensor '", tensor.name, "' is stored as ",
                         name_of(tensor.dtype), ", which nothing in config.json explains ",
                         "(quantization method: ", quant_.name.substr(0, 40),
                         "); the formats that run by themselves are F32, F16 and BF16.");
    }
    return plain(tensor);
  }

  // Taken in by the recipe of its module, or of no use here (scales of activations and of K and V).
  bool is_part(absl::string_view name) const {
    if (quant_.method == Method::kNone) return false;
    for (const char* end :
         {".qzeros", ".scales", ".g_idx", ".weight_scale", ".weight_scale_inv", ".weight_shape",
          ".weight_zero_point", ".weight_g_idx", ".input_scale", ".input_zero_point",
          ".output_scale", ".k_scale", ".v_scale", ".q_scale"}) {
      if (absl::EndsWith(name, end)) return true;
    }
    return false;
  }

  absl::Status plain(const StoredTensor& tensor) {
    TensorInfo info;
    info.name = tensor.name;
    info.format = tensor.dtype == Dtype::kF32   ? Format::kF32
                  : tensor.dtype == Dtype::kF16 ? Format::kF16
                                                : Format::kBf16;
    info.shape = tensor.shape;
    info.file = tensor.file;
    info.offset = tensor.offset;
    info.bytes = tensor.bytes;
    model_.tensors.push_back(std::move(info));
    return absl::OkStatus();
  }

  const StoredTensor* find(absl::string_view module, const char* end) const {
    const auto found = by_name_.find(absl::StrCat(module, end));
    return found == by_name_.end() ? nullptr : found->second;
  }

  // The companion of a quantized matrix, of the shape and one of the types that it must have.
  absl::StatusOr<StoredTensor> part(absl::string_view module, const char* end, const Shape& shape,
                                    std::initializer_list<Dtype> dtypes) const {
    const StoredTensor* tensor = find(module, end);
    if (tensor == nullptr) {
      return corrupt(model_.path, "tensor '", module, end, "' is missing beside the quantized ",
                     "weights of its module.");
    }
    if (tensor->shape != shape) return misshapen(*tensor, shape);
    if (std::find(dtypes.begin(), dtypes.end(), tensor->dtype) == dtypes.end()) {
      return unsupported(file_of(*tensor), "tensor '", tensor->name, "' is stored as ",
                         name_of(tensor->dtype), ", which does not run with the method ",
                         quant_.name.substr(0, 40), ".");
    }
    return *tensor;
  }

  absl::Status misshapen(const StoredTensor& tensor, const Shape& shape) const {
    return corrupt(file_of(tensor), "tensor '", tensor.name, "' has the shape [",
                   absl::StrJoin(tensor.shape, ", "), "], but the weights of its module and ",
                   "config.json ask for [", absl::StrJoin(shape, ", "), "].");
  }

  absl::Status check_values(const StoredTensor& values, Dtype dtype) const {
    if (values.dtype != dtype || values.shape.size() != 2) {
      return corrupt(file_of(values), "tensor '", values.name, "' must be a matrix of ",
                     name_of(dtype), ".");
    }
    return absl::OkStatus();
  }

  std::int64_t groups(std::int64_t columns) const {
    return quant_.group_size == 0 ? 1 : (columns + quant_.group_size - 1) / quant_.group_size;
  }

  absl::Status awq(absl::string_view module, const StoredTensor& values) {
    QUIRE_RETURN_IF_ERROR(check_values(values, Dtype::kI32));
    const std::int64_t columns = values.shape[0], words = values.shape[1];
    Recipe recipe = begin(Recipe::Scheme::kAwq, values, columns);
    QUIRE_ASSIGN_OR_RETURN(recipe.zeros,
                           part(module, ".qzeros", {groups(columns), words}, {Dtype::kI32}));
    QUIRE_ASSIGN_OR_RETURN(recipe.scales, part(module, ".scales", {groups(columns), words * 8},
                                               {Dtype::kF16, Dtype::kBf16}));
    return add(module, {words * 8, columns}, std::move(recipe));
  }

  absl::Status gptq(absl::string_view module, const StoredTensor& values) {
    QUIRE_RETURN_IF_ERROR(check_values(values, Dtype::kI32));
    const std::int64_t per_word = 32 / quant_.bits;
    const std::int64_t columns = values.shape[0] * per_word, rows = values.shape[1];
    if (rows % per_word != 0) {
      return corrupt(file_of(values), "tensor '", values.name, "' has ", rows,
                     " outputs, which words of ", per_word, " zeros do not divide.");
    }
    Recipe recipe = begin(Recipe::Scheme::kGptq, values, columns);
    QUIRE_ASSIGN_OR_RETURN(
        recipe.zeros, part(module, ".qzeros", {groups(columns), rows / per_word}, {Dtype::kI32}));
    QUIRE_ASSIGN_OR_RETURN(recipe.scales, part(module, ".scales", {groups(columns), rows},
                                               {Dtype::kF16, Dtype::kBf16}));
    if (find(module, ".g_idx") != nullptr || quant_.needs_order) {
      QUIRE_ASSIGN_OR_RETURN(recipe.order, part(module, ".g_idx", {columns}, {Dtype::kI32}));
    }
    return add(module, {rows, columns}, std::move(recipe));
  }

  absl::Status packed(absl::string_view module, const StoredTensor& values) {
    QUIRE_RETURN_IF_ERROR(check_values(values, Dtype::kI32));
    for (const char* end : {".weight_g_idx", ".weight_zero_point"}) {
      if (const StoredTensor* other = find(module, end)) {
        return unsupported(file_of(*other), "tensor '", other->name,
                           "': packed weights in activation order or with zero points do not run.");
      }
    }
    const std::int64_t rows = values.shape[0], columns = values.shape[1] * 8;
    Recipe recipe = begin(Recipe::Scheme::kPackedRows, values, columns);
    QUIRE_ASSIGN_OR_RETURN(recipe.scales, part(module, ".weight_scale", {rows, groups(columns)},
                                               {Dtype::kF16, Dtype::kBf16}));
    return add(module, {rows, columns}, std::move(recipe));
  }

  absl::Status scaled_rows(absl::string_view module, const StoredTensor& values) {
    QUIRE_RETURN_IF_ERROR(check_values(values, quant_.integers ? Dtype::kI8 : Dtype::kF8E4M3));
    if (const StoredTensor* other = find(module, ".weight_scale_inv")) {
      return unsupported(file_of(*other), "tensor '", other->name,
                         "': weights with a scale for each block do not run; those with a scale ",
                         "per tensor or row do.");
    }
    if (const StoredTensor* other = find(module, ".weight_zero_point")) {
      return unsupported(
          file_of(*other), "tensor '", other->name,
          "': weights with zero points do not run in this format; symmetric ones do.");
    }
    const std::int64_t rows = values.shape[0];
    const StoredTensor* found = find(module, ".weight_scale");
    Shape shape = {rows, 1};
    if (found != nullptr) {
      for (const Shape& allowed : {Shape{}, Shape{1}, Shape{1, 1}, Shape{rows}}) {
        if (found->shape == allowed) shape = allowed;
      }
    }
    Recipe recipe = begin(Recipe::Scheme::kScaledRows, values, values.shape[1]);
    QUIRE_ASSIGN_OR_RETURN(recipe.scales, part(module, ".weight_scale", shape,
                                               {Dtype::kF32, Dtype::kF16, Dtype::kBf16}));
    return add(module, values.shape, std::move(recipe));
  }

  Recipe begin(Recipe::Scheme scheme, const StoredTensor& values, std::int64_t columns) const {
    Recipe recipe;
    recipe.scheme = scheme;
    recipe.bits = quant_.bits;
    recipe.group_size = quant_.group_size == 0
                            ? static_cast<int>(std::min<std::int64_t>(columns, 1 << 30))
                            : quant_.group_size;
    recipe.zero_bias = quant_.zero_bias;
    recipe.values = values;
    return recipe;
  }

  absl::Status add(absl::string_view module, Shape shape, Recipe recipe) {
    TensorInfo info;
    info.name = absl::StrCat(module, ".weight");
    info.format = quant_.format();
    info.shape = std::move(shape);
    info.file = recipe.values.file;
    info.offset = recipe.values.offset;
    QUIRE_ASSIGN_OR_RETURN(info.bytes, tensor_bytes(file_of(recipe.values), info));
    if (has_row_scales(info.format)) {
      info.bytes += static_cast<std::uint64_t>(info.shape[0]) * sizeof(float);
    }
    info.recipe = static_cast<int>(model_.recipes.size());
    model_.recipes.push_back(std::move(recipe));
    model_.tensors.push_back(std::move(info));
    return absl::OkStatus();
  }

  const HfQuant& quant_;
  const std::vector<StoredTensor>& stored_;
  ModelFile& model_;
  absl::flat_hash_map<std::string, const StoredTensor*> by_name_;
};

}  // namespace

absl::Status resolve_tensors(const HfQuant& quant, const std::vector<StoredTensor>& stored,
                             ModelFile* model) {
  return Resolver(quant, stored, model).resolve();
}

}  // namespace quire
