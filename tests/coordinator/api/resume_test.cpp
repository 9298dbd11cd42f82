// Answers whose connection broke, and answers that a crash of the coordinator interrupted: whoever
// comes back gets the rest exactly once.
#include <gmock/gmock.h>

#include <filesystem>

#include "tests/coordinator/api/openai_fixture.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

// What a client has put together from events.
struct Seen {
  std::vector<std::string> text = std::vector<std::string>(4);
  std::vector<std::vector<TokenId>> tokens = std::vector<std::vector<TokenId>>(4);
  std::vector<std::string> finish = std::vector<std::string>(4);
  std::string object_id, last_id;
  Json usage;
  int num_roles = 0;
  bool done = false;

  void take(const std::string& data, const std::string& id) {
    if (!id.empty()) last_id = id;
    if (data == "[DONE]") {
      done = true;
      return;
    }
    const Json event = Json::parse(data);
    ASSERT_FALSE(event.contains("error")) << data;
    object_id = event["id"];
    if (event.contains("usage") && !event["usage"].is_null()) usage = event["usage"];
    for (const Json& choice : event["choices"]) {
      const auto i = choice["index"].get<std::size_t>();
      EXPECT_EQ(finish[i], "") << "a chunk after the finish";
      if (choice.contains("delta")) {
        text[i] += choice["delta"]["content"];
        num_roles += choice["delta"].contains("role") ? 1 : 0;
      } else {
        text[i] += choice["text"];
      }
      if (choice.contains("token_ids")) {
        for (const Json& token : choice["token_ids"]) tokens[i].push_back(token);
      }
      if (!choice["finish_reason"].is_null()) finish[i] = choice["finish_reason"];
    }
  }
};

class ResumeTest : public OpenAiTest {
 protected:
  void SetUp() override {
    std::string folder = (std::filesystem::temp_directory_path() / "quire-resume-XXXXXX").string();
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    options_.journal = (folder_ / "journal.sqlite").string();
    options_.step = absl::Milliseconds(2);
    start(options_);
  }
  void TearDown() override {
    stop();
    std::filesystem::remove_all(folder_);
  }

  static Json body(int max_tokens, int n = 1) {
    return {{"prompt", "abc"},
            {"max_tokens", max_tokens},
            {"seed", kSeed},
            {"stream", true},
            {"n", n},
            {"ignore_eos", true},
            {"return_token_ids", true},
            {"stream_options", {{"include_usage", true}}}};
  }
  // Opens a stream and reads events until `enough`.
  template <typename Enough>
  void read(const std::string& request, Seen* seen, const Enough& enough) {
    client_ = std::make_unique<HttpClient>(port());
    client_->send(request);
    const HttpAnswer head = client_->read_head();
    ASSERT_EQ(head.status, 200);
    while (!seen->done && !enough(*seen)) {
      std::string id;
      const auto event = client_->read_event(&id);
      ASSERT_TRUE(event.has_value());
      seen->take(*event, id);
    }
  }
  void read_all(const std::string& request, Seen* seen) {
    read(request, seen, [](const Seen&) { return false; });
  }
  static std::string completion(const Json& body, const std::string& headers = "") {
    return post("/v1/completions", body.dump(), "Content-Type: application/json\r\n" + headers);
  }
  static std::string rest_of(const std::string& last_id) {
    return get("/v1/streams/" + last_id.substr(0, last_id.rfind(':')),
               "Last-Event-ID: " + last_id + "\r\n");
  }
  void expect_whole(const Seen& seen, int max_tokens, int n = 1) {
    for (int i = 0; i < n; ++i) {
      const auto at = static_cast<std::size_t>(i);
      EXPECT_EQ(seen.tokens[at], oracle("abc", max_tokens, i)) << "choice " << i;
      EXPECT_EQ(seen.text[at], oracle_text("abc", max_tokens, i)) << "choice " << i;
      EXPECT_EQ(seen.finish[at], "length");
    }
    EXPECT_TRUE(seen.done);
    EXPECT_EQ(seen.usage["completion_tokens"], n * max_tokens);
  }

