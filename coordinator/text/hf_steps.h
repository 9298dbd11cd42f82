// Reads the configured steps of a tokenizer.json: normalizer, pre-tokenizer, decoder,
// post-processor. What is not known is refused by the name the file gives it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/text/normalizer.h"
#include "coordinator/text/pretokenizer.h"
#include "coordinator/text/vocabulary.h"
#include "nlohmann/json_fwd.hpp"

namespace quire::hf {

absl::StatusOr<Normalizer> read_normalizer(const nlohmann::json& json);

struct PreTokenizerPlan {
  PreTokenizer pre_tokenizer;
  bool byte_level = false;
};
absl::StatusOr<PreTokenizerPlan> read_pre_tokenizer(const nlohmann::json& json);

// How a token's name becomes the bytes it stands for.
struct DecoderPlan {
  bool byte_level = false;     // GPT-2's alphabet
  bool byte_fallback = false;  // <0xXX> is a byte
  std::vector<std::pair<std::string, std::string>> replacements;
  bool strips_leading_space = false;
};
absl::StatusOr<DecoderPlan> read_decoder(const nlohmann::json& json);

// The special tokens around a single text.
struct TemplatePlan {
  bool present = false;
  std::vector<std::int32_t> prefix;
  std::vector<std::int32_t> suffix;
};
absl::StatusOr<TemplatePlan> read_post_processor(const nlohmann::json& json);

}  // namespace quire::hf
