// What holds for every endpoint: information pages, the key, leaving clients, many streams, the end
// of the server, the death of the workers.
#include <gmock/gmock.h>

#include <future>

#include "absl/strings/str_split.h"
#include "tests/coordinator/api/openai_fixture.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;

class ServerTest : public OpenAiTest {
 protected:
  static Json body(const std::string& prompt, int max_tokens, bool streamed) {
    return {{"prompt", prompt}, {"max_tokens", max_tokens}, {"seed", kSeed}, {"stream", streamed}};
  }
};

TEST_F(ServerTest, ListsItsModelAndVersion) {
  const Json models = fetch(port(), get("/v1/models")).json();
  EXPECT_EQ(models["object"], "list");
  ASSERT_EQ(models["data"].size(), 1u);
  EXPECT_EQ(models["data"][0]["id"], "letters");
  EXPECT_EQ(models["data"][0]["object"], "model");
  EXPECT_EQ(models["data"][0]["max_model_len"], 2048);
  EXPECT_EQ(fetch(port(), get("/version")).json()["version"], QUIRE_VERSION);
}

TEST_F(ServerTest, OneModelById) {
  const Json all = fetch(port(), get("/v1/models")).json();
  const std::string id = all["data"][0]["id"];
  EXPECT_EQ(fetch(port(), get("/v1/models/" + id)).json(), all["data"][0]);
  const HttpAnswer other = fetch(port(), get("/v1/models/gpt-9"));
  EXPECT_EQ(other.status, 404);
  EXPECT_EQ(other.json()["error"]["code"], "model_not_found");
}

TEST_F(ServerTest, IsReadyOnlyWithAGroupAndHealthyAllAlong) {
  start({.attach = false});
  EXPECT_EQ(fetch(port(), get("/health")).status, 200);
  const HttpAnswer starting = fetch(port(), get("/ready"));
  EXPECT_EQ(starting.status, 503);
  EXPECT_EQ(starting.json()["status"], "starting");
  EXPECT_EQ(starting.json()["groups"], 1);
  EXPECT_EQ(starting.json()["groups_ready"], 0);
  HttpAnswer early = ask("/v1/completions", body("hello", 5, false));
  EXPECT_EQ(early.status, 503);
  EXPECT_EQ(early.headers["retry-after"], "1");
  EXPECT_EQ(early.json()["error"]["type"], "server_error");
  attach();
  const HttpAnswer ready = fetch(port(), get("/ready"));
  EXPECT_EQ(ready.status, 200);
  EXPECT_EQ(ready.json()["status"], "ready");
  EXPECT_EQ(ready.json()["groups_ready"], 1);
  EXPECT_EQ(ask("/v1/completions", body("hello", 5, false)).status, 200);
}

TEST_F(ServerTest, RequestsWaitWhileALostGroupIsReplaced) {
  group_->leave();
  ASSERT_TRUE(wait_until([this] { return !engine_->stats().ready; }));
  const HttpAnswer away = fetch(port(), get("/ready"));
  EXPECT_EQ(away.status, 503);
  EXPECT_EQ(away.json()["status"], "recovering");
  std::future<HttpAnswer> answer = std::async(
      std::launch::async, [this] { return ask("/v1/completions", body("hello", 5, false)); });
  EXPECT_EQ(answer.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  attach();
  EXPECT_EQ(answer.get().status, 200);
}

double metric(const std::string& text, const std::string& line_start) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (line.substr(0, line_start.size()) != line_start) continue;
    const std::vector<std::string> parts = absl::StrSplit(line, ' ');
    return std::stod(parts.back());
  }
  ADD_FAILURE() << line_start << " is missing in\n" << text;
  return -1;
}

TEST_F(ServerTest, ExportsMetrics) {
  for (int i = 0; i < 3; ++i) complete(body("hello", 10, false));
  stream("/v1/completions", body("hello", 10, true));
  ASSERT_TRUE(wait_idle());
  HttpAnswer answer = fetch(port(), get("/metrics"));
  EXPECT_THAT(answer.headers["content-type"], HasSubstr("text/plain; version=0.0.4"));
  const std::string& text = answer.body;
  EXPECT_EQ(metric(text, "vllm:num_requests_running{"), 0);
  EXPECT_EQ(metric(text, "vllm:prompt_tokens_total{"), 20);
  EXPECT_EQ(metric(text, "vllm:generation_tokens_total{"), 40);
  EXPECT_EQ(metric(text, "vllm:time_to_first_token_seconds_count{"), 4);
  EXPECT_EQ(metric(text, "vllm:e2e_request_latency_seconds_count{"), 4);
  EXPECT_EQ(metric(text, "vllm:request_generation_tokens_sum{"), 40);
  EXPECT_EQ(metric(text, "quire_ready{"), 1);
  EXPECT_EQ(metric(text, "quire_groups_ready{"), 1);
  EXPECT_EQ(metric(text, "quire_group_ready{"), 1);
  EXPECT_GT(metric(text, "quire_group_steps_total{"), 10);
  EXPECT_THAT(text, HasSubstr("vllm:cache_config_info{"));
  EXPECT_THAT(text, HasSubstr("finished_reason=\"length\"} 4"));
}