  // As after kill -9: what the file says at this moment is all that is left.
  void crash() {
    const std::string left = (folder_ / ("life-" + std::to_string(++lives_))).string();
    for (const char* suffix : {"", "-wal"}) {
      if (std::filesystem::exists(options_.journal + suffix)) {
        std::filesystem::copy_file(options_.journal + suffix, left + suffix);
      }
    }
    options_.journal = left;
    start(options_);
  }

  std::filesystem::path folder_;
  Options options_;
  std::unique_ptr<HttpClient> client_;
  int lives_ = 0;
};

TEST_F(ResumeTest, AStreamGoesOnAfterACrashExactlyOnce) {
  Seen seen;
  read(completion(body(300, 2)), &seen,
       [](const Seen& s) { return s.tokens[0].size() > 40 && s.tokens[1].size() > 40; });
  ASSERT_FALSE(seen.done);
  crash();
  EXPECT_EQ(num_resumed_, 1);
  read(rest_of(seen.last_id), &seen, [](const Seen& s) { return s.tokens[0].size() > 150; });
  crash();
  read_all(rest_of(seen.last_id), &seen);
  expect_whole(seen, 300, 2);
}

TEST_F(ResumeTest, AChatGoesOnWithTheSameIdAndOneRole) {
  const Json chat = {{"messages", {{{"role", "user"}, {"content", "hello"}}}},
                     {"max_tokens", 200},
                     {"seed", kSeed},
                     {"ignore_eos", true},
                     {"stream", true}};
  const std::string request =
      post("/v1/chat/completions", chat.dump(), "Content-Type: application/json\r\n");
  Seen seen;
  read(request, &seen, [](const Seen& s) { return s.text[0].size() > 30; });
  const std::string id = seen.object_id;
  crash();
  read_all(rest_of(seen.last_id), &seen);
  EXPECT_EQ(seen.text[0], oracle_text("userhelloQ", 200));
  EXPECT_EQ(seen.object_id, id);
  EXPECT_EQ(seen.num_roles, 1);
}

TEST_F(ResumeTest, WithoutLastEventIdItComesFromTheBeginning) {
  Seen first;
  read(completion(body(100)), &first, [](const Seen& s) { return s.tokens[0].size() > 10; });
  crash();
  Seen again;
  read_all(get("/v1/streams/" + first.object_id), &again);
  expect_whole(again, 100);
}

TEST_F(ResumeTest, AfterTheLastTokenOnlyTheEndComes) {
  Seen seen;
  read(completion(body(30)), &seen, [](const Seen& s) { return !s.finish[0].empty(); });
  const std::string after_finish = seen.last_id;
  crash();
  EXPECT_EQ(num_resumed_, 0) << "it had ended";
  read_all(rest_of(after_finish), &seen);
  expect_whole(seen, 30);
  Seen end;
  read_all(rest_of(seen.last_id), &end);
  EXPECT_TRUE(end.done);
  EXPECT_TRUE(end.usage.is_null());
}

TEST_F(ResumeTest, LogprobsAndStopStringsAreThoseOfAnUndisturbedRun) {
  const std::string whole = oracle_text("abc", 300);
  Json asked = body(300);
  asked["logprobs"] = 2;
  asked["stop"] = whole.substr(120, 5);
  Seen calm;
  read_all(completion(asked), &calm);
  Seen seen;
  read(completion(asked), &seen, [](const Seen& s) { return s.text[0].size() > 20; });
  crash();
  read_all(rest_of(seen.last_id), &seen);
  EXPECT_EQ(seen.text[0], calm.text[0]);
  EXPECT_EQ(seen.tokens[0], calm.tokens[0]);
  EXPECT_EQ(seen.finish[0], "stop");
  EXPECT_EQ(seen.usage["completion_tokens"], calm.usage["completion_tokens"]);
  EXPECT_TRUE(wait_idle()) << "the engine heard of the stop string, too";
}

