// quantization_config of a Hugging Face config.json: which method stored the weights, and how. What
// is not run is refused by the name of the field that says so. Which modules are quantized is not
// read from here: the tensors that exist say it (modules_to_not_convert, ignore).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "common/format.h"

namespace quire {

struct HfQuant {
  enum class Method {
    kNone,
    kAwq,     // qweight, qzeros, scales
    kGptq,    // the same names, other packing; g_idx
    kRows,    // weight of 8 bits, weight_scale per row or tensor
    kPacked,  // weight_packed of 4 bits, weight_scale per group
  };
  Method method = Method::kNone;
  std::string name = "none";  // as the file spells it, for messages
  int bits = 0;
  int group_size = 0;        // columns that share a scale; 0: the whole row
  int zero_bias = 0;         // gptq: what is added to a stored zero
  bool needs_order = false;  // gptq: g_idx must be there
  bool integers = false;     // kRows: I8, else F8_E4M3

  // What the matrices become.
  Format format() const;
};

// kNone where the config has no quantization_config. InvalidArgument names what does not run.
absl::StatusOr<HfQuant> read_hf_quant(const std::string& file, const nlohmann::json& config);

}  // namespace quire
