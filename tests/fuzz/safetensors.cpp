// A safetensors file of a stranger: its header, where it says its tensors lie, and what quantized
// matrices each method makes of them.
#include "common/model_file/safetensors.h"

#include "common/model_file/hf_tensors.h"
#include "tests/fuzz/fuzz.h"

namespace quire::fuzz {
namespace {

void check_place(const StoredTensor& tensor, std::size_t size) {
  QUIRE_CHECK_LE(tensor.offset, size);
  QUIRE_CHECK_LE(tensor.bytes, size - tensor.offset);
}

// What the loader relies on: parts inside the file, with an entry for every row and group.
void check_recipe(const TensorInfo& tensor, const Recipe& recipe, std::size_t size) {
  const auto rows = static_cast<std::uint64_t>(tensor.shape[0]);
  const auto columns = static_cast<std::uint64_t>(tensor.shape[1]);
  QUIRE_CHECK_GT(recipe.group_size, 0);
  const auto group = static_cast<std::uint64_t>(recipe.group_size);
  const std::uint64_t groups = (columns + group - 1) / group;
  const auto bits = static_cast<std::uint64_t>(recipe.bits);
  for (const StoredTensor* part : {&recipe.values, &recipe.scales, &recipe.zeros, &recipe.order}) {
    check_place(*part, size);
  }
  QUIRE_CHECK_GE(recipe.values.bytes * 8, rows * columns * bits);
  if (recipe.scheme != Recipe::Scheme::kScaledRows) {
    QUIRE_CHECK_EQ(columns % 32, 0u);
    QUIRE_CHECK_EQ(recipe.scales.bytes, rows * groups * 2);
  }
  if (!recipe.zeros.name.empty()) QUIRE_CHECK_GE(recipe.zeros.bytes * 8, rows * groups * bits);
  if (recipe.has_order()) QUIRE_CHECK_EQ(recipe.order.bytes, columns * 4);
}

void resolve(const HfQuant& quant, const std::vector<StoredTensor>& stored, std::size_t size) {
  ModelFile model;
  model.path = "folder";
  model.files = {"model.safetensors"};
  if (!resolve_tensors(quant, stored, &model).ok()) return;
  for (const TensorInfo& tensor : model.tensors) {
    QUIRE_CHECK_LE(tensor.offset, size);
    if (tensor.recipe >= 0) {
      check_recipe(tensor, model.recipes[static_cast<std::size_t>(tensor.recipe)], size);
    } else {
      QUIRE_CHECK_LE(tensor.bytes, size - tensor.offset);
    }
  }
}

}  // namespace
}  // namespace quire::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace quire;
  using Method = HfQuant::Method;
  const auto file = read_safetensors("model.safetensors", fuzz::view(data, size));
  if (!file.ok()) return 0;
  std::uint64_t end = 8;
  for (const StoredTensor& tensor : file->tensors) {
    QUIRE_CHECK_GE(tensor.offset, end);
    QUIRE_CHECK_LE(tensor.bytes, size - tensor.offset);
    end = tensor.offset + tensor.bytes;
  }
  for (const Method method :
       {Method::kNone, Method::kAwq, Method::kGptq, Method::kRows, Method::kPacked}) {
    for (const bool other : {false, true}) {
      HfQuant quant;
      quant.method = method;
      quant.bits = method == Method::kRows || (method == Method::kGptq && other) ? 8 : 4;
      quant.group_size = other ? 32 : 0;
      quant.integers = other;
      quant.needs_order = other;
      fuzz::resolve(quant, file->tensors, size);
    }
  }
  return 0;
}