TEST_F(ResumeTest, AnIdempotencyKeyKeepsTheAnswerWhileItsClientIsAway) {
  const std::string key = "Idempotency-Key: k1\r\n";
  Seen seen;
  read(completion(body(200), key), &seen, [](const Seen& s) { return s.tokens[0].size() > 10; });
  client_->close();
  read_all(completion(body(200), key + "Last-Event-ID: " + seen.last_id + "\r\n"), &seen);
  expect_whole(seen, 200);
  Seen again;  // what has ended can be fetched once more
  read_all(completion(body(200), key), &again);
  expect_whole(again, 200);
  EXPECT_EQ(engine_->stats().finished_length, 1u) << "one generation";
}

TEST_F(ResumeTest, TheSameKeyAtOnceIsOneGeneration) {
  const std::string key = "Idempotency-Key: k1\r\n";
  Json whole = body(150);
  whole["stream"] = false;
  whole.erase("stream_options");
  HttpClient one(port()), two(port());
  one.send(completion(whole, key));
  two.send(completion(whole, key));
  const HttpAnswer first = one.read_answer(), second = two.read_answer();
  ASSERT_EQ(first.status, 200) << first.body;
  EXPECT_EQ(first.body, second.body);
  EXPECT_EQ(engine_->stats().finished_length, 1u);
}

TEST_F(ResumeTest, AKeySurvivesTheCrash) {
  const std::string key = "Idempotency-Key: k1\r\n";
  Json whole = body(150);
  whole["stream"] = false;
  whole.erase("stream_options");
  {
    HttpClient client(port());
    client.send(completion(whole, key));
    ASSERT_TRUE(wait_until([this] { return engine_->stats().generation_tokens > 20; }));
  }
  crash();
  const HttpAnswer answer = fetch(port(), completion(whole, key));
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.json()["choices"][0]["text"], oracle_text("abc", 150));
  EXPECT_EQ(engine_->stats().finished_length, 1u);
}

TEST_F(ResumeTest, AnotherRequestUnderTheSameKeyIsRefused) {
  const std::string key = "Idempotency-Key: k1\r\n";
  Seen seen;
  read_all(completion(body(5), key), &seen);
  const HttpAnswer other = fetch(port(), completion(body(6), key));
  EXPECT_EQ(other.status, 409);
  EXPECT_EQ(other.json()["error"]["code"], "idempotency_conflict");
}

TEST_F(ResumeTest, WithoutAKeyALeavingClientEndsItsRequest) {
  Seen seen;
  read(completion(body(1500)), &seen, [](const Seen& s) { return s.tokens[0].size() > 5; });
  client_->close();
  EXPECT_TRUE(wait_until([this] { return engine_->stats().finished_abort == 1; }));
  const HttpAnswer gone = fetch(port(), rest_of(seen.last_id));
  EXPECT_EQ(gone.status, 404);
  EXPECT_EQ(gone.json()["error"]["code"], "stream_not_found");
  Seen later;  // what is delivered after the end is written after it
  read_all(completion(body(5), "Idempotency-Key: later\r\n"), &later);
  crash();
  EXPECT_EQ(num_resumed_, 0);
}

TEST_F(ResumeTest, NobodyComingBackEndsItAfterTheGrace) {
  options_.grace = absl::Milliseconds(300);
  Seen seen;
  read(completion(body(1800)), &seen, [](const Seen& s) { return s.tokens[0].size() > 5; });
  crash();
  EXPECT_EQ(num_resumed_, 1);
  EXPECT_TRUE(wait_until([this] { return engine_->stats().finished_abort == 1; }));
  EXPECT_TRUE(wait_idle());
  EXPECT_EQ(fetch(port(), rest_of(seen.last_id)).status, 404);
}

