// How requests wait and end over HTTP: deadlines, full queues, tenants, the best of several.
#include <gmock/gmock.h>

#include "absl/strings/numbers.h"
#include "tests/coordinator/api/openai_fixture.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class QueueTest : public OpenAiTest {
 protected:
  static Json body(const std::string& prompt, int max_tokens) {
    return {{"prompt", prompt}, {"max_tokens", max_tokens}, {"seed", kSeed}};
  }
};

TEST_F(QueueTest, ADeadlineEndsAnAnswerWithWhatItHas) {
  start({.step = absl::Milliseconds(5)});
  for (const char* field : {"timeout", "deadline_ms"}) {
    Json request = body("hello", 2000);
    request[field] = field == std::string("timeout") ? Json(0.7) : Json(700);
    request["n"] = 2;
    const Json json = complete(request);
    int tokens = 0;
    for (std::size_t i = 0; i < 2; ++i) {
      const Json& choice = json["choices"][i];
      EXPECT_EQ(choice["finish_reason"], "deadline");
      EXPECT_TRUE(choice["stop_reason"].is_null());
      const std::string text = choice["text"];
      EXPECT_FALSE(text.empty());
      EXPECT_THAT(oracle_text("hello", 2000, static_cast<int>(i)), StartsWith(text));
    }
    tokens = json["usage"]["completion_tokens"];
    EXPECT_GT(tokens, 1);
    EXPECT_LT(tokens, 1000);

    std::string streamed, finish;
    request["n"] = 1;
    for (const Json& event : stream("/v1/completions", request)) {
      const Json& choice = event["choices"][0];
      EXPECT_EQ(finish, "");
      streamed += choice["text"];
      if (!choice["finish_reason"].is_null()) finish = choice["finish_reason"];
    }
    EXPECT_EQ(finish, "deadline");
    EXPECT_FALSE(streamed.empty());
    EXPECT_THAT(oracle_text("hello", 2000), StartsWith(streamed));
  }
  EXPECT_TRUE(wait_idle());
}

TEST_F(QueueTest, ADeadlineThatLeavesNothingIsAnError) {
  group_->hang();  // no token ever comes
  for (const bool streamed : {false, true}) {
    Json request = body("hello", 20);
    request["prompt"] = Json::array({"hello", "world"});
    request["n"] = 2;
    request["deadline_ms"] = 50;
    request["stream"] = streamed;
    const HttpAnswer answer = ask("/v1/completions", request);
    EXPECT_EQ(answer.status, 504) << answer.body;
    const Json error = answer.json()["error"];
    EXPECT_EQ(error["code"], "deadline_exceeded");
    EXPECT_EQ(error["type"], "server_error");
  }
}

TEST_F(QueueTest, AFullQueueSaysWhenToComeAgain) {
  start({.max_num_seqs = 1, .max_num_queued_reqs = 2});
  group_->hang();
  std::vector<HttpClient> clients;
  for (int i = 0; i < 3; ++i) {  // one runs, two wait
    clients.emplace_back(port());
    ASSERT_TRUE(clients.back().send(post("/v1/completions", body("hello", 5 + i).dump())));
    ASSERT_TRUE(
        wait_until([&] { return engine_->stats().running + engine_->stats().waiting == i + 1; }));
  }
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    Json request = body("more", 5);
    request["messages"] = {{{"role", "user"}, {"content", "more"}}};
    HttpAnswer answer = ask(path, request);
    EXPECT_EQ(answer.status, 503) << answer.body;
    int seconds = 0;
    ASSERT_TRUE(absl::SimpleAtoi(answer.headers["retry-after"], &seconds));
    EXPECT_GE(seconds, 1);
    EXPECT_LE(seconds, 600);
    const Json error = answer.json()["error"];
    EXPECT_EQ(error["code"], "queue_full");
    EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("2 requests wait, and at most 2"));
  }
  EXPECT_THAT(fetch(port(), get("/metrics")).body, HasSubstr("reason=\"max_num_queued_reqs\"} 2"));
  group_->kill();  // a new group serves all that was let in
  for (int i = 0; i < 3; ++i) {
    const HttpAnswer answer = clients[static_cast<std::size_t>(i)].read_answer();
    EXPECT_EQ(answer.json()["choices"][0]["text"], oracle_text("hello", 5 + i));
  }
}

