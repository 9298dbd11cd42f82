// fuzz_seeds FOLDER: writes the seeds that are no text (FOLDER/gguf/..., safetensors, wire): small
// whole files and messages for the fuzzers to spoil.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/wire.h"
#include "fleet.pb.h"

namespace {

namespace fs = std::filesystem;
using quire::wire::encode;

template <typename T>
std::string raw(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}
std::string sized(const std::string& text) {
  return raw<std::uint64_t>(text.size()) + text;
}
std::string u32(std::uint32_t value) {
  return raw<std::uint32_t>(4) + raw(value);
}
std::string f32(float value) {
  return raw<std::uint32_t>(6) + raw(value);
}
std::string text(const std::string& value) {
  return raw<std::uint32_t>(8) + sized(value);
}
std::string texts(const std::vector<std::string>& values) {
  std::string out =
      raw<std::uint32_t>(9) + raw<std::uint32_t>(8) + raw<std::uint64_t>(values.size());
  for (const std::string& value : values) out += sized(value);
  return out;
}
template <typename T>
std::string numbers(std::uint32_t type, const std::vector<T>& values) {
  std::string out = raw<std::uint32_t>(9) + raw(type) + raw<std::uint64_t>(values.size());
  for (const T value : values) out += raw(value);
  return out;
}

using Keys = std::vector<std::pair<std::string, std::string>>;
struct Tensor {
  std::string name;
  std::vector<std::uint64_t> dims;  // innermost first
};

// One layer, E = 32, F = 32, 2 query heads over 1 KV head, V = 8; every weight F32 and zero.
std::string gguf(const Keys& more) {
  Keys keys = {{"general.architecture", text("llama")},
               {"llama.block_count", u32(1)},
               {"llama.context_length", u32(64)},
               {"llama.embedding_length", u32(32)},
               {"llama.feed_forward_length", u32(32)},
               {"llama.attention.head_count", u32(2)},
               {"llama.attention.head_count_kv", u32(1)},
               {"llama.attention.layer_norm_rms_epsilon", f32(1e-5f)}};
  keys.insert(keys.end(), more.begin(), more.end());
  const std::vector<Tensor> tensors = {
      {"token_embd.weight", {32, 8}},         {"output_norm.weight", {32}},
      {"blk.0.attn_norm.weight", {32}},       {"blk.0.attn_q.weight", {32, 32}},
      {"blk.0.attn_k.weight", {32, 16}},      {"blk.0.attn_v.weight", {32, 16}},
      {"blk.0.attn_output.weight", {32, 32}}, {"blk.0.ffn_norm.weight", {32}},
      {"blk.0.ffn_gate.weight", {32, 32}},    {"blk.0.ffn_up.weight", {32, 32}},
      {"blk.0.ffn_down.weight", {32, 32}}};
  std::string out = absl::StrCat("GGUF", raw<std::uint32_t>(3), raw<std::uint64_t>(tensors.size()),
                                 raw<std::uint64_t>(keys.size()));
  for (const auto& [key, value] : keys) absl::StrAppend(&out, sized(key), value);
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    absl::StrAppend(&out, sized(tensor.name), raw(static_cast<std::uint32_t>(tensor.dims.size())));
    std::uint64_t bytes = 4;
    for (const std::uint64_t dim : tensor.dims) {
      out += raw(dim);
      bytes *= dim;
    }
    absl::StrAppend(&out, raw<std::uint32_t>(0), raw(offset));
    offset += bytes;
  }
  out.resize((out.size() + 31) / 32 * 32 + offset);
  return out;
}

Keys bpe() {
  return {{"tokenizer.ggml.model", text("gpt2")},
          {"tokenizer.ggml.pre", text("smollm")},
          {"tokenizer.ggml.tokens", texts({"<s>", "</s>", "H", "e", "l", "o", "He", "ll"})},
          {"tokenizer.ggml.merges", texts({"H e", "l l"})},
          {"tokenizer.ggml.token_type", numbers<std::int32_t>(5, {3, 3, 1, 1, 1, 1, 1, 1})},
          {"tokenizer.ggml.bos_token_id", u32(0)},
          {"tokenizer.ggml.eos_token_id", u32(1)},
          {"tokenizer.chat_template", text("{% for m in messages %}{{ m.content }}{% endfor %}")}};
}

