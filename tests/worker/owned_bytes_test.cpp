// A rank reads the bytes of a checkpoint that it owns and no others: every rank of a group gets a
// copy of its own in which all other tensor bytes are 0xff (NaN in every stored format), and the
// group's answers are those of one rank on the whole file, bit for bit.
#include <gtest/gtest.h>

#include <fstream>

#include "tests/test_data.h"
#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"
#include "worker/model/arch/arch.h"

namespace quire::test {
namespace {

struct ByteRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// Where the tensor's owned bytes lie in its file: one range, or one per row of a column cut.
std::vector<ByteRange> owned_ranges(const TensorInfo& tensor, const TensorRow& row, Range range) {
  const std::int64_t columns = tensor.shape.back();
  const bool matrix = tensor.shape.size() > 1;
  const std::uint64_t stride =
      matrix ? row_bytes(tensor.format, columns) : row_bytes(tensor.format, 1);
  if (!cuts_columns(row.cut)) {
    return {{tensor.offset + static_cast<std::uint64_t>(range.begin) * stride,
             tensor.offset + static_cast<std::uint64_t>(range.end) * stride}};
  }
  std::vector<ByteRange> ranges;
  for (std::int64_t r = 0; r < tensor.shape[0]; ++r) {
    const std::uint64_t start = tensor.offset + static_cast<std::uint64_t>(r) * stride;
    ranges.push_back({start + row_bytes(tensor.format, range.begin),
                      start + row_bytes(tensor.format, range.end)});
  }
  return ranges;
}

// A file that is written over in place.
class Damage {
 public:
  explicit Damage(const std::string& path)
      : file_(path, std::ios::in | std::ios::out | std::ios::binary) {}
  void over(ByteRange range) {
    file_.seekp(static_cast<std::streamoff>(range.begin));
    const std::string poison(range.end - range.begin, '\xff');
    file_.write(poison.data(), static_cast<std::streamsize>(poison.size()));
    bytes_ += poison.size();
  }
  std::uint64_t bytes() const { return bytes_; }
  bool good() const { return file_.good(); }

