// POST /v1/completions: whole answers and streams against the oracle.
#include <gmock/gmock.h>

#include "tests/coordinator/api/openai_fixture.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class CompletionsTest : public OpenAiTest {
 protected:
  static Json body(const std::string& prompt, int max_tokens) {
    return {{"prompt", prompt}, {"max_tokens", max_tokens}, {"seed", kSeed}};
  }
};

TEST_F(CompletionsTest, AnswersAsOpenAiDoes) {
  HttpAnswer answer = ask("/v1/completions", body("hello", 30), "X-Request-Id: abc\r\n");
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.headers["content-type"], "application/json");
  EXPECT_EQ(answer.headers["x-request-id"], "abc");
  const Json json = answer.json();
  EXPECT_EQ(json["id"], "cmpl-abc");
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_EQ(json["model"], "letters");
  EXPECT_GT(json["created"].get<std::int64_t>(), 1700000000);
  ASSERT_EQ(json["choices"].size(), 1u);
  const Json& choice = json["choices"][0];
  EXPECT_EQ(choice["index"], 0);
  EXPECT_EQ(choice["text"], oracle_text("hello", 30));
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_TRUE(choice["stop_reason"].is_null());
  EXPECT_TRUE(choice["logprobs"].is_null());
  EXPECT_EQ(json["usage"], usage(5, 30));
}

TEST_F(CompletionsTest, HasOpenAisDefaults) {
  const Json json = complete({{"prompt", "abc"}, {"model", "letters"}});
  EXPECT_EQ(json["usage"]["completion_tokens"], 16);  // max_tokens
  // Close to the end of the context the default shrinks instead of failing.
  const Json long_one = complete({{"prompt", std::string(2040, 'a')}});
  EXPECT_EQ(long_one["usage"]["completion_tokens"], 8);
}

TEST_F(CompletionsTest, StreamsTheSameText) {
  const std::vector<Json> events = stream("/v1/completions", body("hello", 50));
  ASSERT_GT(events.size(), 3u);
  std::string text;
  for (const Json& event : events) {
    EXPECT_EQ(event["id"], events[0]["id"]);
    EXPECT_THAT(event["id"].get<std::string>(), StartsWith("cmpl-"));
    EXPECT_EQ(event["object"], "text_completion");
    ASSERT_EQ(event["choices"].size(), 1u);
    EXPECT_FALSE(event.contains("usage"));
    text += event["choices"][0]["text"];
    const bool last = &event == &events.back();
    EXPECT_EQ(event["choices"][0]["finish_reason"], last ? Json("length") : Json(nullptr));
  }
  EXPECT_EQ(text, oracle_text("hello", 50));
}

TEST_F(CompletionsTest, StreamsUsageWhenAsked) {
  Json request = body("hello", 20);
  request["stream_options"] = {{"include_usage", true}, {"continuous_usage_stats", true}};
  const std::vector<Json> events = stream("/v1/completions", request);
  ASSERT_GT(events.size(), 2u);
  EXPECT_TRUE(events.back()["choices"].empty());
  EXPECT_EQ(events.back()["usage"], usage(5, 20));
  int seen = 0;
  for (std::size_t i = 0; i + 1 < events.size(); ++i) {
    const int now = events[i]["usage"]["completion_tokens"];
    EXPECT_GT(now, seen);
    seen = now;
  }
  EXPECT_EQ(seen, 20);
}

TEST_F(CompletionsTest, TakesPromptsInEveryForm) {
  const std::vector<TokenId> hello = encode("hello"), world = encode("world");
  const std::pair<Json, std::vector<std::string>> cases[] = {
      {"hello", {"hello"}},
      {Json::array({"hello", "world"}), {"hello", "world"}},
      {hello, {"hello"}},
      {Json::array({hello, world}), {"hello", "world"}},
      {Json::array({"hello", world}), {"hello", "world"}},
  };
  for (const auto& [prompt, texts] : cases) {
    Json request = {{"prompt", prompt}, {"max_tokens", 12}, {"seed", kSeed}, {"n", 2}};
    const Json json = complete(request);
    ASSERT_EQ(json["choices"].size(), texts.size() * 2) << prompt;
    for (std::size_t i = 0; i < json["choices"].size(); ++i) {
      EXPECT_EQ(json["choices"][i]["index"], i);
      EXPECT_EQ(json["choices"][i]["text"], oracle_text(texts[i / 2], 12, static_cast<int>(i % 2)));
    }
    EXPECT_EQ(json["usage"]["prompt_tokens"], 5 * texts.size());
    EXPECT_EQ(json["usage"]["completion_tokens"], 24 * texts.size());
  }
}

TEST_F(CompletionsTest, StreamsManyChoicesEachInOrder) {
  Json request = {{"prompt", {"hello", "world"}}, {"max_tokens", 25}, {"seed", kSeed}, {"n", 3}};
  std::vector<std::string> texts(6), finish(6);
  for (const Json& event : stream("/v1/completions", request)) {
    const Json& choice = event["choices"][0];
    const std::size_t index = choice["index"];
    ASSERT_LT(index, 6u);
    EXPECT_EQ(finish[index], "") << "a chunk after the finish";
    texts[index] += choice["text"];
    if (!choice["finish_reason"].is_null()) finish[index] = choice["finish_reason"];
  }
  for (int i = 0; i < 6; ++i) {
    const auto index = static_cast<std::size_t>(i);
    EXPECT_EQ(texts[index], oracle_text(i < 3 ? "hello" : "world", 25, i % 3));
    EXPECT_EQ(finish[index], "length");
  }
}

