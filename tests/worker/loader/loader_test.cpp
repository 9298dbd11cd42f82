// Slices of a checkpoint, the cuts that its blocks refuse, and how progress looks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/formats/table.h"
#include "tests/worker/tiny_model.h"
#include "worker/loader/mapped_model.h"
#include "worker/loader/progress.h"

namespace quire {
namespace {

class LoaderTest : public testing::Test {
 protected:
  void SetUp() override {
    test::TinyOptions tiny;
    tiny.storage = test::TinyOptions::Storage::kMixed;
    test::write_tiny_gguf(scratch_ / "tiny.gguf", tiny);
    auto file = open_model(scratch_ / "tiny.gguf");
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    auto mapped = MappedModel::open(file_);
    ASSERT_TRUE(mapped.ok()) << mapped.status();
    mapped_ = *std::move(mapped);
  }
  std::vector<float> decode(Format format, const MatrixPart& part, int row, int columns) {
    std::vector<float> out(static_cast<std::size_t>(columns));
    formats::decode_row(format, part.data + static_cast<std::size_t>(row) * part.row_stride,
                        columns, out.data());
    return out;
  }
  test::ScratchFolder scratch_;
  ModelFile file_;
  std::unique_ptr<MappedModel> mapped_;
};

TEST_F(LoaderTest, RowAndColumnSlicesAreViewsOfTheWhole) {
  const TensorInfo& tensor = *file_.find("blk.1.ffn_down.weight");  // [288][416], q4_1
  const MatrixPart whole = mapped_->rows(tensor, {0, 288});
  const MatrixPart rows = mapped_->rows(tensor, {100, 110});
  const auto columns = mapped_->columns(tensor, {64, 160});
  ASSERT_TRUE(columns.ok()) << columns.status();
  EXPECT_EQ(rows.rows, 10);
  EXPECT_EQ(columns->rows, 288);
  const std::vector<float> row = decode(tensor.format, whole, 103, 416);
  EXPECT_EQ(decode(tensor.format, rows, 3, 416), row);
  EXPECT_EQ(decode(tensor.format, *columns, 103, 96),
            std::vector<float>(row.begin() + 64, row.begin() + 160));
}

TEST_F(LoaderTest, ACutInsideABlockIsRefusedByName) {
  const auto columns = mapped_->columns(*file_.find("blk.0.ffn_down.weight"), {0, 48});
  ASSERT_EQ(columns.status().code(), absl::StatusCode::kInvalidArgument);
  for (const char* text : {"tiny.gguf", "blk.0.ffn_down.weight", "q4_1", "48"}) {
    EXPECT_THAT(std::string(columns.status().message()), testing::HasSubstr(text));
  }
}

TEST_F(LoaderTest, DroppedPagesCanBeReadAgain) {
  const TensorInfo& tensor = *file_.find("token_embd.weight");
  const MatrixPart part = mapped_->rows(tensor, {500, 700});
  const std::vector<float> before = decode(tensor.format, part, 7, 288);
  mapped_->drop(part);
  EXPECT_EQ(decode(tensor.format, part, 7, 288), before);
}

TEST(Progress, BarShowsShareAndBytes) {
  EXPECT_EQ(progress_bar(0, 100'000'000),
            "[>                             ]   0 %  0.0 of 100.0 MB");
  EXPECT_EQ(progress_bar(50'000'000, 100'000'000),
            "[===============>              ]  50 %  50.0 of 100.0 MB");
  EXPECT_EQ(progress_bar(100'000'000, 100'000'000),
            "[==============================] 100 %  100.0 of 100.0 MB");
}

TEST(Progress, LinesEndWithTheWhole) {
  const ProgressFn progress = make_progress("lines", "loading weights");
  testing::internal::CaptureStderr();
  progress(0, 2'000'000);
  progress(2'000'000, 2'000'000);
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, testing::HasSubstr("loading weights: 2.0 of 2.0 MB (100 %)"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("\r")));
}

}  // namespace
}  // namespace quire
