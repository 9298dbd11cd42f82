// config.json and generation_config.json of a Hugging Face llama, in the old style (rope_theta,
// rope_scaling, torch_dtype) and the new one (rope_parameters, dtype).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "common/format.h"
#include "common/model_spec.h"

namespace quire {

// `file` names config.json in errors. Fields are read, not yet checked against each other:
// check_spec() does that.
absl::StatusOr<ModelSpec> read_hf_config(const std::string& file, const nlohmann::json& config);

// The format of the model's plain tensors by torch_dtype or dtype; bf16 where neither is there.
absl::StatusOr<Format> read_hf_dtype(const std::string& file, const nlohmann::json& config);

// Takes bos_token_id and eos_token_id (a number or a list) where `config` has them.
absl::Status read_hf_token_ids(const std::string& file, const nlohmann::json& config,
                               ModelSpec* spec);

}  // namespace quire
