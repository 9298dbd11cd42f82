// Beam search and the prefix cache, as clients see them, through the real scheduler.
#include <gmock/gmock.h>

#include "coordinator/schedule/beam_search.h"
#include "tests/coordinator/api/openai_fixture.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;

using Hypothesis = BeamSearch::Hypothesis;

class SearchTest : public OpenAiTest {
 protected:
  static constexpr char kPrompt[] = "hello";

  // The same search by hand, over the hash model.
  std::vector<Hypothesis> search(const BeamParams& params, int n, int max_tokens,
                                 std::vector<TokenId> stops = {}) {
    BeamSearch search(params, std::move(stops), max_tokens);
    std::vector<std::vector<TokenId>> open = {encode(kPrompt)};
    while (true) {
      std::vector<std::vector<TokenLogprob>> best;
      for (const auto& tokens : open) {
        best.push_back(HashModel{}.best(tokens, search.num_candidates()));
      }
      std::vector<BeamCandidates> candidates;
      for (const auto& list : best) candidates.push_back({list});
      const std::vector<BeamSearch::Open>& next = search.step(candidates);
      if (next.empty()) return search.take_best(n);
      std::vector<std::vector<TokenId>> grown;
      for (const BeamSearch::Open& beam : next) {
        grown.push_back(open[static_cast<std::size_t>(beam.parent)]);
        grown.back().push_back(beam.token);
      }
      open = std::move(grown);
    }
  }

  static Json body(int n, int max_tokens) {
    return {{"prompt", kPrompt},
            {"n", n},
            {"max_tokens", max_tokens},
            {"use_beam_search", true},
            {"return_token_ids", true}};
  }
  void expect(const Json& json, const std::vector<Hypothesis>& wanted) {
    ASSERT_EQ(json["choices"].size(), wanted.size());
    int tokens = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const Json& choice = json["choices"][i];
      EXPECT_EQ(choice["index"], i);
      EXPECT_EQ(choice["token_ids"], Json(wanted[i].tokens));
      EXPECT_EQ(choice["finish_reason"], wanted[i].stopped ? "stop" : "length");
      tokens += static_cast<int>(wanted[i].tokens.size());
    }
    EXPECT_EQ(json["usage"]["completion_tokens"], tokens);
  }
};

TEST_F(SearchTest, BeamsComeBestFirst) {
  expect(complete(body(4, 20)), search({.width = 4}, 4, 20));
  EXPECT_TRUE(wait_idle());
}

TEST_F(SearchTest, BestOfIsTheNumberOfBeams) {
  Json request = body(2, 20);
  request["best_of"] = 6;
  const std::vector<Hypothesis> wanted = search({.width = 6}, 2, 20);
  expect(complete(request), wanted);
  const auto narrow = search({.width = 2}, 2, 20);
  EXPECT_NE(wanted[0].tokens, narrow[0].tokens) << "a prompt that shows nothing";
}

TEST_F(SearchTest, PenaltyAndStoppingAreHonoured) {
  const std::vector<TokenId> stops = {3, 17, 40};
  int differ = 0;
  for (const double penalty : {-1.0, 0.0, 1.0, 3.0}) {
    const std::pair<Json, BeamParams::EarlyStopping> stopping[] = {
        {false, BeamParams::EarlyStopping::kNo},
        {true, BeamParams::EarlyStopping::kYes},
        {"never", BeamParams::EarlyStopping::kNever}};
    for (const auto& [field, early] : stopping) {
      Json request = body(3, 24);
      request["length_penalty"] = penalty;
      request["early_stopping"] = field;
      request["stop_token_ids"] = stops;
      const BeamParams params = {.width = 3, .length_penalty = penalty, .early_stopping = early};
      const std::vector<Hypothesis> wanted = search(params, 3, 24, stops);
      expect(complete(request), wanted);
      differ += wanted[0].tokens != search({.width = 3}, 3, 24, stops)[0].tokens ? 1 : 0;
    }
  }
  EXPECT_GT(differ, 0) << "a prompt that shows nothing";
}

TEST_F(SearchTest, BeamsOfAStreamComeWhole) {
  const std::vector<Hypothesis> wanted = search({.width = 3}, 3, 20);
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    Json request = body(3, 20);
    request["messages"] = {{{"role", "user"}, {"content", "hi"}}};
    request["stream_options"] = {{"include_usage", true}};
    const std::vector<Json> events = stream(path, request);
    ASSERT_EQ(events.size(), 4u);
    for (std::size_t i = 0; i < 3; ++i) {
      const Json& choice = events[i]["choices"][0];
      EXPECT_EQ(choice["index"], i);
      EXPECT_EQ(choice["token_ids"].size(), 20u);
      EXPECT_EQ(choice["finish_reason"], "length");
      if (path == std::string("/v1/completions")) {
        EXPECT_EQ(choice["token_ids"], Json(wanted[i].tokens));
        EXPECT_EQ(choice["text"], decode(wanted[i].tokens));
      }
    }
    EXPECT_EQ(events[3]["usage"]["completion_tokens"], 60);
  }
}