// The first place where three letters stand together, so that a stop string exists.
std::string three_letters(const std::string& text) {
  for (std::size_t i = 8; i + 3 <= text.size(); ++i) {
    bool letters = true;
    for (std::size_t j = i; j < i + 3; ++j) letters = letters && std::isalnum(text[j]) != 0;
    if (letters) return text.substr(i, 3);
  }
  return "";
}

TEST_F(CompletionsTest, StopsAtStopStrings) {
  const std::string whole = oracle_text("hello", 60);
  const std::string stop = three_letters(whole);
  ASSERT_FALSE(stop.empty()) << whole;
  const std::string before = whole.substr(0, whole.find(stop));
  for (const bool include : {false, true}) {
    Json request = body("hello", 60);
    request["stop"] = Json::array({"neverthere", stop});
    request["include_stop_str_in_output"] = include;
    const Json json = complete(request);
    EXPECT_EQ(json["choices"][0]["text"], before + (include ? stop : ""));
    EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(json["choices"][0]["stop_reason"], stop);
    EXPECT_LT(json["usage"]["completion_tokens"], 60);
    std::string streamed;
    for (const Json& event : stream("/v1/completions", request)) {
      streamed += event["choices"][0]["text"];
    }
    EXPECT_EQ(streamed, before + (include ? stop : ""));
  }
  EXPECT_TRUE(wait_idle());
}

TEST_F(CompletionsTest, StopsAtTokenIdsAndEos) {
  const std::vector<TokenId> tokens = oracle("hello", 40);
  const TokenId stop = tokens[20];
  const auto first = std::find(tokens.begin(), tokens.end(), stop) - tokens.begin();
  const std::string before = decode({tokens.begin(), tokens.begin() + first});
  Json request = body("hello", 40);
  request["stop_token_ids"] = Json::array({stop});
  Json json = complete(request);
  EXPECT_EQ(json["choices"][0]["text"], before);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json["choices"][0]["stop_reason"], stop);
  EXPECT_EQ(json["usage"]["completion_tokens"], first + 1);

  start({.eos = {stop}});
  json = complete(body("hello", 40));
  EXPECT_EQ(json["choices"][0]["text"], before);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(json["choices"][0]["stop_reason"].is_null());
  request = body("hello", 40);
  request["ignore_eos"] = true;
  json = complete(request);
  EXPECT_EQ(json["choices"][0]["text"], decode(tokens));
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
}

TEST_F(CompletionsTest, GivesLogprobs) {
  Json request = body("hello", 10);
  request["logprobs"] = 2;
  const Json json = complete(request);
  const Json& logprobs = json["choices"][0]["logprobs"];
  const std::vector<TokenId> tokens = oracle("hello", 10);
  ASSERT_EQ(logprobs["tokens"].size(), 10u);
  int offset = 0;
  for (std::size_t i = 0; i < 10; ++i) {
    const std::string name = logprobs["tokens"][i];
    if (tokens[i] != LetterTokenizer::kHalf) {
      EXPECT_EQ(name, model_.text.tokenizer->name_of(tokens[i]));
    }
    EXPECT_EQ(logprobs["text_offset"][i], offset);
    offset += tokens[i] == LetterTokenizer::kSpecial ? 7 : 1;
    EXPECT_LE(logprobs["token_logprobs"][i].get<double>(), 0.0);
    EXPECT_TRUE(logprobs["top_logprobs"][i].contains(name));
    EXPECT_GE(logprobs["top_logprobs"][i].size(), 2u);
  }
  Json streamed = Json::array();
  for (const Json& event : stream("/v1/completions", request)) {
    const Json& part = event["choices"][0]["logprobs"];
    if (part.is_null()) continue;
    for (const Json& offset_here : part["text_offset"]) streamed.push_back(offset_here);
  }
  EXPECT_EQ(streamed, logprobs["text_offset"]);
}

TEST_F(CompletionsTest, AcceptsWhatBenchmarksSend) {
  // vllm bench serve's body, and OpenAI's neutral values.
  const Json json = complete({{"model", "letters"},
                              {"prompt", "hello"},
                              {"repetition_penalty", 1.0},
                              {"max_tokens", 5},
                              {"logprobs", nullptr},
                              {"stream", false},
                              {"ignore_eos", true},
                              {"presence_penalty", 0},
                              {"frequency_penalty", 0.0},
                              {"logit_bias", Json::object()},
                              {"best_of", 1},
                              {"echo", false},
                              {"suffix", nullptr},
                              {"user", "me"},
                              {"some_unknown_field", {1, 2}},
                              {"temperature", 0},
                              {"top_k", -1},
                              {"top_p", 1},
                              {"min_p", 0},
                              {"n", 1.0},
                              {"stop", nullptr}});
  EXPECT_EQ(json["usage"]["completion_tokens"], 5);
}

TEST_F(CompletionsTest, AcceptsWhatChangesLogits) {
  const Json json = complete({{"prompt", "hello"},
                              {"repetition_penalty", 1.1},
                              {"presence_penalty", -2},
                              {"frequency_penalty", 0.5},
                              {"logit_bias", {{"5", -100}, {"63", 1.5}}},
                              {"min_tokens", 5},
                              {"allowed_token_ids", {1, 2, 3}},
                              {"max_tokens", 5}});
  EXPECT_EQ(json["usage"]["completion_tokens"], 5);
}

}  // namespace
}  // namespace quire::test
