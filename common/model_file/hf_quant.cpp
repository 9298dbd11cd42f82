#include "common/model_file/hf_quant.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "common/model_file/file_error.h"
#include "common/model_file/json_file.h"
#include "common/status.h"

namespace quire {
namespace {

using Json = nlohmann::json;

constexpr int kMaxGroup = 1 << 20;

// -1 and null: one scale for a whole row.
absl::Status check_group(const std::string& file, int group, HfQuant* quant) {
  quant->group_size = group == -1 ? 0 : group;
  if (quant->group_size == 0 && group == -1) return absl::OkStatus();
  if (group >= 32 && group % 32 == 0 && group <= kMaxGroup) return absl::OkStatus();
  return unsupported(file, "quantization_config.group_size is ", group,
                     "; multiples of 32 run, and -1 (one scale for each row).");
}

absl::Status read_awq(const std::string& file, JsonFields& fields, HfQuant* quant) {
  quant->method = HfQuant::Method::kAwq;
  quant->bits = fields.integer("bits", fields.integer("w_bit", 4));
  const int group = fields.integer("group_size", fields.integer("q_group_size", 128));
  const std::string version = absl::AsciiStrToLower(fields.text("version", "gemm"));
  const bool zero_point = fields.boolean("zero_point", true);
  QUIRE_RETURN_IF_ERROR(fields.status());
  if (quant->bits != 4) {
    return unsupported(file, "awq weights of ", quant->bits, " bits; only 4 bits run.");
  }
  if (version != "gemm") {
    return unsupported(file, "awq weights are packed for '", version.substr(0, 40),
                       "'; only the version gemm runs.");
  }
  if (!zero_point) {
    return unsupported(file, "awq weights without zero points (zero_point is false) do not run.");
  }
  return check_group(file, group, quant);
}

absl::Status read_gptq(const std::string& file, JsonFields& fields, HfQuant* quant) {
  quant->method = HfQuant::Method::kGptq;
  quant->bits = fields.integer("bits");
  const int group = fields.integer("group_size", 128);
  const std::string layout = fields.text("checkpoint_format", "gptq");
  quant->needs_order = fields.boolean("desc_act", false) && group != -1;
  QUIRE_RETURN_IF_ERROR(fields.status());
  if (quant->bits != 4 && quant->bits != 8) {
    return unsupported(file, "gptq weights of ", quant->bits, " bits; 4 and 8 bits run.");
  }
  if (layout != "gptq" && layout != "gptq_v2") {
    return unsupported(file, "quantization_config.checkpoint_format is '", layout.substr(0, 40),
                       "'; gptq and gptq_v2 run.");
  }
  quant->zero_bias = layout == "gptq" ? 1 : 0;
  return check_group(file, group, quant);
}

absl::Status read_fp8(const std::string& file, JsonFields& fields, HfQuant* quant) {
  quant->method = HfQuant::Method::kRows;
  quant->bits = 8;
  if (fields.has("weight_block_size")) {
    return unsupported(file,
                       "fp8 weights with a scale for each block (weight_block_size) do not run; "
                       "those with a scale per tensor or row do.");
  }
  const std::string layout = absl::AsciiStrToLower(fields.text("fmt", "e4m3"));
  QUIRE_RETURN_IF_ERROR(fields.status());
  if (!absl::StartsWith(layout, "e4m3") && !absl::StartsWith(layout, "float8_e4m3")) {
    return unsupported(file, "fp8 weights of the kind '", layout.substr(0, 40),
                       "' do not run; e4m3 does.");
  }
  return absl::OkStatus();
}

// One entry of compressed-tensors' config_groups.
absl::Status read_scheme(const std::string& file, const Json& group, HfQuant* quant) {
  const auto found = group.is_object() ? group.find("weights") : group.end();
  if (!group.is_object() || found == group.end() || !found->is_object()) {
    return unsupported(file, "quantization_config.config_groups has a group without 'weights'.");
  }
  JsonFields weights(file, *found, "quantization_config.config_groups.weights.");
  const int bits = weights.integer("num_bits");
  const std::string type = weights.text("type", "int");
  const std::string strategy = weights.text("strategy", "tensor");
  const int group_size = weights.integer("group_size", -1);
  const bool symmetric = weights.boolean("symmetric", true);
  QUIRE_RETURN_IF_ERROR(weights.status());
  if (!symmetric) {
    return unsupported(file,
                       "compressed-tensors weights with zero points (symmetric is false) do "
                       "not run; symmetric ones do.");
  }
  if (weights.has("actorder") && found->at("actorder") != "static" &&
      found->at("actorder") != "weight") {
    return unsupported(file,
                       "compressed-tensors weights in activation order (actorder) do not run.");
  }
  quant->bits = bits;
  quant->integers = type == "int";
  if (quant->method == HfQuant::Method::kPacked) {
    if (bits != 4 || type != "int" || (strategy != "group" && strategy != "channel")) {
      return unsupported(file, "pack-quantized weights of ", bits, " bits, type '",
                         type.substr(0, 40), "' and strategy '", strategy.substr(0, 40),
                         "'; 4-bit integers per group or channel run.");
    }
    return check_group(file, strategy == "group" ? group_size : -1, quant);
  }
  if (bits != 8 || (type != "int" && type != "float") ||
      (strategy != "tensor" && strategy != "channel")) {
    return unsupported(file, "compressed-tensors weights of ", bits, " bits, type '",
                       type.substr(0, 40), "' and strategy '", strategy.substr(0, 40),
                       "'; 8-bit integers and floats per tensor or channel run.");
  }
  return absl::OkStatus();
}

absl::Status read_compressed(const std::string& file, JsonFields& fields, HfQuant* quant) {
  const std::string layout = fields.text("format", "");
  const Json groups = fields.object("config_groups");
  const Json sparsity = fields.object("sparsity_config");
  QUIRE_RETURN_IF_ERROR(fields.status());
  if (layout == "pack-quantized") {
    quant->method = HfQuant::Method::kPacked;
  } else if (layout == "int-quantized" || layout == "float-quantized") {
    quant->method = HfQuant::Method::kRows;
  } else {
    return unsupported(file, "compressed-tensors of the format '", layout.substr(0, 40),
                       "'; int-quantized, float-quantized and pack-quantized run.");
  }
  if (const auto how = sparsity.find("format");
      how != sparsity.end() && *how != "dense" && !how->is_null()) {
    return unsupported(file, "sparse compressed-tensors (sparsity_config) do not run.");
  }
  if (groups.size() != 1) {
    return unsupported(file, "compressed-tensors with ", groups.size(),
                       " config_groups; exactly one runs.");
  }
  return read_scheme(file, *groups.begin(), quant);
}

}  // namespace

Format HfQuant::format() const {
  switch (method) {
    case Method::kNone:
      break;
    case Method::kAwq:
    case Method::kPacked:
      return Format::kQ4_Z;
    case Method::kGptq:
      return bits == 8 ? Format::kQ8_0 : Format::kQ4_Z;
    case Method::kRows:
      return integers ? Format::kI8 : Format::kF8E4M3;
  }
  return Format::kBf16;
}

absl::StatusOr<HfQuant> read_hf_quant(const std::string& file, const Json& config) {
  HfQuant quant;
  JsonFields outer(file, config);
  const bool present = outer.has("quantization_config");
  const Json section = outer.object("quantization_config");
  QUIRE_RETURN_IF_ERROR(outer.status());
  if (!present) return quant;
  JsonFields fields(file, section, "quantization_config.");
  quant.name = fields.text("quant_method", "");
  QUIRE_RETURN_IF_ERROR(fields.status());
  const std::string& method = quant.name;
  if (method == "awq") {
    QUIRE_RETURN_IF_ERROR(read_awq(file, fields, &quant));
  } else if (method == "gptq") {
    QUIRE_RETURN_IF_ERROR(read_gptq(file, fields, &quant));
  } else if (method == "fp8") {
    QUIRE_RETURN_IF_ERROR(read_fp8(file, fields, &quant));
  } else if (method == "compressed-tensors") {
    QUIRE_RETURN_IF_ERROR(read_compressed(file, fields, &quant));
  } else {
    return unsupported(file, "the weights are quantized by the method '", method.substr(0, 40),
                       "'; awq, gptq, fp8 and compressed-tensors run.");
  }
  return quant;
}

}  // namespace quire
