// GGUF files that lie (reliability.md S17, S19): each is refused with the file, the key or tensor,
// and the reason. Files are written from a recipe, whole first, then spoiled in one place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <random>

#include "absl/strings/str_cat.h"
#include "common/model_file/gguf_file.h"
#include "common/model_file/model_file.h"

namespace quire {
namespace {

using ::testing::HasSubstr;

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
std::string array(std::uint32_t type, std::uint64_t count, const std::string& elements) {
  return raw<std::uint32_t>(9) + raw(type) + raw(count) + elements;
}

struct Tensor {
  std::string name;
  std::vector<std::uint64_t> dims;  // innermost first
  std::uint32_t type = 0;
  std::uint64_t offset = 0;
};

// A whole llama of one layer, V = 8, E = 32; its embedding alone is enough for the headers.
struct Recipe {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::optional<std::uint64_t> num_tensors, num_keys;
  std::vector<std::pair<std::string, std::string>> keys = {
      {"general.architecture", text("llama")},
      {"llama.block_count", u32(1)},
      {"llama.context_length", u32(64)},
      {"llama.embedding_length", u32(32)},
      {"llama.feed_forward_length", u32(64)},
      {"llama.attention.head_count", u32(4)},
      {"llama.attention.head_count_kv", u32(2)},
      {"llama.attention.layer_norm_rms_epsilon", f32(1e-5f)},
      {"llama.vocab_size", u32(8)},
  };
  std::vector<Tensor> tensors = {{"token_embd.weight", {32, 8}, 0, 0},
                                 {"output_norm.weight", {32}, 0, 1024}};
  std::size_t data_bytes = 1024 + 128;
  std::size_t cut = 0;  // bytes taken off the end

  void set(const std::string& key, const std::string& value) {
    for (auto& [name, old] : keys) {
      if (name == key) {
        old = value;
        return;
      }
    }
    keys.emplace_back(key, value);
  }
  void drop(const std::string& key) {
    std::erase_if(keys, [&](const auto& pair) { return pair.first == key; });
  }
  std::string bytes() const {
    std::string out = magic + raw(version) + raw(num_tensors.value_or(tensors.size())) +
                      raw(num_keys.value_or(keys.size()));
    for (const auto& [name, value] : keys) out += sized(name) + value;
    for (const Tensor& tensor : tensors) {
      out += sized(tensor.name) + raw(static_cast<std::uint32_t>(tensor.dims.size()));
      for (const std::uint64_t dim : tensor.dims) out += raw(dim);
      out += raw(tensor.type) + raw(tensor.offset);
    }
    out.resize((out.size() + 31) / 32 * 32);
    out.resize(out.size() + data_bytes);
    out.resize(out.size() - cut);
    return out;
  }
};

class HostileGgufTest : public ::testing::Test {
 protected:
  absl::StatusOr<ModelFile> open_bytes(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return open_model(path_);
  }
  absl::StatusOr<ModelFile> open_with(const std::function<void(Recipe&)>& spoil) {
    Recipe recipe;
    spoil(recipe);
    return open_bytes(recipe.bytes());
  }
  void TearDown() override { std::filesystem::remove(path_); }