Keys spm() {
  return {{"tokenizer.ggml.model", text("llama")},
          {"tokenizer.ggml.tokens",
           texts({"<unk>", "<s>", "</s>", "<0x48>", "\xE2\x96\x81", "l", "o", "lo"})},
          {"tokenizer.ggml.scores", numbers<float>(6, {0, 0, 0, 0, -1, -2, -3, -4})},
          {"tokenizer.ggml.token_type", numbers<std::int32_t>(5, {2, 3, 3, 6, 1, 1, 1, 1})}};
}

Keys yarn() {
  return {{"llama.rope.dimension_count", u32(16)},
          {"llama.rope.freq_base", f32(10000)},
          {"llama.rope.scaling.type", text("yarn")},
          {"llama.rope.scaling.factor", f32(4)},
          {"llama.rope.scaling.original_context_length", u32(32)}};
}

std::string safetensors() {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
      R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}})";
  return sized(header) + std::string(24, '\0');
}

// One matrix of 8 rows and 32 columns, as `parts` name and shape it: {name, dtype, shape, bytes}.
struct Part {
  const char* name;
  const char* dtype;
  const char* shape;
  int bytes;
};
std::string quantized(const std::vector<Part>& parts) {
  std::string header;
  int at = 0;
  for (const Part& part : parts) {
    absl::StrAppend(&header, header.empty() ? "{" : ",", "\"m.", part.name, "\":{\"dtype\":\"",
                    part.dtype, "\",\"shape\":", part.shape, ",\"data_offsets\":[", at, ",",
                    at + part.bytes, "]}");
    at += part.bytes;
  }
  return sized(header + "}") + std::string(static_cast<std::size_t>(at), '\0');
}

quire::StepPlan plan() {
  quire::StepPlan plan;
  plan.epoch = 7;
  plan.step = 3;
  plan.admits = {
      {.slot = 1, .tokens = {1, 2, 3}, .num_prompt_tokens = 2, .sample_index = 0, .params = {}}};
  plan.rows = {
      {.slot = 1, .first_position = 0, .num_tokens = 3, .samples = true, .new_blocks = {{5}}}};
  return plan;
}

std::string result() {
  quire::StepResult result;
  result.epoch = 7;
  result.step = 3;
  result.rows = {{.row = 0, .token = 4, .logprobs = {{4, -0.5f}, {2, -1.5f}}}};
  quire::v1::Up up;
  encode(result, up.mutable_result());
  return up.SerializeAsString();
}

void write(const fs::path& file, const std::string& bytes) {
  fs::create_directories(file.parent_path());
  std::ofstream out(file, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  QUIRE_CHECK(out.good());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: fuzz_seeds FOLDER\n";
    return 64;
  }
  const fs::path folder = argv[1];
  write(folder / "gguf/plain", gguf({}));
  write(folder / "gguf/bpe", gguf(bpe()));
  write(folder / "gguf/spm", gguf(spm()));
  write(folder / "gguf/yarn", gguf(yarn()));
  write(folder / "safetensors/two", safetensors());
  write(folder / "safetensors/awq", quantized({{"qweight", "I32", "[32,1]", 128},
                                               {"qzeros", "I32", "[1,1]", 4},
                                               {"scales", "F16", "[1,8]", 16}}));
  write(folder / "safetensors/gptq", quantized({{"qweight", "I32", "[4,8]", 128},
                                                {"qzeros", "I32", "[1,1]", 4},
                                                {"scales", "F16", "[1,8]", 16},
                                                {"g_idx", "I32", "[32]", 128}}));
  write(folder / "safetensors/rows",
        quantized({{"weight", "F8_E4M3", "[8,32]", 256}, {"weight_scale", "F32", "[8,1]", 32}}));
  write(folder / "safetensors/packed", quantized({{"weight_packed", "I32", "[8,4]", 128},
                                                  {"weight_scale", "BF16", "[8,1]", 16},
                                                  {"weight_shape", "I64", "[2]", 16}}));
  quire::v1::Down down;
  down.set_plan(encode(plan()));
  const char kinds[] = {0, 1, 2};  // see wire.cpp
  write(folder / "wire/plan", absl::StrCat(std::string(1, kinds[0]), encode(plan())));
  write(folder / "wire/result", absl::StrCat(std::string(1, kinds[1]), result()));
  write(folder / "wire/down", absl::StrCat(std::string(1, kinds[2]), down.SerializeAsString()));
  return 0;
}