TEST_F(SearchTest, LogprobsAreOfTheBeamsOwnTokens) {
  Json request = body(2, 12);
  request["logprobs"] = 0;
  const Json json = complete(request);
  const std::vector<Hypothesis> wanted = search({.width = 2}, 2, 12);
  for (std::size_t i = 0; i < 2; ++i) {
    const Json& values = json["choices"][i]["logprobs"]["token_logprobs"];
    ASSERT_EQ(values.size(), 12u);
    for (std::size_t k = 0; k < 12; ++k) {
      EXPECT_NEAR(values[k].get<double>(), static_cast<double>(wanted[i].logprobs[k]), 1e-5);
    }
  }
}

TEST_F(SearchTest, WithoutALimitBeamsGrowAsFarAsTheyFitTogether) {
  Json request = {
      {"messages", {{{"role", "user"}, {"content", "hi"}}}}, {"n", 16}, {"use_beam_search", true}};
  const Json json = chat(request);  // 16 beams of the whole context would be twice the cache
  const int tokens = json["usage"]["completion_tokens"];
  EXPECT_GT(tokens, 16 * 900);
  EXPECT_LE(tokens, 16 * 1024);
  EXPECT_TRUE(wait_idle());
}

TEST_F(SearchTest, ADeadlineGivesTheBestBeamsSoFar) {
  start({.step = absl::Milliseconds(5)});
  Json request = body(2, 2000);
  request["timeout"] = 0.7;
  const Json json = complete(request);
  ASSERT_EQ(json["choices"].size(), 2u);
  for (const Json& choice : json["choices"]) {
    EXPECT_EQ(choice["finish_reason"], "deadline");
    EXPECT_FALSE(choice["token_ids"].empty());
  }
  group_->hang();
  request["timeout"] = 0.05;
  EXPECT_EQ(ask("/v1/completions", request).status, 504);
}

class CachedTokensTest : public OpenAiTest {
 protected:
  Json body(const std::string& prompt, const std::string& salt = "") {
    Json out = {{"prompt", prompt}, {"max_tokens", 6}, {"seed", kSeed}};
    if (!salt.empty()) out["cache_salt"] = salt;
    return out;
  }
  static int cached(const Json& json) {
    return json["usage"]["prompt_tokens_details"]["cached_tokens"];
  }
  const std::string prompt_ = std::string(30, 'p') + std::string(45, 'q');
};

TEST_F(CachedTokensTest, AreToldOfEveryPromptInWholeAnswersAndStreams) {
  EXPECT_EQ(cached(complete(body(prompt_))), 0);
  const Json again = complete(body(prompt_));
  EXPECT_EQ(again["choices"][0]["text"], oracle_text(prompt_, 6));
  EXPECT_GE(cached(again), 64);  // the full blocks of 75 tokens
  EXPECT_LT(cached(again), 75);  // the last one is always computed
  EXPECT_EQ(again["usage"]["prompt_tokens"], 75);

  Json two = body("");
  two["prompt"] = Json::array({prompt_, prompt_});
  EXPECT_EQ(cached(complete(two)), 2 * cached(again));

  Json streamed = body(prompt_);
  streamed["n"] = 2;
  streamed["stream_options"] = {{"include_usage", true}, {"continuous_usage_stats", true}};
  const std::vector<Json> events = stream("/v1/completions", streamed);
  EXPECT_EQ(cached(events.back()), cached(again)) << "of the prompt, not of each choice";
  EXPECT_EQ(cached(events.front()), cached(again));

  const std::string metrics = fetch(port(), get("/metrics")).body;
  EXPECT_THAT(metrics, HasSubstr("vllm:prefix_cache_hits_total{"));
  EXPECT_EQ(engine_->stats().prefix_hits, static_cast<std::uint64_t>(4 * cached(again)));
}

TEST_F(CachedTokensTest, StayUnderTheirSalt) {
  complete(body(prompt_, "mine"));
  EXPECT_EQ(cached(complete(body(prompt_))), 0);
  EXPECT_EQ(cached(complete(body(prompt_, "yours"))), 0);
  EXPECT_GE(cached(complete(body(prompt_, "mine"))), 64);
}

TEST_F(CachedTokensTest, StayWithTheirTenant) {
  start({.tenants = {{"a", "key-a", 1.0}, {"b", "key-b", 1.0}}});
  const auto cached_for = [this](const char* key) {
    const HttpAnswer answer =
        ask("/v1/completions", body(prompt_), std::string("Authorization: Bearer ") + key + "\r\n");
    EXPECT_EQ(answer.status, 200);
    return cached(answer.json());
  };
  EXPECT_EQ(cached_for("key-a"), 0);
  EXPECT_EQ(cached_for("key-b"), 0);
  EXPECT_GE(cached_for("key-a"), 64);
  EXPECT_GE(cached_for("key-b"), 64);
}

}  // namespace
}  // namespace quire::test
