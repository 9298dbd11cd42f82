// Quantized Hugging Face folders of the tiny model, written by each scheme's own rules and not by
// the loader's code, and beside each the same numbers as plain fp32: loaded, both must give the
// same answers.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace quire::test {

enum class QuantScheme {
  kAwq,
  kGptq,
  kGptqV2,
  kGptq8,
  kFp8Tensor,
  kFp8Channel,
  kInt8Channel,
  kPacked4
};

struct RawTensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;
};
using RawTensors = std::map<std::string, RawTensor>;

struct QuantOptions {
  QuantScheme scheme = QuantScheme::kAwq;
  int group_size = 32;  // -1: one for each row
  // Last look at the quantized folder before it is written: to break it on purpose.
  std::function<void(nlohmann::json& config, RawTensors& tensors)> edit;
};

// Matrices of the layers are quantized, all else is fp32. `plain` may be empty.
void write_quantized_hf(const std::filesystem::path& quantized, const std::filesystem::path& plain,
                        const QuantOptions& options);

}  // namespace quire::test
