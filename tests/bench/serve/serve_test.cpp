// `quire bench serve` against a server in this process: what is sent, what is counted, what is
// written. Nothing here is about how long anything takes.
#include "bench/serve/serve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <limits>

#include "bench/serve/send.h"
#include "tests/bench/serve/fake_server.h"
#include "tests/test_data.h"

namespace quire::bench {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::CaptureStdout;
using ::testing::internal::GetCapturedStderr;
using ::testing::internal::GetCapturedStdout;

struct Ran {
  int code = 0;
  std::string out, err;
  nlohmann::json result;  // of --save-result
};

class Serve : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("quire-bench-test-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // With 6 prompts of 5 tokens that ask for 4, unless `arguments` say otherwise.
  Ran run(const std::string& url, const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {"--base-url",
                                    url,
                                    "--vocab-size",
                                    "1000",
                                    "--num-prompts",
                                    "6",
                                    "--random-input-len",
                                    "5",
                                    "--random-output-len",
                                    "4",
                                    "--ignore-eos",
                                    "--save-result",
                                    "--result-dir",
                                    folder_.string(),
                                    "--result-filename",
                                    "r.json",
                                    "--request-timeout-sec",
                                    "60"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    Ran ran;
    CaptureStdout();
    CaptureStderr();
    ran.code = serve_main(all);
    ran.out = GetCapturedStdout();
    ran.err = GetCapturedStderr();
    ran.result = nlohmann::json::parse(std::ifstream(folder_ / "r.json"), nullptr, false);
    return ran;
  }

  std::filesystem::path folder_;
};

TEST_F(Serve, SendsWhatVllmSendsAndCountsTheAnswers) {
  FakeServer server;
  const Ran ran = run(server.url(), {"--metadata", "cpu=fast", "--label", "first"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  ASSERT_EQ(server.bodies().size(), 6u);
  for (const nlohmann::json& body : server.bodies()) {
    EXPECT_EQ(body["model"], "fake") << "the first that /v1/models lists";
    EXPECT_EQ(body["prompt"].size(), 5u);
    EXPECT_EQ(body["max_tokens"], 4);
    EXPECT_EQ(body["temperature"], 0.0);
    EXPECT_EQ(body["ignore_eos"], true);
    EXPECT_EQ(body["stream"], true);
    EXPECT_EQ(body["stream_options"]["include_usage"], true);
  }
  EXPECT_THAT(server.targets(), Each("/v1/completions"));
  EXPECT_EQ(ran.result["completed"], 6);
  EXPECT_EQ(ran.result["failed"], 0);
  EXPECT_EQ(ran.result["total_input_tokens"], 30);
  EXPECT_EQ(ran.result["total_output_tokens"], 24);
  EXPECT_EQ(ran.result["request_rate"], "inf");
  EXPECT_EQ(ran.result["max_concurrency"], nullptr);
  EXPECT_EQ(ran.result["request_goodput"], nullptr);
  EXPECT_EQ(ran.result["cpu"], "fast");
  EXPECT_EQ(ran.result["label"], "first");
  const double duration = ran.result["duration"];
  EXPECT_DOUBLE_EQ(ran.result["output_throughput"], 24 / duration);
  EXPECT_DOUBLE_EQ(ran.result["total_token_throughput"], 54 / duration);
  EXPECT_THAT(ran.out, HasSubstr("successful requests"));
}

TEST_F(Serve, WritesTheMetricsAndPercentilesThatWereAskedFor) {
  FakeServer server;
  const Ran ran =
      run(server.url(), {"--percentile-metrics", "tpot,e2el", "--metric-percentiles", "50,99.9"});
  for (const char* key : {"mean_tpot_ms", "median_tpot_ms", "std_tpot_ms", "p50_tpot_ms",
                          "p99.9_tpot_ms", "mean_e2el_ms", "p99.9_e2el_ms"}) {
    EXPECT_TRUE(ran.result.contains(key)) << key;
  }
  EXPECT_FALSE(ran.result.contains("mean_ttft_ms"));
  EXPECT_FALSE(ran.result.contains("p99_e2el_ms"));
  EXPECT_FALSE(ran.result.contains("ttfts"));
}

TEST_F(Serve, DetailsHoldEveryChunkOfEveryRequest) {
  FakeServer server({.tokens_a_chunk = 2});
  const Ran ran = run(server.url(), {"--save-detailed"});
  ASSERT_EQ(ran.result["itls"].size(), 6u);
  for (const nlohmann::json& gaps : ran.result["itls"]) EXPECT_EQ(gaps.size(), 1u);
  EXPECT_THAT(ran.result["output_lens"].get<std::vector<int>>(), Each(4)) << "by the usage";
  EXPECT_THAT(ran.result["errors"].get<std::vector<std::string>>(), Each(""));
  EXPECT_EQ(ran.result["total_output_tokens"], 24);
}

TEST_F(Serve, ChunksCountAsTokensWhereNoUsageComes) {
  FakeServer server({.tokens_a_chunk = 2, .usage = false});
  EXPECT_EQ(run(server.url(), {}).result["total_output_tokens"], 12);
}

TEST_F(Serve, FailedRequestsCountInNothingElse) {
  FakeServer server({.refuse_beyond = 4});
  const Ran ran = run(server.url(), {"--goodput", "ttft:100000", "e2el:100000"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.result["completed"], 4);
  EXPECT_EQ(ran.result["failed"], 2);
  EXPECT_EQ(ran.result["total_input_tokens"], 20);
  EXPECT_EQ(ran.result["total_output_tokens"], 16);
  const double duration = ran.result["duration"];
  EXPECT_DOUBLE_EQ(ran.result["request_goodput"], 4 / duration);
  EXPECT_THAT(ran.err, HasSubstr("2 requests failed: HTTP 503: full"));
}

TEST_F(Serve, NoAnswerAtAllIsAFailure) {
  FakeServer refusing({.refuse_beyond = 0});
  EXPECT_EQ(run(refusing.url(), {}).code, 1);
  FakeServer breaking({.break_off = true});
  const Ran broken = run(breaking.url(), {});
  EXPECT_EQ(broken.code, 1);
  EXPECT_EQ(broken.result["failed"], 6) << "an answer that breaks off is none";
}

TEST_F(Serve, ASilentServerMeetsTheDeadline) {
  FakeServer server({.silent = true});
  const Ran ran = run(server.url(), {"--num-prompts", "2", "--request-timeout-sec", "0.3"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("2 requests failed: no end of the answer within 0.3 s"));
}

TEST_F(Serve, NoServerIsSaidAtOnce) {
  std::string url;
  { url = FakeServer().url(); }  // a port where nobody listens any more
  const Ran ran = run(url, {});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("cannot reach 127.0.0.1:"));
}

TEST_F(Serve, ConcurrencyIsTheMostThatIsUnderWay) {
  // Answers begin when two are there: more than one is under way, and never three.
  FakeServer server({.meet_before_answer = 2});
  const Ran ran = run(server.url(), {"--max-concurrency", "2", "--num-prompts", "9"});
  EXPECT_EQ(server.most_at_once(), 2);
  EXPECT_EQ(ran.result["completed"], 9);
  EXPECT_EQ(ran.result["max_concurrency"], 2);
}

TEST_F(Serve, WithoutALimitAllAreUnderWayAtOnce) {
  FakeServer server({.meet_before_answer = 12});
  EXPECT_EQ(run(server.url(), {"--num-prompts", "12"}).result["completed"], 12);
  EXPECT_EQ(server.most_at_once(), 12);
}

TEST_F(Serve, ARateSpreadsTheRequests) {
  FakeServer server;
  const Ran ran = run(server.url(), {"--request-rate", "200"});
  EXPECT_EQ(ran.result["completed"], 6);
  EXPECT_EQ(ran.result["request_rate"], 200.0);
  const std::vector<double> due = arrivals(6, 200, 1, 0);
  EXPECT_GE(ran.result["duration"].get<double>(), due.back()) << "the last is not sent before";
}

TEST_F(Serve, WarmUpsAreOtherPromptsAndCountNowhere) {
  FakeServer server;
  const Ran ran = run(server.url(), {"--num-warmups", "3"});
  EXPECT_EQ(ran.result["completed"], 6);
  const std::vector<nlohmann::json> bodies = server.bodies();
  ASSERT_EQ(bodies.size(), 9u);
  for (std::size_t warm = 0; warm < 3; ++warm) {
    for (std::size_t i = 3; i < 9; ++i) EXPECT_NE(bodies[warm]["prompt"], bodies[i]["prompt"]);
  }
  FakeServer without;
  run(without.url(), {});
  std::vector<std::string> a, b;
  for (std::size_t i = 3; i < 9; ++i) a.push_back(bodies[i]["prompt"].dump());
  for (const nlohmann::json& body : without.bodies()) b.push_back(body["prompt"].dump());
  EXPECT_THAT(a, ::testing::UnorderedElementsAreArray(b)) << "the counted load is the same";
}

TEST_F(Serve, ExtraFieldsWinAndKeysAreSent) {
  FakeServer server;
  std::ofstream(folder_ / "key") << "sesame\nsecond line\n";
  run(server.url(), {"--extra-body", R"({"temperature": 0.5, "top_k": 3})", "--api-key-file",
                     (folder_ / "key").string(), "--model", "other"});
  ASSERT_EQ(server.bodies().size(), 6u);
  EXPECT_EQ(server.bodies()[0]["temperature"], 0.5);
  EXPECT_EQ(server.bodies()[0]["top_k"], 3);
  EXPECT_EQ(server.bodies()[0]["model"], "other");
  EXPECT_THAT(server.authorizations(), Each("Bearer sesame"));
}

TEST_F(Serve, PrintsTheLoadAndSendsNothing) {
  FakeServer server;
  const Ran ran = run(server.url(), {"--print-load"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(server.bodies().size(), 0u);
  std::istringstream lines(ran.out);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const nlohmann::json request = nlohmann::json::parse(line);
    EXPECT_EQ(request["input"], 5);
    EXPECT_EQ(request["output"], 4);
    EXPECT_EQ(request["prompt"].size(), 5u);
  }
  EXPECT_EQ(count, 6);
}

TEST_F(Serve, ChatSendsTheTextOfThePrompt) {
  QUIRE_NEED_DATA(test::demo_model());
  FakeServer server;
  CaptureStdout();
  const int code =
      serve_main({"--base-url", server.url(), "--backend", "openai-chat", "--tokenizer",
                  test::demo_model().string(), "--dataset-name", "text", "--num-prompts", "2",
                  "--random-input-len", "12", "--random-output-len", "3", "--dataset-path",
                  std::string(QUIRE_SOURCE_DIR) + "/README.md"});
  GetCapturedStdout();
  ASSERT_EQ(code, 0);
  ASSERT_EQ(server.bodies().size(), 2u);
  std::ostringstream readme;
  readme << std::ifstream(std::string(QUIRE_SOURCE_DIR) + "/README.md").rdbuf();
  for (const nlohmann::json& body : server.bodies()) {
    EXPECT_EQ(body["max_completion_tokens"], 3);
    EXPECT_FALSE(body.contains("prompt"));
    ASSERT_EQ(body["messages"].size(), 1u);
    EXPECT_EQ(body["messages"][0]["role"], "user");
    EXPECT_THAT(readme.str(), HasSubstr(body["messages"][0]["content"].get<std::string>()));
  }
  EXPECT_THAT(server.targets(), Each("/v1/chat/completions"));
}

TEST_F(Serve, ResultsThatCannotBeWrittenAreAnError) {
  FakeServer server;
  const Ran ran = run(server.url(), {"--result-dir", (folder_ / "absent").string()});
  EXPECT_EQ(ran.code, 74);
  EXPECT_THAT(ran.err, HasSubstr("cannot write "));
}

TEST(Complete, StopsInTheMiddleOfAnAnswer) {
  FakeServer server({.endless = true});
  Endpoint endpoint;
  ASSERT_TRUE(set_address(server.url(), &endpoint).ok());
  std::atomic<bool> stop{false};
  Call call;
  call.prompt = {1, 2};
  absl::StatusOr<Timing> timing = absl::UnknownError("not run");
  std::thread client([&] { timing = complete(endpoint, call, &stop); });
  for (int waited = 0; server.chunks() < 3 && waited < 10000; ++waited) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  stop = true;
  client.join();
  ASSERT_TRUE(timing.ok()) << timing.status();
  EXPECT_GE(server.chunks(), 3);
  EXPECT_EQ(timing->output_tokens, static_cast<int>(timing->chunk_gaps_s.size()) + 1);
}

}  // namespace
}  // namespace quire::bench
