// From the tensors that safetensors files hold to those that the model is made of: plain ones as
// they lie, quantized ones as one matrix with a recipe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/model_file/hf_quant.h"
#include "common/model_file/model_file.h"

namespace quire {

// Fills model->tensors and model->recipes; `model->files` are those that `stored` counts in. A
// quantized matrix is named "<module>.weight" and has the shape [N][K]. Errors name the file, the
// tensor and what its shape should be.
absl::Status resolve_tensors(const HfQuant& quant, const std::vector<StoredTensor>& stored,
                             ModelFile* model);

}  // namespace quire
