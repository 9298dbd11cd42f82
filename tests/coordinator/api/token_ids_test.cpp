// Ids beside the text (return_token_ids), and ids alone: a server without a tokenizer.
#include <gmock/gmock.h>

#include "tests/coordinator/api/openai_fixture.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;

class TokenIdsTest : public OpenAiTest {
 protected:
  static Json body(const Json& prompt, int max_tokens) {
    return {{"prompt", prompt}, {"max_tokens", max_tokens}, {"seed", kSeed}};
  }
  static Json with_ids(Json request) {
    request["return_token_ids"] = true;
    return request;
  }
  // From now on the served model has no texts; `words` keeps what the oracle needs.
  void lose_the_tokenizer() {
    words_ = std::move(model_.text.tokenizer);
    model_.text.tokenizer = make_id_tokenizer(model_.spec.vocab);
    model_.text.chat_template.reset();
    model_.max_prompt_bytes = 0;
  }
  std::vector<TokenId> expected(const std::string& prompt, int count) {
    std::vector<TokenId> tokens = words_->encode(prompt, false, false).value(), out;
    for (int i = 0; i < count; ++i) {
      out.push_back(HashModel{}.next(tokens, kSeed, 0));
      tokens.push_back(out.back());
    }
    return out;
  }
  void expect_refused(const std::string& path, const Json& request, const std::string& says) {
    const HttpAnswer answer = ask(path, request);
    EXPECT_EQ(answer.status, 400) << answer.body;
    EXPECT_THAT(answer.body, HasSubstr(says));
  }
  std::unique_ptr<Tokenizer> words_;
};

TEST_F(TokenIdsTest, AreAbsentUnlessAskedFor) {
  const Json choice = complete(body("hello", 5))["choices"][0];
  EXPECT_FALSE(choice.contains("token_ids"));
  EXPECT_FALSE(choice.contains("prompt_token_ids"));
}

TEST_F(TokenIdsTest, ComeBesideTheTextOfEachPrompt) {
  const Json json = complete(with_ids(body(Json::array({"hello", "world"}), 9)));
  const char* prompts[] = {"hello", "world"};
  for (std::size_t i = 0; i < 2; ++i) {
    const Json& choice = json["choices"][i];
    EXPECT_EQ(choice["token_ids"], Json(oracle(prompts[i], 9)));
    EXPECT_EQ(choice["prompt_token_ids"], Json(encode(prompts[i])));
    EXPECT_EQ(choice["text"], oracle_text(prompts[i], 9));
  }
}

TEST_F(TokenIdsTest, StreamInPiecesThatJoinToTheWhole) {
  std::vector<TokenId> tokens;
  bool first = true;
  for (const Json& event : stream("/v1/completions", with_ids(body("hello", 40)))) {
    const Json& choice = event["choices"][0];
    for (const Json& id : choice["token_ids"]) tokens.push_back(id);
    EXPECT_EQ(choice.contains("prompt_token_ids"), first);
    first = false;
  }
  EXPECT_EQ(tokens, oracle("hello", 40));
}

TEST_F(TokenIdsTest, OfAChatNameItsPromptOnce) {
  const Json request = with_ids(
      {{"messages", {{{"role", "user"}, {"content", "hi"}}}}, {"max_tokens", 6}, {"seed", kSeed}});
  const Json json = chat(request);
  EXPECT_EQ(json["prompt_token_ids"], Json(encode("userhiQ")));
  EXPECT_EQ(json["choices"][0]["token_ids"], Json(oracle("userhiQ", 6)));
  const std::vector<Json> events = stream("/v1/chat/completions", request);
  EXPECT_EQ(events[0]["prompt_token_ids"], json["prompt_token_ids"]);
  EXPECT_FALSE(events.back().contains("prompt_token_ids"));
}

TEST_F(TokenIdsTest, AreAllThereIsWithoutATokenizer) {
  const std::vector<TokenId> prompt = encode("hello");
  lose_the_tokenizer();
  Json request = body(prompt, 12);
  request["logprobs"] = 1;
  const Json choice = complete(request)["choices"][0];
  EXPECT_EQ(choice["text"], "");
  EXPECT_EQ(choice["token_ids"], Json(expected("hello", 12)));
  EXPECT_EQ(choice["finish_reason"], "length");
  const std::string name = "token_id:" + choice["token_ids"][0].dump();
  EXPECT_EQ(choice["logprobs"]["tokens"][0], name);
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][0].size(), 2u);

  std::vector<TokenId> tokens;
  for (const Json& event : stream("/v1/completions", body(prompt, 12))) {
    EXPECT_EQ(event["choices"][0]["text"], "");
    for (const Json& id : event["choices"][0]["token_ids"]) tokens.push_back(id);
  }
  EXPECT_EQ(tokens, expected("hello", 12));
}

TEST_F(TokenIdsTest, TextIsRefusedWithoutATokenizer) {
  lose_the_tokenizer();
  expect_refused("/v1/completions", body("hello", 4), "send token ids");
  expect_refused("/v1/chat/completions",
                 {{"messages", {{{"role", "user"}, {"content", "hi"}}}}, {"max_tokens", 4}},
                 "--skip-tokenizer-init");
  Json stop = body({1, 2, 3}, 4);
  stop["stop"] = "x";
  expect_refused("/v1/completions", stop, "`stop` cannot be used");
}

}  // namespace
}  // namespace quire::test