  const std::string path_ =
      (std::filesystem::temp_directory_path() / absl::StrCat("quire_hostile_", getpid(), ".gguf"))
          .string();
};

TEST_F(HostileGgufTest, TheRecipeItselfIsGood) {
  absl::StatusOr<ModelFile> model = open_with([](Recipe&) {});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->spec.head_dim, 8);
  EXPECT_EQ(model->tensors.size(), 2u);
  EXPECT_TRUE(open_with([](Recipe& r) { r.version = 2; }).ok());
  EXPECT_TRUE(open_with([](Recipe& r) { r.drop("llama.vocab_size"); }).ok());
  EXPECT_TRUE(open_with([](Recipe& r) { r.set("general.alignment", u32(32)); }).ok());
  EXPECT_TRUE(open_with([](Recipe& r) {
                r.set("general.languages", array(8, 1, sized("en")));
                r.set("general.numbers", array(5, 2, raw(1) + raw(2)));
              }).ok());
}

struct Case {
  const char* says;
  std::function<void(Recipe&)> spoil;
};

constexpr std::uint64_t kHuge = std::uint64_t{1} << 63;

const Case kContainer[] = {
    {"does not begin with GGUF", [](Recipe& r) { r.magic = "GGML"; }},
    {"GGUF version 1", [](Recipe& r) { r.version = 1; }},
    {"GGUF version 4", [](Recipe& r) { r.version = 4; }},
    {"big-endian", [](Recipe& r) { r.version = 3u << 24; }},
    {"9223372036854775808 tensors", [](Recipe& r) { r.num_tensors = kHuge; }},
    {"9223372036854775808 metadata keys", [](Recipe& r) { r.num_keys = kHuge; }},
    {"metadata key", [](Recipe& r) { r.num_keys = 40; }},
    {"tensor", [](Recipe& r) { r.num_tensors = 1000; }},
    {"'k' is said to be 9223372036854775808 bytes",
     [](Recipe& r) { r.set("k", raw<std::uint32_t>(8) + raw(kHuge) + "abc"); }},
    {"is said to be 18446744073709551615 bytes",
     [](Recipe& r) {
       r.set("k", raw<std::uint32_t>(8) + raw(std::numeric_limits<std::uint64_t>::max()));
     }},
    {"'k' has the unknown type 13", [](Recipe& r) { r.set("k", raw<std::uint32_t>(13)); }},
    {"'k' is said to have 9223372036854775808 elements",
     [](Recipe& r) { r.set("k", array(4, kHuge, "")); }},
    {"inside metadata key 'k'", [](Recipe& r) { r.set("k", array(4, 1 << 20, "")); }},
    {"inside metadata key 'k'", [](Recipe& r) { r.set("k", array(8, 1 << 20, "")); }},
    {"'k' is an array of arrays",
     [](Recipe& r) { r.set("k", array(9, 1, array(9, 1, "").substr(4))); }},
    {"'k' is an array of the unknown type 77", [](Recipe& r) { r.set("k", array(77, 1, "x")); }},
    {"'llama.block_count' appears twice",
     [](Recipe& r) { r.keys.emplace_back("llama.block_count", u32(1)); }},
    {"'general.alignment'", [](Recipe& r) { r.set("general.alignment", u32(0)); }},
    {"'general.alignment'", [](Recipe& r) { r.set("general.alignment", u32(48)); }},
    {"'general.alignment'", [](Recipe& r) { r.set("general.alignment", text("32")); }},
};

const Case kTensors[] = {
    {"'token_embd.weight' has 0 dimensions", [](Recipe& r) { r.tensors[0].dims = {}; }},
    {"'token_embd.weight' has 5 dimensions", [](Recipe& r) { r.tensors[0].dims.assign(5, 1); }},
    {"'token_embd.weight' has a dimension of 0",
     [](Recipe& r) {
       r.tensors[0].dims = {32, 0};
     }},
    {"'token_embd.weight' has a dimension of -", [](Recipe& r) { r.tensors[0].dims = {kHuge}; }},
    {"'token_embd.weight' has more elements than fit",
     [](Recipe& r) {
       r.tensors[0].dims = {kHuge / 2, 8};
     }},
    {"'token_embd.weight' has more bytes than fit",
     [](Recipe& r) { r.tensors[0].dims = {kHuge - 32}; }},
    {"'token_embd.weight' has the unknown type 99", [](Recipe& r) { r.tensors[0].type = 99; }},
    {"'token_embd.weight' is stored as Q2_K", [](Recipe& r) { r.tensors[0].type = 10; }},
    {"rows of 32 elements, which blocks of 256 (q4_K)", [](Recipe& r) { r.tensors[0].type = 12; }},
    {"'output_norm.weight' has rows of 20 elements",
     [](Recipe& r) {
       r.tensors[1] = {"output_norm.weight", {20}, 8, 1024};
     }},
    {"'token_embd.weight' is at offset 16", [](Recipe& r) { r.tensors[0].offset = 16; }},
    {"'output_norm.weight' needs 128 bytes", [](Recipe& r) { r.tensors[1].offset = 1 << 20; }},
    {"'output_norm.weight' needs 128 bytes",
     [](Recipe& r) { r.tensors[1].offset = std::numeric_limits<std::uint64_t>::max() - 31; }},
    {"'output_norm.weight' needs 128 bytes", [](Recipe& r) { r.cut = 1; }},
    {"'token_embd.weight' is described twice",
     [](Recipe& r) { r.tensors[1].name = "token_embd.weight"; }},
    {"inside tensor 'token_embd.weight'", [](Recipe& r) { r.tensors[1].offset = 992; }},
    {"'token_embd.weight' is missing", [](Recipe& r) { r.tensors[0].name = "other"; }},
    {"'token_embd.weight' is 8 x 16",
     [](Recipe& r) {
       r.tensors[0].dims = {16, 8};
     }},
    {"'token_embd.weight' is 32", [](Recipe& r) { r.tensors[0].dims = {32}; }},
    {"'rope_freqs.weight' must be 4 values",
     [](Recipe& r) { r.tensors[1].name = "rope_freqs.weight"; }},
    {"'rope_freqs.weight' holds 0",
     [](Recipe& r) {
       r.tensors[1] = {"rope_freqs.weight", {4}, 0, 1024};
     }},
};

const Case kModel[] = {
    {"'qwen2'; the only one that runs is llama",
     [](Recipe& r) { r.set("general.architecture", text("qwen2")); }},
    {"'general.architecture' is not a string",
     [](Recipe& r) { r.set("general.architecture", u32(1)); }},
    {"''; the only one", [](Recipe& r) { r.drop("general.architecture"); }},
    {"'llama.block_count' is missing", [](Recipe& r) { r.drop("llama.block_count"); }},
    {"number of layers is 0", [](Recipe& r) { r.set("llama.block_count", u32(0)); }},
    {"'llama.block_count' is -1",
     [](Recipe& r) { r.set("llama.block_count", raw<std::uint32_t>(5) + raw<std::int32_t>(-1)); }},
    {"too large", [](Recipe& r) { r.set("llama.block_count", u32(0xffffffff)); }},
    {"'llama.block_count' is not a single integer",
     [](Recipe& r) { r.set("llama.block_count", text("1")); }},
    {"0 query heads", [](Recipe& r) { r.set("llama.attention.head_count", u32(0)); }},
    {"5 query heads", [](Recipe& r) { r.set("llama.attention.head_count", u32(5)); }},
    {"3 KV heads do not divide", [](Recipe& r) { r.set("llama.attention.head_count_kv", u32(3)); }},
    {"number of KV heads is 0", [](Recipe& r) { r.set("llama.attention.head_count_kv", u32(0)); }},
    {"head dimension is 7", [](Recipe& r) { r.set("llama.attention.key_length", u32(7)); }},
    {"heads of V 16", [](Recipe& r) { r.set("llama.attention.value_length", u32(16)); }},
    {"hidden size is 0", [](Recipe& r) { r.set("llama.embedding_length", u32(0)); }},
    {"rope theta) is 0", [](Recipe& r) { r.set("llama.rope.freq_base", f32(0.0f)); }},
    {"rope theta) is nan",
     [](Recipe& r) {
       r.set("llama.rope.freq_base", f32(std::numeric_limits<float>::quiet_NaN()));
     }},
    {"rotary embedding over 3", [](Recipe& r) { r.set("llama.rope.dimension_count", u32(3)); }},
    {"rotary embedding over 10", [](Recipe& r) { r.set("llama.rope.dimension_count", u32(10)); }},
    {"'longrope'; none, linear",
     [](Recipe& r) { r.set("llama.rope.scaling.type", text("longrope")); }},
    {"scaling parameter is -2",
     [](Recipe& r) {
       r.set("llama.rope.scaling.type", text("linear"));
       r.set("llama.rope.scaling.factor", f32(-2.0f));
     }},
    {"epsilon is",
     [](Recipe& r) {
       r.set("llama.attention.layer_norm_rms_epsilon", f32(std::numeric_limits<float>::infinity()));
     }},
    {"vocabulary is 9", [](Recipe& r) { r.set("llama.vocab_size", u32(9)); }},
    {"mixture of 8 experts", [](Recipe& r) { r.set("llama.expert_count", u32(8)); }},
    {"one of 3 parts", [](Recipe& r) { r.set("split.count", u32(3)); }},
    {"'unigram'; gpt2 and llama",
     [](Recipe& r) { r.set("tokenizer.ggml.model", text("unigram")); }},
    {"'tokenizer.ggml.tokens' is missing",
     [](Recipe& r) { r.set("tokenizer.ggml.model", text("gpt2")); }},
    {"9 tokens, but the embedding only 8",
     [](Recipe& r) {
       std::string nine;
       for (int i = 0; i < 9; ++i) nine += sized("t");
       r.set("tokenizer.ggml.model", text("gpt2"));
       r.set("tokenizer.ggml.tokens", array(8, 9, nine));
     }},
    {"1 tokens, but 2 scores",
     [](Recipe& r) {
       r.set("tokenizer.ggml.model", text("llama"));
       r.set("tokenizer.ggml.tokens", array(8, 1, sized("t")));
       r.set("tokenizer.ggml.scores", array(6, 2, raw(0.0f) + raw(0.0f)));
     }},
    {"end-of-sequence token id is 8",
     [](Recipe& r) { r.set("tokenizer.ggml.eos_token_id", u32(8)); }},
    {"end-of-sequence token id is 100",
     [](Recipe& r) { r.set("tokenizer.ggml.eot_token_id", u32(100)); }},
    {"chat template is not UTF-8 (byte 1)",
     [](Recipe& r) { r.set("tokenizer.chat_template", text("a\xff")); }},
};

TEST_F(HostileGgufTest, EachLieIsNamed) {
  for (const auto& table : {absl::MakeConstSpan(kContainer), absl::MakeConstSpan(kTensors),
                            absl::MakeConstSpan(kModel)}) {
    for (const Case& c : table) {
      const absl::StatusOr<ModelFile> model = open_with(c.spoil);
      ASSERT_FALSE(model.ok()) << c.says;
      EXPECT_THAT(std::string(model.status().message()), HasSubstr(c.says));
      EXPECT_THAT(std::string(model.status().message()), HasSubstr(path_));
    }
  }
}

TEST_F(HostileGgufTest, EveryTruncationIsAnError) {
  const std::string whole = Recipe().bytes();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const absl::StatusOr<GgufFile> file = read_gguf("cut.gguf", whole.substr(0, size));
    ASSERT_FALSE(file.ok()) << size;
    ASSERT_THAT(std::string(file.status().message()), HasSubstr("cut.gguf"));
  }
  EXPECT_FALSE(open_bytes(whole.substr(0, whole.size() / 2)).ok());
}

TEST_F(HostileGgufTest, RandomDamageNeverCrashes) {
  std::mt19937 random(3);  // seed 3
  const std::string whole = Recipe().bytes();
  int read = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = whole;
    for (int n = 1 + static_cast<int>(random() % 3); n > 0; --n) {
      bytes[random() % 700] = static_cast<char>(random());
    }
    const absl::StatusOr<GgufFile> file = read_gguf("damaged.gguf", bytes);
    if (!file.ok()) continue;
    ++read;
    for (const TensorInfo& tensor : file->tensors) {
      ASSERT_LE(tensor.offset + tensor.bytes, bytes.size());
    }
    if (i % 100 == 0) (void)open_bytes(bytes);  // and what the keys mean
  }
  EXPECT_GT(read, 1000);  // damage inside values is common
}

}  // namespace
}  // namespace quire
