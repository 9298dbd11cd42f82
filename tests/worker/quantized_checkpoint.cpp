#include "tests/worker/quantized_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "absl/strings/match.h"
#include "common/check.h"
#include "kernels/formats/half.h"
#include "kernels/formats/table.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

using Json = nlohmann::json;

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

float rounded_to_half(float x) {
  return to_float(to_half(x));
}
std::vector<std::uint16_t> halves_of(const std::vector<float>& values) {
  std::vector<std::uint16_t> out;
  for (const float value : values) out.push_back(to_half(value).bits);
  return out;
}

// A matrix [n][k] as whole numbers with a scale and a zero for each group of columns.
struct Grouped {
  int rows, columns, group, groups;
  std::vector<int> numbers;   // [n][k], 0 and up
  std::vector<float> scales;  // [n][g]
  std::vector<int> zeros;     // [n][g]
  std::size_t at(int n, int k) const { return static_cast<std::size_t>(n * columns + k); }
  std::size_t part(int n, int k) const { return static_cast<std::size_t>(n * groups + k / group); }
};

// `zero` fixed, or in [low_zero, ...] where it is -1. Replaces the values by what remains of them.
Grouped group_matrix(TinyTensor& tensor, int group_size, int bits, int zero, int low_zero,
                     float (*round_scale)(float)) {
  Grouped out;
  out.rows = static_cast<int>(tensor.shape[0]);
  out.columns = static_cast<int>(tensor.shape[1]);
  out.group = group_size == -1 ? out.columns : group_size;
  out.groups = (out.columns + out.group - 1) / out.group;
  const int most = (1 << bits) - 1;
  for (int n = 0; n < out.rows; ++n) {
    float* row = tensor.values.data() + out.at(n, 0);
    for (int first = 0; first < out.columns; first += out.group) {
      const int end = std::min(out.columns, first + out.group);
      const float low = std::min(0.0f, *std::min_element(row + first, row + end));
      const float high = std::max(0.0f, *std::max_element(row + first, row + end));
      const float reach = std::max(high, -low) / static_cast<float>(most / 2);
      const float scale = round_scale(zero >= 0 ? reach : (high - low) / static_cast<float>(most));
      const int z = zero >= 0 ? zero
                              : std::clamp(static_cast<int>(std::lround(-low / scale)), low_zero,
                                           low_zero + most);
      out.scales.push_back(scale);
      out.zeros.push_back(z);
      for (int k = first; k < end; ++k) {
        const int q = std::clamp(static_cast<int>(std::lround(row[k] / scale)) + z, 0, most);
        out.numbers.push_back(q);
        row[k] = scale * static_cast<float>(q - z);
      }
    }
  }
  return out;
}

std::vector<std::int64_t> shape(int a, int b) {
  return {a, b};
}

// scales [G][N] of F16.
RawTensor grouped_scales(const Grouped& m) {
  std::vector<float> turned;
  for (int g = 0; g < m.groups; ++g) {
    for (int n = 0; n < m.rows; ++n) turned.push_back(m.scales[m.part(n, g * m.group)]);
  }
  return {"F16", shape(m.groups, m.rows), bytes_of(halves_of(turned))};
}

// Words along the rows: [lines][N / per_word], neighbour `order[i]` in the i-th place of a word.
template <typename Number>
RawTensor words_along_rows(const Grouped& m, int lines, int bits, const std::vector<int>& order,
                           const Number& number) {
  const int per_word = 32 / bits;
  std::vector<std::uint32_t> words;
  for (int line = 0; line < lines; ++line) {
    for (int w = 0; w < m.rows / per_word; ++w) {
      std::uint32_t word = 0;
      for (int i = 0; i < per_word; ++i) {
        const int n = w * per_word + order[static_cast<std::size_t>(i)];
        word |= static_cast<std::uint32_t>(number(n, line)) << (bits * i);
      }
      words.push_back(word);
    }
  }
  return {"I32", shape(lines, m.rows / per_word), bytes_of(words)};
}

void add_awq(TinyTensor& tensor, const std::string& module, int group, RawTensors& out) {
  const Grouped m = group_matrix(tensor, group, 4, -1, 0, rounded_to_half);
  const std::vector<int> order = {0, 2, 4, 6, 1, 3, 5, 7};
  out[module + ".qweight"] =
      words_along_rows(m, m.columns, 4, order, [&](int n, int k) { return m.numbers[m.at(n, k)]; });
  out[module + ".qzeros"] = words_along_rows(
      m, m.groups, 4, order, [&](int n, int g) { return m.zeros[m.part(n, g * m.group)]; });
  out[module + ".scales"] = grouped_scales(m);
}