TEST_F(QueueTest, AllPromptsOfARequestAreLetInOrNone) {
  start({.max_num_seqs = 1, .max_num_queued_reqs = 2});
  Json request = body("", 5);
  // Far more than could have been answered while the others were let in.
  request["prompt"] = std::vector<std::string>(200, "a");
  EXPECT_EQ(ask("/v1/completions", request).status, 503);
  EXPECT_TRUE(wait_idle());
  EXPECT_EQ(complete(body("hello", 5))["choices"][0]["text"], oracle_text("hello", 5));
}

TEST_F(QueueTest, EveryTenantHasItsKey) {
  start({.tenants = {{"a", "key-a", 1.0}, {"b", "key-b", 3.0}}});
  const auto status = [this](const std::string& key) {
    return ask("/v1/completions", body("hello", 3), "Authorization: Bearer " + key + "\r\n").status;
  };
  EXPECT_EQ(status("key-a"), 200);
  EXPECT_EQ(status("key-b"), 200);
  EXPECT_EQ(status("key-c"), 401);
  EXPECT_EQ(status("key-"), 401);
  EXPECT_EQ(fetch(port(), get("/v1/models")).status, 401);
  EXPECT_EQ(fetch(port(), get("/health")).status, 200);
}

// Nobody learns by the time to a first token, or by the count of cached ones, what another asked.
TEST_F(QueueTest, ATenantNeverHitsAnothersPrefix) {
  start({.tenants = {{"a", "key-a", 1.0}, {"b", "key-b", 1.0}}});
  const auto cached = [this](const std::string& key, const std::string& salt) {
    Json request = body(std::string(200, 'p'), 2);
    if (!salt.empty()) request["cache_salt"] = salt;
    const HttpAnswer answer =
        ask("/v1/completions", request, "Authorization: Bearer " + key + "\r\n");
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_TRUE(wait_idle());
    return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
  };
  EXPECT_EQ(cached("key-a", ""), 0);
  EXPECT_GT(cached("key-a", ""), 100);
  EXPECT_EQ(cached("key-b", ""), 0);
  EXPECT_EQ(cached("key-a", "of my own"), 0);
  EXPECT_EQ(cached("key-b", "1:a:"), 0) << "a salt that looks like the other's scope";
  EXPECT_GT(cached("key-b", ""), 100);
}

// A key that floods is turned away; another key's request is served meanwhile.
TEST_F(QueueTest, ATenantMayHaveSoManyRequests) {
  start({.tenants = {{"flood", "key-a", 1.0, /*max_requests=*/3}, {"calm", "key-b", 1.0}}});
  const std::string a = "Authorization: Bearer key-a\r\n", b = "Authorization: Bearer key-b\r\n";
  const std::string json = "Content-Type: application/json\r\n";
  group_->hang();
  std::vector<HttpClient> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back(port());
    ASSERT_TRUE(clients.back().send(post("/v1/completions", body("hello", 5).dump(), json + a)));
    ASSERT_TRUE(
        wait_until([&] { return engine_->stats().running + engine_->stats().waiting == i + 1; }));
  }
  for (int i = 0; i < 20; ++i) {
    HttpAnswer answer = ask("/v1/completions", body("more", 5), a);
    ASSERT_EQ(answer.status, 429) << answer.body;
    int seconds = 0;
    EXPECT_TRUE(absl::SimpleAtoi(answer.headers["retry-after"], &seconds));
    EXPECT_GE(seconds, 1);
    const Json error = answer.json()["error"];
    EXPECT_EQ(error["code"], "rate_limited");
    EXPECT_EQ(error["type"], "rate_limit_error");
    EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("at most 3"));
  }
  EXPECT_THAT(fetch(port(), get("/metrics")).body, HasSubstr("reason=\"tenant\"} 20"));
  HttpClient calm(port());
  ASSERT_TRUE(calm.send(post("/v1/completions", body("calm", 5).dump(), json + b)));
  ASSERT_TRUE(wait_until([&] { return engine_->stats().running + engine_->stats().waiting == 4; }));
  group_->kill();  // a new group serves all that was let in
  EXPECT_EQ(calm.read_answer().json()["choices"][0]["text"], oracle_text("calm", 5));
  for (HttpClient& client : clients) EXPECT_EQ(client.read_answer().status, 200);
  // Whoever has its answer may come again at once, also when a stop string was its end.
  for (int i = 0; i < 50; ++i) {
    Json request = body("hello", 5);
    if (i % 2 == 1) request["stop"] = oracle_text("hello", 5).substr(0, 1);
    request["n"] = 1 + i % 3;
    ASSERT_EQ(ask("/v1/completions", request, a).status, 200) << i;
  }
  Json list = body("", 5);
  list["prompt"] = std::vector<std::string>(4, "a");
  EXPECT_EQ(ask("/v1/completions", list, a).status, 429) << "four requests, and none is kept";
  list["prompt"] = std::vector<std::string>(3, "a");
  EXPECT_TRUE(wait_idle());
  EXPECT_EQ(ask("/v1/completions", list, a).status, 200);
}

