// The tensor table: complete for every role, and its cuts cover every tensor.
#include "worker/model/arch/arch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/worker/tiny_model.h"

namespace quire {
namespace {

TEST(Arch, EveryRoleHasOneRow) {
  std::set<Role> roles;
  for (const TensorRow& row : kLlamaArch.tensors) {
    EXPECT_TRUE(roles.insert(row.role).second) << row.name;
    EXPECT_EQ(&row_of(kLlamaArch, row.role), &row);
  }
  EXPECT_EQ(roles.size(), static_cast<std::size_t>(Role::kVocabulary) + 1);
}

TEST(Arch, UnknownNameListsWhatThereIs) {
  const auto arch = find_arch("mamba");
  ASSERT_FALSE(arch.ok());
  EXPECT_THAT(std::string(arch.status().message()), testing::HasSubstr("mamba"));
  EXPECT_THAT(std::string(arch.status().message()), testing::HasSubstr("llama"));
}

TEST(Arch, NamesOfBothContainers) {
  const TensorRow& row = row_of(kLlamaArch, Role::kDown);
  EXPECT_EQ(tensor_name(row, true, 12), "blk.12.ffn_down.weight");
  EXPECT_EQ(tensor_name(row, false, 12), "model.layers.12.mlp.down_proj.weight");
}

// Every element of a cut tensor is owned by a rank; only KV heads may be owned twice.
TEST(Arch, CutsCoverEveryTensor) {
  const ModelSpec spec = test::tiny_spec();
  for (int world = 1; world <= spec.num_heads; ++world) {
    const auto shards = make_shard_map(spec, world, 32);
    ASSERT_TRUE(shards.ok()) << shards.status();
    for (const TensorRow& row : kLlamaArch.tensors) {
      const int whole =
          cuts_columns(row.cut) ? dim_size(row.columns, spec) : dim_size(row.rows, spec);
      int end = 0;
      for (const RankShard& shard : shards->ranks) {
        const Range range = owned(row, spec, shard);
        if (range.empty()) continue;
        EXPECT_LE(range.begin, row.cut == Cut::kNone ? 0 : end) << row.name;
        if (row.cut != Cut::kRowsByKvHead && row.cut != Cut::kNone) {
          EXPECT_EQ(range.begin, end) << row.name;
        }
        end = std::max(end, range.end);
      }
      EXPECT_EQ(end, whole) << row.name << " over " << world;
    }
  }
}

TEST(Arch, OwnedBytesAddUp) {
  test::ScratchFolder scratch;
  test::TinyOptions tiny;
  tiny.storage = test::TinyOptions::Storage::kMixed;
  test::write_tiny_gguf(scratch / "tiny.gguf", tiny);
  const auto file = open_model(scratch / "tiny.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*row_parallel_block(*file, kLlamaArch), 32);
  EXPECT_EQ(*dominant_format(*file, kLlamaArch), Format::kQ4_1);
  const auto whole = make_shard_map(file->spec, 1, 32);
  EXPECT_EQ(*owned_bytes(*file, kLlamaArch, whole->ranks[0]), file->total_bytes());
  const auto thirds = make_shard_map(file->spec, 3, 32);
  std::uint64_t total = 0;
  for (const RankShard& shard : thirds->ranks) {
    const auto bytes = owned_bytes(*file, kLlamaArch, shard);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_LT(*bytes, file->total_bytes() / 2);
    total += *bytes;
  }
  const std::uint64_t norms = 5 * 288 * 4;  // whole on every rank
  EXPECT_EQ(total, file->total_bytes() + 2 * norms);
}

}  // namespace
}  // namespace quire