// `bias`: what a stored zero lacks.
void add_gptq(TinyTensor& tensor, const std::string& module, int group, int bits, int bias,
              RawTensors& out) {
  const Grouped m = group_matrix(tensor, group, bits, bits == 8 ? 128 : -1, bias, rounded_to_half);
  const int per_word = 32 / bits;
  std::vector<std::uint32_t> words;
  for (int w = 0; w < m.columns / per_word; ++w) {
    for (int n = 0; n < m.rows; ++n) {
      std::uint32_t word = 0;
      for (int i = 0; i < per_word; ++i) {
        word |= static_cast<std::uint32_t>(m.numbers[m.at(n, w * per_word + i)]) << (bits * i);
      }
      words.push_back(word);
    }
  }
  std::vector<int> order;
  for (int i = 0; i < per_word; ++i) order.push_back(i);
  std::vector<std::int32_t> groups;
  for (int k = 0; k < m.columns; ++k) groups.push_back(k / m.group);
  out[module + ".qweight"] = {"I32", shape(m.columns / per_word, m.rows), bytes_of(words)};
  out[module + ".qzeros"] = words_along_rows(m, m.groups, bits, order, [&](int n, int g) {
    return m.zeros[m.part(n, g * m.group)] - bias;
  });
  out[module + ".scales"] = grouped_scales(m);
  out[module + ".g_idx"] = {"I32", {m.columns}, bytes_of(groups)};
}

float rounded_to_bf16(float x) {
  return to_float(to_bf16(x));
}

void add_packed(TinyTensor& tensor, const std::string& module, int group, RawTensors& out) {
  const Grouped m = group_matrix(tensor, group, 4, 8, 0, rounded_to_bf16);
  std::vector<std::uint32_t> words(m.numbers.size() / 8);
  for (std::size_t i = 0; i < m.numbers.size(); ++i) {
    words[i / 8] |= static_cast<std::uint32_t>(m.numbers[i]) << (4 * (i % 8));
  }
  std::vector<std::uint16_t> scales;
  for (const float scale : m.scales) scales.push_back(to_bf16(scale).bits);
  const std::vector<std::int64_t> whole = {m.rows, m.columns};
  out[module + ".weight_packed"] = {"I32", shape(m.rows, m.columns / 8), bytes_of(words)};
  out[module + ".weight_scale"] = {"BF16", shape(m.rows, m.groups), bytes_of(scales)};
  out[module + ".weight_shape"] = {"I64", {2}, bytes_of(whole)};
}

// One byte for an element, a factor for each row or one for all.
void add_rows(TinyTensor& tensor, const std::string& module, Format format, bool per_row,
              RawTensors& out) {
  const auto rows = static_cast<std::size_t>(tensor.shape[0]);
  const auto columns = static_cast<std::size_t>(tensor.shape[1]);
  const float largest = format == Format::kI8 ? 127.0f : 448.0f;
  const auto scale_of = [&](std::size_t begin, std::size_t end) {
    float most = 0.0f;
    for (std::size_t i = begin; i < end; ++i) most = std::max(most, std::fabs(tensor.values[i]));
    return rounded_to_bf16(most / largest);
  };
  std::string bytes(rows * columns, '\0');
  std::vector<float> scales;
  const float common = scale_of(0, rows * columns);
  for (std::size_t n = 0; n < rows; ++n) {
    const float scale = per_row ? scale_of(n * columns, (n + 1) * columns) : common;
    scales.push_back(scale);
    for (std::size_t i = n * columns; i < (n + 1) * columns; ++i) {
      auto* code = reinterpret_cast<std::byte*>(bytes.data() + i);
      const float wanted = tensor.values[i] / scale;
      formats::encode_row(format, &wanted, 1, code);
      formats::decode_row(format, code, 1, &tensor.values[i]);
      tensor.values[i] *= scale;
    }
  }
  out[module + ".weight"] = {format == Format::kI8 ? "I8" : "F8_E4M3", tensor.shape, bytes};
  if (per_row) {
    std::vector<std::uint16_t> stored;
    for (const float scale : scales) stored.push_back(to_bf16(scale).bits);
    out[module + ".weight_scale"] = {"BF16", {tensor.shape[0], 1}, bytes_of(stored)};
  } else {
    out[module + ".weight_scale"] = {"F32", {}, bytes_of(std::vector<float>{common})};
    out[module + ".input_scale"] = {"F32", {}, bytes_of(std::vector<float>{1.0f})};
  }
}

