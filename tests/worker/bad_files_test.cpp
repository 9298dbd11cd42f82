// Checkpoints that are not what they say: each refused with the file and the tensor in the message,
// before anything runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

TinyTensor& named(std::vector<TinyTensor>& tensors, const std::string& name) {
  return *std::find_if(tensors.begin(), tensors.end(),
                       [&](const TinyTensor& tensor) { return tensor.name == name; });
}

struct Case {
  const char* name;
  void (*edit)(std::vector<TinyTensor>&);
  std::vector<std::string> says;
};

class BadFiles : public testing::TestWithParam<Case> {};

TEST_P(BadFiles, IsRefusedByName) {
  ScratchFolder scratch;
  TinyOptions tiny;
  tiny.edit = GetParam().edit;
  write_tiny_gguf(scratch / "bad.gguf", tiny);
  const auto group = RankGroup::open(scratch / "bad.gguf", {});
  ASSERT_FALSE(group.ok());
  for (const std::string& text : GetParam().says) {
    EXPECT_THAT(std::string(group.status().message()), HasSubstr(text));
  }
}

const Case kCases[] = {
    {"missing_matrix",
     [](std::vector<TinyTensor>& t) {
       std::erase_if(t, [](const auto& tensor) { return tensor.name == "blk.1.ffn_up.weight"; });
     },
     {"bad.gguf", "blk.1.ffn_up.weight", "[416, 288]", "missing"}},
    {"missing_norm",
     [](std::vector<TinyTensor>& t) {
       std::erase_if(t, [](const auto& tensor) { return tensor.name == "output_norm.weight"; });
     },
     {"bad.gguf", "output_norm.weight", "[288]", "missing"}},
    {"wrong_shape",
     [](std::vector<TinyTensor>& t) {
       TinyTensor& tensor = named(t, "blk.0.attn_k.weight");
       tensor.shape[0] -= 32;
       tensor.values.resize(static_cast<std::size_t>(tensor.shape[0] * tensor.shape[1]));
     },
     {"bad.gguf", "blk.0.attn_k.weight", "[64, 288]", "[96, 288]"}},
    {"transposed",
     [](std::vector<TinyTensor>& t) {
       TinyTensor& tensor = named(t, "blk.0.ffn_down.weight");
       std::swap(tensor.shape[0], tensor.shape[1]);
     },
     {"bad.gguf", "blk.0.ffn_down.weight", "[416, 288]", "[288, 416]"}},
    {"quantized_norm",
     [](std::vector<TinyTensor>& t) { named(t, "blk.1.attn_norm.weight").format = Format::kQ8_0; },
     {"bad.gguf", "blk.1.attn_norm.weight", "q8_0"}},
};
INSTANTIATE_TEST_SUITE_P(Files, BadFiles, testing::ValuesIn(kCases),
                         [](const auto& each) { return std::string(each.param.name); });

TEST(BadFiles, TruncatedFileNamesTheTensor) {
  ScratchFolder scratch;
  write_tiny_gguf(scratch / "cut.gguf", {});
  const auto size = std::filesystem::file_size(scratch / "cut.gguf");
  std::filesystem::resize_file(scratch / "cut.gguf", size - 5000);
  const auto group = RankGroup::open(scratch / "cut.gguf", {});
  ASSERT_FALSE(group.ok());
  EXPECT_THAT(std::string(group.status().message()), HasSubstr("cut.gguf"));
}

// Opened in whole, cut before it was mapped.
TEST(BadFiles, FileThatShrinksAfterOpening) {
  ScratchFolder scratch;
  write_tiny_gguf(scratch / "shrunk.gguf", {});
  auto file = open_model(scratch / "shrunk.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  std::filesystem::resize_file(scratch / "shrunk.gguf",
                               std::filesystem::file_size(scratch / "shrunk.gguf") / 2);
  const auto rank =
      Rank::load(*std::move(file), *open_device({"reference", "auto", "auto", "auto", 1}), {},
                 make_progress("none", ""));
  ASSERT_FALSE(rank.ok());
  EXPECT_EQ(rank.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(rank.status().message()), HasSubstr("shrunk.gguf"));
}

TEST(BadFiles, MoreRanksThanHeads) {
  ScratchFolder scratch;
  write_tiny_gguf(scratch / "tiny.gguf", {});
  GroupOptions options;
  options.world = 10;
  const auto group = RankGroup::open(scratch / "tiny.gguf", options);
  ASSERT_FALSE(group.ok());
  EXPECT_THAT(std::string(group.status().message()), HasSubstr("10"));
  EXPECT_THAT(std::string(group.status().message()), HasSubstr("9"));
}

}  // namespace
}  // namespace quire::test