TEST_F(QueueTest, ATenantMayLetSoManyTokensWait) {
  start({.tenants = {{"a", "key-a", 1.0, 0, /*max_waiting_tokens=*/20}, {"b", "key-b", 1.0}}});
  const std::string a = "Authorization: Bearer key-a\r\n";
  const std::string json = "Content-Type: application/json\r\n";
  group_->hang();
  HttpClient long_one(port());  // longer than the limit, but alone
  ASSERT_TRUE(
      long_one.send(post("/v1/completions", body(std::string(30, 'x'), 5).dump(), json + a)));
  ASSERT_TRUE(wait_until([&] { return engine_->stats().running == 1; }));
  const HttpAnswer refused = ask("/v1/completions", body("hello", 5), a);
  EXPECT_EQ(refused.status, 429);
  EXPECT_THAT(refused.json()["error"]["message"].get<std::string>(),
              HasSubstr("Prompts of 30 tokens of this key wait, and with the 5 of this one"));
  group_->kill();
  EXPECT_EQ(long_one.read_answer().status, 200);
  EXPECT_EQ(ask("/v1/completions", body("hello", 5), a).status, 200);
}

TEST_F(QueueTest, PriorityIsTakenWhereThePolicyIs) {
  start({.policy = "priority"});
  Json request = body("hello", 5);
  request["priority"] = -3;
  request["cache_salt"] = "mine";
  EXPECT_EQ(complete(request)["choices"][0]["text"], oracle_text("hello", 5));
}

// The hash model's logprobs fall with the position: the shortest choices have the best means.
TEST_F(QueueTest, BestOfReturnsTheLikeliest) {
  constexpr int kMade = 7, kLength = 60;
  const TokenId stop = 9;
  std::vector<std::pair<int, int>> lengths;  // tokens, choice
  for (int i = 0; i < kMade; ++i) {
    const std::vector<TokenId> tokens = oracle("hello", kLength, i);
    const auto at = std::find(tokens.begin(), tokens.end(), stop);
    const auto length = std::min<std::ptrdiff_t>(at - tokens.begin() + 1, kLength);
    lengths.emplace_back(static_cast<int>(length), i);
  }
  int made = 0;
  for (const auto& [length, choice] : lengths) made += length;
  std::stable_sort(lengths.begin(), lengths.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  ASSERT_NE(lengths[0].first, lengths[1].first) << "another stop token is needed";
  ASSERT_FALSE(lengths[0].second == 0 && lengths[1].second == 1) << "nothing would be shown";

  for (const bool with_logprobs : {false, true}) {
    Json request = body("hello", kLength);
    request["stop_token_ids"] = {stop};
    request["n"] = 2;
    request["best_of"] = kMade;
    request["return_token_ids"] = true;
    if (with_logprobs) request["logprobs"] = 1;
    const Json json = complete(request);
    ASSERT_EQ(json["choices"].size(), 2u);
    for (std::size_t i = 0; i < 2; ++i) {
      const auto [length, choice] = lengths[i];
      const Json& got = json["choices"][i];
      EXPECT_EQ(got["index"], i);
      EXPECT_EQ(got["token_ids"], Json(oracle("hello", length, choice)));
      EXPECT_EQ(got["prompt_token_ids"], Json(encode("hello")));
      EXPECT_EQ(got["logprobs"].is_null(), !with_logprobs);
    }
    EXPECT_EQ(json["usage"]["completion_tokens"], made);
  }
}

TEST_F(QueueTest, BestOfIsOfEachPrompt) {
  Json request = {
      {"prompt", {"hello", "world"}}, {"max_tokens", 8}, {"seed", kSeed}, {"best_of", 3}, {"n", 1},
      {"return_token_ids", true}};
  const Json json = complete(request);
  ASSERT_EQ(json["choices"].size(), 2u);
  const char* prompts[] = {"hello", "world"};
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(json["choices"][i]["index"], i);
    EXPECT_EQ(json["choices"][i]["text"], oracle_text(prompts[i], 8));  // equal means: the first
    EXPECT_EQ(json["choices"][i]["prompt_token_ids"], Json(encode(prompts[i])));
  }
}

}  // namespace
}  // namespace quire::test
