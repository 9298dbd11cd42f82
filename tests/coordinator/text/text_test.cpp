// make_text() over real checkpoints: the prompts of the reference outputs give the reference's ids.
#include "coordinator/text/text.h"

#include <gtest/gtest.h>

#include "tests/coordinator/text/text_fixtures.h"

namespace quire {
namespace {

using nlohmann::ordered_json;

absl::StatusOr<Text> open_text(const std::filesystem::path& path) {
  const auto model = open_model(path.string());
  if (!model.ok()) return model.status();
  return make_text(*model);
}

TEST(Text, SmolLm2PromptsAndChats) {
  QUIRE_NEED_DATA(test::demo_model());
  const auto path = test::shared_file("reference/smollm2/golden.dev.json");
  QUIRE_NEED_DATA(path);
  const auto text = open_text(test::demo_model());
  ASSERT_TRUE(text.ok()) << text.status();
  ASSERT_TRUE(text->chat_template.has_value());
  const auto golden = ordered_json::parse(test::read_text(path));
  int num_chats = 0;
  for (const auto& item : golden["items"]) {
    std::string prompt;
    if (item.contains("messages")) {
      ++num_chats;
      const auto rendered = text->chat_template->render(
          {{"messages", item["messages"]}, {"add_generation_prompt", true}}, 0.0);
      ASSERT_TRUE(rendered.ok()) << rendered.status();
      prompt = *rendered;
    } else {
      prompt = item["prompt"].get<std::string>();
    }
    const auto ids = text->tokenizer->encode(prompt, true, true);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, item["prompt_ids"].get<std::vector<TokenId>>()) << item["id"];
    EXPECT_EQ(text->tokenizer->decode(item["output_ids"].get<std::vector<TokenId>>(), true),
              item["output_text"].get<std::string>())
        << item["id"];
  }
  EXPECT_EQ(golden["items"].size(), 24u);
  EXPECT_GT(num_chats, 12);
}

class SmallModels : public ::testing::TestWithParam<const char*> {};

TEST_P(SmallModels, GiveTheReferencesPromptIds) {
  const auto model = test::shared_file(GetParam());
  QUIRE_NEED_DATA(model);
  const auto text = open_text(model);
  ASSERT_TRUE(text.ok()) << text.status();
  const auto folder = std::filesystem::is_directory(model) ? model : model.parent_path() / "hf";
  const auto golden = ordered_json::parse(test::read_text(folder / "golden.json"));
  int num_texts = 0;
  for (const auto& item : golden["cases"]) {
    if (item["prompt"].is_null()) continue;  // given as ids only
    ++num_texts;
    const auto ids = text->tokenizer->encode(item["prompt"].get<std::string>(), true, true);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, item["prompt_ids"].get<std::vector<TokenId>>()) << item["prompt"];
  }
  EXPECT_GT(num_texts, 0);
}

INSTANTIATE_TEST_SUITE_P(Models, SmallModels,
                         ::testing::Values("data/models/stories260K/hf",
                                           "data/models/stories260K/stories260K.F32.gguf",
                                           "data/models/tiny-random/llama-rope3",
                                           "data/models/tiny-random/llama-yarn-bias"));

TEST(Text, StoriesAreDecodedWordForWord) {
  const auto model = test::shared_file("data/models/stories260K/hf");
  QUIRE_NEED_DATA(model);
  const auto text = open_text(model);
  ASSERT_TRUE(text.ok()) << text.status();
  const auto golden = ordered_json::parse(test::read_text(model / "golden.json"));
  for (const auto& item : golden["cases"]) {
    EXPECT_EQ(text->tokenizer->decode(item["greedy_ids"].get<std::vector<TokenId>>(), true),
              item["text"].get<std::string>());
  }
}

TEST(Text, ErrorsNameTheFile) {
  ModelFile model;
  model.path = "/models/x.gguf";
  const auto text = make_text(model);
  ASSERT_FALSE(text.ok());
  EXPECT_NE(text.status().message().find("/models/x.gguf"), absl::string_view::npos);
}

}  // namespace
}  // namespace quire