TEST_F(ResumeTest, SearchesBeginAnewAndComeWhole) {
  Json search = body(40);
  search["use_beam_search"] = true;
  search["best_of"] = 3;
  search["temperature"] = 0;
  search.erase("ignore_eos");
  Seen calm;
  read_all(completion(search), &calm);
  HttpClient client(port());
  client.send(completion(search, "Idempotency-Key: beams\r\n"));
  ASSERT_TRUE(wait_until([this] { return engine_->stats().running > 0; }));
  crash();
  Seen seen;
  read_all(completion(search, "Idempotency-Key: beams\r\n"), &seen);
  EXPECT_EQ(seen.tokens[0], calm.tokens[0]);
}

TEST_F(ResumeTest, BadEventIdsAreExplained) {
  Seen seen;
  read_all(completion(body(5), "Idempotency-Key: k\r\n"), &seen);
  const std::string path = "/v1/streams/" + seen.object_id;
  const std::string name = seen.object_id;
  const std::vector<std::string> bad = {"nonsense",    name + ":", name + ":x",     name + ":-1",
                                        name + ":1,2", "other:1",  name + ":99999", name + ":1;u"};
  for (const std::string& id : bad) {
    const HttpAnswer answer = fetch(port(), get(path, "Last-Event-ID: " + id + "\r\n"));
    EXPECT_EQ(answer.status, 400) << id;
    EXPECT_THAT(answer.body, HasSubstr("Last-Event-ID")) << id;
  }
  EXPECT_EQ(fetch(port(), completion(body(5), "Idempotency-Key: " + std::string(300, 'k') + "\r\n"))
                .status,
            400);
}

// Each time it breaks off again before every choice had its turn.
TEST_F(ResumeTest, ManyReconnectionsRepeatNothing) {
  const std::string key = "Idempotency-Key: k\r\n";
  Seen seen;
  read(completion(body(200, 4), key), &seen, [](const Seen& s) { return s.tokens[3].size() > 5; });
  for (int i = 0; i < 20; ++i) {
    client_->close();
    int events = 0;
    read(completion(body(200, 4), key + "Last-Event-ID: " + seen.last_id + "\r\n"), &seen,
         [&events](const Seen&) { return ++events > 1; });
  }
  client_->close();
  read_all(completion(body(200, 4), key + "Last-Event-ID: " + seen.last_id + "\r\n"), &seen);
  expect_whole(seen, 200, 4);
}

TEST_F(ResumeTest, ARestIsNeverANewAnswer) {
  Seen seen;
  read_all(completion(body(5), "Idempotency-Key: k\r\n"), &seen);
  const std::string last = "Last-Event-ID: " + seen.last_id + "\r\n";
  for (const std::string& headers : {last, last + "Idempotency-Key: another\r\n"}) {
    const HttpAnswer answer = fetch(port(), completion(body(5), headers));
    EXPECT_EQ(answer.status, 404);
    EXPECT_EQ(answer.json()["error"]["code"], "stream_not_found");
  }
  EXPECT_EQ(engine_->stats().finished_length, 1u);
}

TEST_F(ResumeTest, NobodyResumesAnotherTenantsAnswer) {
  options_.tenants = {{"ann", "key-a", 1.0}, {"bob", "key-b", 1.0}};
  start(options_);
  const std::string ann = "Authorization: Bearer key-a\r\n",
                    bob = "Authorization: Bearer key-b\r\n";
  Seen seen;
  read_all(completion(body(5), ann + "Idempotency-Key: k\r\n"), &seen);
  EXPECT_EQ(fetch(port(), get("/v1/streams/" + seen.object_id, bob)).status, 404);
  EXPECT_EQ(fetch(port(), get("/v1/streams/" + seen.object_id, ann)).status, 200);
  Seen own;  // the same key means nothing to the other: no conflict
  read_all(completion(body(6), bob + "Idempotency-Key: k\r\n"), &own);
  expect_whole(own, 6);
}

}  // namespace
}  // namespace quire::test
