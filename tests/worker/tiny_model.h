// A small seeded Llama of the project's own, so that a bare clone's tests mean something: 9 query
// and 3 KV heads of 32, which no even number of ranks divides, two layers, a vocabulary of three
// segments. The GGUF and the Hugging Face folder hold the same weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/format.h"
#include "common/ids.h"
#include "common/model_spec.h"

namespace quire::test {

struct TinyTensor {
  std::string name;
  Format format = Format::kF32;
  std::vector<std::int64_t> shape;  // outermost first
  std::vector<float> values;
};

struct TinyOptions {
  std::uint64_t seed = 1;
  bool tied = true;
  bool biases = false;
  int window = 0;  // not 0: the folder is a Mistral, the GGUF has the key
  // How matrices are stored. GGUF kMixed: Q4_1 queries and keys beside F16 values, Q8_0 output and
  // embedding, Q4_1 feed-forward: two activation layouts read the same norm. kMixedLayers: the
  // same, but F16 output and down in every second layer: one reads another layout than the next.
  // kSuperblocks: Q4_K, Q5_K and Q6_K in one file, and a shape whose rows are whole superblocks,
  // though ranks cut them inside (tiny_spec).
  enum class Storage { kF32, kBf16, kMixed, kMixedLayers, kSuperblocks } storage = Storage::kF32;
  // Last look at the tensors before they are written: to break a file on purpose.
  std::function<void(std::vector<TinyTensor>&)> edit;
};

ModelSpec tiny_spec(TinyOptions::Storage storage = TinyOptions::Storage::kF32);

// Writes config.json and model.safetensors into `folder` (made if needed).
void write_tiny_hf(const std::filesystem::path& folder, const TinyOptions& options);
void write_tiny_gguf(const std::filesystem::path& file, const TinyOptions& options);

// A folder of this test's own under the system's temporary folder; removed by the destructor.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// `length` ids of the tiny vocabulary.
std::vector<TokenId> random_ids(std::uint64_t seed, int length);

}  // namespace quire::test