TEST_F(ServerTest, ChecksTheKeyOnEverySpellingOfAPath) {
  start({.api_key = "secret"});
  for (const char* path : {"/v1/models", "//v1/models", "/x/../v1/models", "/v1%2fmodels",
                           "/v1/nothing", "/v1", "/v1/models/", "http://h/v1/models"}) {
    EXPECT_EQ(fetch(port(), get(path)).status, 401) << path;
  }
  for (const char* path : {"/health", "/ready", "/version", "/metrics"}) {
    EXPECT_EQ(fetch(port(), get(path)).status, 200) << path;
  }
  EXPECT_EQ(fetch(port(), get("/V1/models")).status, 404);  // another path, and nothing there
  std::string first_body;
  for (const char* header : {"", "Authorization: Bearer \r\n", "Authorization: Bearer secre\r\n",
                             "Authorization: Bearer secretx\r\n", "Authorization: secret\r\n",
                             "Authorization: Bearer secret\r\nAuthorization: Bearer secret\r\n",
                             "Api-Key: secret\r\n"}) {
    HttpAnswer answer = fetch(port(), get("/v1/models", header));
    EXPECT_EQ(answer.status, 401) << header;
    EXPECT_EQ(answer.headers["www-authenticate"], "Bearer");
    if (first_body.empty()) first_body = answer.body;
    EXPECT_EQ(answer.body, first_body);
  }
  EXPECT_EQ(fetch(port(), get("/v1/models?api_key=secret")).status, 401);
  EXPECT_EQ(fetch(port(), get("/v1/models", "Authorization: Bearer secret\r\n")).status, 200);
}

TEST_F(ServerTest, KnowsItsPathsAndMethods) {
  const HttpAnswer missing = fetch(port(), get("/v1/nothing"));
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(missing.json()["error"]["code"], "not_found");
  HttpAnswer wrong = fetch(port(), get("/v1/completions"));
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers["allow"], "POST, OPTIONS");
  EXPECT_EQ(fetch(port(), post("/v1/models", "{}")).status, 405);
  EXPECT_EQ(fetch(port(), "DELETE /v1/models HTTP/1.1\r\nHost: x\r\n\r\n").status, 405);
  HttpAnswer options = fetch(port(), "OPTIONS /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.headers["allow"], "GET, HEAD, OPTIONS");
  EXPECT_EQ(fetch(port(), "HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
}

TEST_F(ServerTest, CancelsWhatItsClientLeaves) {
  start({.step = absl::Milliseconds(1)});
  for (const bool streamed : {true, false}) {
    HttpClient client(port());
    Json request = body("hello", 2000, streamed);
    request["n"] = 3;
    ASSERT_TRUE(client.send(post("/v1/completions", request.dump())));
    ASSERT_TRUE(wait_until([this] { return engine_->stats().running == 3; }));
    if (streamed) {
      EXPECT_EQ(client.read_head().status, 200);
      EXPECT_TRUE(client.read_event().has_value());
    }
    client.close();
    EXPECT_TRUE(wait_idle());
  }
  EXPECT_EQ(engine_->stats().finished_abort, 6u);
  EXPECT_LT(engine_->stats().generation_tokens, 6000u);
}

TEST_F(ServerTest, ServesTwoHundredStreamsAtOnce) {
  constexpr int kStreams = 200;
  std::vector<HttpClient> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.emplace_back(port());
    const Json request = body(absl::StrCat("prompt", i), 10 + i % 17, true);
    ASSERT_TRUE(clients.back().send(post("/v1/completions", request.dump())));
  }
  for (int i = 0; i < kStreams; ++i) {
    HttpClient& client = clients[static_cast<std::size_t>(i)];
    ASSERT_EQ(client.read_head().status, 200);
    std::string text;
    for (const Json& event : read_events(client)) text += event["choices"][0]["text"];
    EXPECT_EQ(text, oracle_text(absl::StrCat("prompt", i), 10 + i % 17));
  }
  EXPECT_TRUE(wait_idle());
}

TEST_F(ServerTest, GoesOnWhenTheWorkersAreReplaced) {
  start({.step = absl::Milliseconds(1)});
  HttpClient client(port());
  ASSERT_TRUE(client.send(post("/v1/completions", body("hello", 100, true).dump())));
  EXPECT_EQ(client.read_head().status, 200);
  std::string text;
  for (int i = 0; i < 3; ++i) {
    const auto event = client.read_event();
    ASSERT_TRUE(event.has_value());
    text += Json::parse(*event)["choices"][0]["text"];
    group_->kill();
  }
  for (const Json& event : read_events(client)) text += event["choices"][0]["text"];
  EXPECT_EQ(text, oracle_text("hello", 100));
  EXPECT_GT(engine_->stats().group_losses, 0u);
}

TEST_F(ServerTest, TellsOpenStreamsThatItStops) {
  start({.step = absl::Milliseconds(1)});
  HttpClient streaming(port()), waiting(port());
  ASSERT_TRUE(streaming.send(post("/v1/completions", body("hello", 2000, true).dump())));
  ASSERT_TRUE(waiting.send(post("/v1/completions", body("hello", 2000, false).dump())));
  EXPECT_EQ(streaming.read_head().status, 200);
  ASSERT_TRUE(wait_until([this] { return engine_->stats().running == 2; }));
  engine_->stop();
  const std::vector<Json> events = read_events(streaming);
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events.back()["error"]["code"], "cancelled");
  EXPECT_EQ(waiting.read_answer().status, 503);
  EXPECT_EQ(ask("/v1/completions", body("hello", 5, false)).status, 503);
}

}  // namespace
}  // namespace quire::test
