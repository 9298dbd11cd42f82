// POST /v1/chat/completions against the oracle: the template's text, then the same as completions.
#include <gmock/gmock.h>

#include "tests/coordinator/api/openai_fixture.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class ChatTest : public OpenAiTest {
 protected:
  static Json body(int max_tokens) {
    return {{"messages",
             {{{"role", "system"}, {"content", "be"}}, {{"role", "user"}, {"content", "hello"}}}},
            {"max_tokens", max_tokens},
            {"seed", kSeed}};
  }
  static constexpr char kPrompt[] = "systembeuserhelloQ";
};

TEST_F(ChatTest, AnswersAsOpenAiDoes) {
  const Json json = chat(body(30));
  EXPECT_THAT(json["id"].get<std::string>(), StartsWith("chatcmpl-"));
  EXPECT_EQ(json["object"], "chat.completion");
  const Json& choice = json["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], oracle_text(kPrompt, 30));
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_TRUE(choice["logprobs"].is_null());
  EXPECT_EQ(json["usage"]["prompt_tokens"], encode(kPrompt).size());
  EXPECT_EQ(json["usage"]["completion_tokens"], 30);
}

TEST_F(ChatTest, TakesContentAsPartsAndTheNewerNameOfMaxTokens) {
  const Json json = chat(
      {{"messages", {{{"role", "user"}, {"content", {{{"type", "text"}, {"text", "hello"}}}}}}},
       {"max_completion_tokens", 12},
       {"seed", kSeed}});
  EXPECT_EQ(json["choices"][0]["message"]["content"], oracle_text("userhelloQ", 12));
}

TEST_F(ChatTest, AnswersToTheEndOfTheContextByDefault) {
  start({.max_model_len = 64});
  Json request = body(1);
  request.erase("max_tokens");
  const Json json = chat(request);
  EXPECT_EQ(json["usage"]["total_tokens"], 64);
}

TEST_F(ChatTest, StreamsRoleThenContentThenTheEnd) {
  Json request = body(40);
  request["n"] = 2;
  request["stream_options"] = {{"include_usage", true}};
  const std::vector<Json> events = stream("/v1/chat/completions", request);
  std::vector<std::string> texts(2);
  std::vector<int> seen(2, 0);
  for (std::size_t i = 0; i + 1 < events.size(); ++i) {
    EXPECT_EQ(events[i]["object"], "chat.completion.chunk");
    const Json& choice = events[i]["choices"].at(0);
    const std::size_t index = choice["index"];
    EXPECT_EQ(choice["delta"].contains("role"), seen[index]++ == 0);
    texts[index] += choice["delta"]["content"];
  }
  EXPECT_EQ(texts[0], oracle_text(kPrompt, 40, 0));
  EXPECT_EQ(texts[1], oracle_text(kPrompt, 40, 1));
  EXPECT_TRUE(events.back()["choices"].empty());
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], 80);
}

TEST_F(ChatTest, GivesLogprobs) {
  Json request = body(15);
  request["logprobs"] = true;
  request["top_logprobs"] = 3;
  const Json json = chat(request);
  const Json& content = json["choices"][0]["logprobs"]["content"];
  const std::vector<TokenId> tokens = oracle(kPrompt, 15);
  ASSERT_EQ(content.size(), 15u);
  for (std::size_t i = 0; i < 15; ++i) {
    std::string bytes;
    for (const Json& byte : content[i]["bytes"])
      bytes.push_back(static_cast<char>(byte.get<int>()));
    EXPECT_EQ(bytes, model_.text.tokenizer->name_of(tokens[i]));
    EXPECT_EQ(content[i]["top_logprobs"].size(), 3u);
    EXPECT_LE(content[i]["top_logprobs"][1]["logprob"], content[i]["top_logprobs"][0]["logprob"]);
  }
  std::size_t streamed = 0;
  for (const Json& event : stream("/v1/chat/completions", request)) {
    const Json& part = event["choices"][0]["logprobs"];
    if (!part.is_null()) streamed += part["content"].size();
  }
  EXPECT_EQ(streamed, 15u);
  request.erase("top_logprobs");
  EXPECT_TRUE(chat(request)["choices"][0]["logprobs"]["content"][0]["top_logprobs"].empty());
}

TEST_F(ChatTest, PassesOnWhatTheTemplateRefuses) {
  Json request = body(5);
  request["messages"][0]["role"] = "forbidden";
  const HttpAnswer answer = ask("/v1/chat/completions", request);
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.json()["error"]["message"].get<std::string>(), HasSubstr("no such role"));
  EXPECT_EQ(answer.json()["error"]["param"], "messages");
}

TEST_F(ChatTest, RefusesModelsWithoutATemplate) {
  model_.text.chat_template.reset();
  const HttpAnswer answer = ask("/v1/chat/completions", body(5));
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.body, HasSubstr("has no chat template"));
}

}  // namespace
}  // namespace quire::test