void quantize(TinyTensor& tensor, const QuantOptions& options, RawTensors& out) {
  const std::string module = tensor.name.substr(0, tensor.name.size() - 7);  // ".weight"
  switch (options.scheme) {
    case QuantScheme::kAwq:
      return add_awq(tensor, module, options.group_size, out);
    case QuantScheme::kGptq:
      return add_gptq(tensor, module, options.group_size, 4, 1, out);
    case QuantScheme::kGptqV2:
      return add_gptq(tensor, module, options.group_size, 4, 0, out);
    case QuantScheme::kGptq8:
      return add_gptq(tensor, module, options.group_size, 8, 1, out);
    case QuantScheme::kFp8Tensor:
      return add_rows(tensor, module, Format::kF8E4M3, false, out);
    case QuantScheme::kFp8Channel:
      return add_rows(tensor, module, Format::kF8E4M3, true, out);
    case QuantScheme::kInt8Channel:
      return add_rows(tensor, module, Format::kI8, true, out);
    case QuantScheme::kPacked4:
      return add_packed(tensor, module, options.group_size, out);
  }
}

Json compressed(const char* format, const Json& weights) {
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"ignore", {"lm_head"}},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}}, {"weights", weights}, {"input_activations", nullptr}}}}}};
}

Json quantization_of(const QuantOptions& options) {
  const Json channel = {{"num_bits", 8}, {"strategy", "channel"}, {"symmetric", true}};
  Json weights = channel;
  switch (options.scheme) {
    case QuantScheme::kAwq:
      return {{"quant_method", "awq"},
              {"bits", 4},
              {"version", "gemm"},
              {"zero_point", true},
              {"group_size", options.group_size},
              {"modules_to_not_convert", nullptr}};
    case QuantScheme::kGptq:
    case QuantScheme::kGptqV2:
    case QuantScheme::kGptq8:
      return {{"quant_method", "gptq"},
              {"bits", options.scheme == QuantScheme::kGptq8 ? 8 : 4},
              {"group_size", options.group_size},
              {"desc_act", false},
              {"checkpoint_format", options.scheme == QuantScheme::kGptqV2 ? "gptq_v2" : "gptq"}};
    case QuantScheme::kFp8Tensor:
      return {{"quant_method", "fp8"}, {"activation_scheme", "static"}};
    case QuantScheme::kFp8Channel:
      weights["type"] = "float";
      return compressed("float-quantized", weights);
    case QuantScheme::kInt8Channel:
      weights["type"] = "int";
      return compressed("int-quantized", weights);
    case QuantScheme::kPacked4:
      return compressed(
          "pack-quantized",
          {{"num_bits", 4},
           {"type", "int"},
           {"strategy", options.group_size == -1 ? "channel" : "group"},
           {"group_size", options.group_size == -1 ? Json() : Json(options.group_size)},
           {"symmetric", true}});
  }
  return {};
}

void write_safetensors(const std::filesystem::path& file, const RawTensors& tensors) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  std::string text = header.dump();
  while (text.size() % 8 != 0) text.push_back(' ');
  const std::uint64_t size = text.size();
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&size), sizeof size);
  out << text << data;
  QUIRE_CHECK(out.good());
}

bool is_quantized(const TinyTensor& tensor) {
  return tensor.shape.size() == 2 && absl::StrContains(tensor.name, ".layers.");
}

}  // namespace

void write_quantized_hf(const std::filesystem::path& quantized, const std::filesystem::path& plain,
                        const QuantOptions& options) {
  const std::filesystem::path base = plain.empty() ? quantized : plain;
  RawTensors raw;
  TinyOptions tiny;
  tiny.tied = false;
  tiny.edit = [&](std::vector<TinyTensor>& tensors) {
    for (TinyTensor& tensor : tensors) {
      if (is_quantized(tensor)) {
        quantize(tensor, options, raw);
      } else {
        raw[tensor.name] = {"F32", tensor.shape, bytes_of(tensor.values)};
      }
    }
  };
  write_tiny_hf(base, tiny);
  Json config;
  std::ifstream(base / "config.json") >> config;
  config["quantization_config"] = quantization_of(options);
  if (options.edit) options.edit(config, raw);
  std::filesystem::create_directories(quantized);
  std::ofstream(quantized / "config.json") << config.dump();
  write_safetensors(quantized / "model.safetensors", raw);
}

}  // namespace quire::test