 private:
  std::fstream file_;
  std::uint64_t bytes_ = 0;
};

// Copies `from`, a GGUF file or a folder with one safetensors file, to `to` and overwrites what
// rank `rank` of `world` does not own; of the tensor named `lost` also what it does own.
std::string copy_for_rank(const std::string& from, const std::filesystem::path& to, int world,
                          int rank, const std::string& lost = "") {
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
  const auto file = open_model(to);
  EXPECT_TRUE(file.ok()) << file.status();
  const Arch& arch = **find_arch(file->spec.architecture);
  const auto shards = make_shard_map(file->spec, world, *row_parallel_block(*file, arch));
  EXPECT_TRUE(shards.ok()) << shards.status();
  const RankShard& shard = shards->ranks[static_cast<std::size_t>(rank)];
  EXPECT_EQ(file->files.size(), 1u);
  Damage damage(file->files[0]);
  for (const TensorRow& row : arch.tensors) {
    if (!is_needed(row, file->spec)) continue;
    for (int layer = 0; layer < (is_per_layer(row) ? file->spec.num_layers : 1); ++layer) {
      const TensorInfo& tensor = **find_tensor(*file, row, layer);
      std::uint64_t at = tensor.offset;
      if (tensor.name != lost) {
        for (const ByteRange mine : owned_ranges(tensor, row, owned(row, file->spec, shard))) {
          if (at < mine.begin) damage.over({at, mine.begin});
          at = mine.end;
        }
      }
      const std::uint64_t end = tensor.offset + tensor.bytes;
      if (at < end) damage.over({at, end});
    }
  }
  if (lost.empty()) {
    EXPECT_EQ(damage.bytes() + *owned_bytes(*file, arch, shard), file->total_bytes());
  }
  EXPECT_TRUE(damage.good());
  return to;
}

GroupOptions cpu_group(int world) {
  GroupOptions options;
  options.device = "cpu";
  options.dtype = "auto";
  options.world = world;
  return options;
}

absl::StatusOr<std::vector<Output>> answers(const std::vector<std::string>& models) {
  auto group = RankGroup::open(models, cpu_group(static_cast<int>(models.size())));
  if (!group.ok()) return group.status();
  // Ids of both ends of the vocabulary: the first and the last rank that own embeddings.
  const TokenId vocab = (*group)->rank(0).file().spec.vocab;
  std::vector<TokenId> low, high;
  for (TokenId i = 0; i < 40; ++i) {
    low.push_back(i * 7 % 256);
    high.push_back(vocab - 1 - i * 11 % 256);
  }
  return generate(**group, {greedy(low, 8), greedy(high, 8)});
}

void expect_same(const std::vector<Output>& got, const std::vector<Output>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(got[i].tokens, want[i].tokens);
    for (std::size_t t = 0; t < want[i].logprobs.size(); ++t) {
      for (std::size_t k = 0; k < want[i].logprobs[t].size(); ++k) {
        EXPECT_EQ(got[i].logprobs[t][k].token, want[i].logprobs[t][k].token);
        EXPECT_EQ(got[i].logprobs[t][k].logprob, want[i].logprobs[t][k].logprob);
      }
    }
  }
}

void expect_only_owned_bytes_matter(const std::string& model, const ScratchFolder& scratch) {
  const auto whole = answers({model});
  ASSERT_TRUE(whole.ok()) << whole.status();
  for (const int world : {2, 3, 4}) {
    SCOPED_TRACE(testing::Message() << world << " ranks");
    std::vector<std::string> models;
    for (int r = 0; r < world; ++r) {
      const std::string name = "damaged-" + std::to_string(world) + "-" + std::to_string(r) +
                               std::filesystem::path(model).extension().string();
      models.push_back(copy_for_rank(model, scratch / name, world, r));
    }
    const auto got = answers(models);
    ASSERT_TRUE(got.ok()) << got.status();
    expect_same(*got, *whole);
  }
}

TEST(OwnedBytes, SafetensorsWithBiasesAndItsOwnVocabulary) {
  const ScratchFolder scratch;
  TinyOptions tiny;
  tiny.tied = false;
  tiny.biases = true;
  write_tiny_hf(scratch / "tiny", tiny);
  expect_only_owned_bytes_matter(scratch / "tiny", scratch);
}

TEST(OwnedBytes, GgufOfSeveralFormats) {
  const ScratchFolder scratch;
  TinyOptions tiny;
  tiny.storage = TinyOptions::Storage::kMixed;
  write_tiny_gguf(scratch / "tiny.gguf", tiny);
  expect_only_owned_bytes_matter(scratch / "tiny.gguf", scratch);
}

TEST(OwnedBytes, Stories260K) {
  const auto model = data_root() / "data/models/stories260K/stories260K.F32.gguf";
  QUIRE_NEED_DATA(model);
  const ScratchFolder scratch;
  expect_only_owned_bytes_matter(model, scratch);
}

// The other way round: what a rank owns is read, whichever kind of cut it has.
TEST(OwnedBytes, DamageToAnOwnedTensorShows) {
  const ScratchFolder scratch;
  write_tiny_gguf(scratch / "tiny.gguf", {});
  for (const char* tensor : {"blk.1.attn_q.weight", "blk.0.attn_output.weight",
                             "blk.1.ffn_down.weight", "token_embd.weight"}) {
    std::vector<std::string> models;
    for (int r = 0; r < 2; ++r) {
      const std::string name = std::string(tensor) + "-" + std::to_string(r) + ".gguf";
      models.push_back(
          copy_for_rank(scratch / "tiny.gguf", scratch / name, 2, r, r == 1 ? tensor : ""));
    }
    const auto whole = answers({scratch / "tiny.gguf"});
    ASSERT_TRUE(whole.ok()) << whole.status();
    const auto got = answers(models);
    // NaN logits may be refused by name, or pick other tokens.
    if (!got.ok() || (*got)[0].logprobs[0].empty()) continue;
    EXPECT_NE((*got)[0].logprobs[0][0].logprob, (*whole)[0].logprobs[0][0].logprob) << tensor;
  }
}

}  // namespace
}  // namespace quire::test
