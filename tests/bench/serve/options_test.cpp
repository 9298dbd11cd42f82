// Options of `quire bench serve`, and the sentences for bad ones.
#include "bench/serve/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace quire::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

ServeOptions parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"--vocab-size", "100"});
  auto options = parse_serve(arguments);
  EXPECT_TRUE(options.ok()) << options.status();
  return options.ok() ? *options : ServeOptions{};
}

std::string refusal(const std::vector<std::string>& arguments) {
  const auto options = parse_serve(arguments);
  return options.ok() ? "accepted" : std::string(options.status().message());
}

TEST(ServeOptions, DefaultsAreThoseOfVllm) {
  const ServeOptions options = parse({});
  EXPECT_EQ(options.load.requests, 1000);
  EXPECT_EQ(options.load.input.fixed, 1024);
  EXPECT_EQ(options.load.output.fixed, 128);
  EXPECT_EQ(options.load.seed, 0u);
  EXPECT_TRUE(std::isinf(options.request_rate));
  EXPECT_EQ(options.burstiness, 1);
  EXPECT_EQ(options.max_concurrency, 0);
  EXPECT_EQ(options.endpoint.path, "/v1/completions");
  EXPECT_EQ(options.endpoint.host + ":" + options.endpoint.port, "127.0.0.1:8000");
  EXPECT_FALSE(options.endpoint.ignore_eos);
  EXPECT_THAT(options.percentile_metrics, ElementsAre("ttft", "tpot", "itl"));
  EXPECT_THAT(options.percents, ElementsAre(99));
  EXPECT_FALSE(options.goals.any());
}

TEST(ServeOptions, TakeValuesAfterASpaceOrAnEqualsSign) {
  const ServeOptions options =
      parse({"--num-prompts=7", "--request-rate", "2.5", "--base-url=http://localhost:81/",
             "--metric-percentiles", "50,99.9", "--percentile-metrics=itl,e2el", "--ignore-eos"});
  EXPECT_EQ(options.load.requests, 7);
  EXPECT_EQ(options.request_rate, 2.5);
  EXPECT_EQ(options.endpoint.host, "localhost");
  EXPECT_EQ(options.endpoint.port, "81");
  EXPECT_THAT(options.percents, ElementsAre(50, 99.9));
  EXPECT_THAT(options.percentile_metrics, ElementsAre("itl", "e2el"));
  EXPECT_TRUE(options.endpoint.ignore_eos);
}

TEST(ServeOptions, GoalsAndMetadataAreLists) {
  const ServeOptions options = parse(
      {"--goodput", "ttft:500", "tpot:30.5", "--metadata", "cpu=a", "note=x=y", "--label", "run"});
  EXPECT_EQ(options.goals.ttft_ms, 500);
  EXPECT_EQ(options.goals.tpot_ms, 30.5);
  EXPECT_EQ(options.goals.e2el_ms, 0);
  EXPECT_THAT(options.metadata, ElementsAre(Pair("cpu", "a"), Pair("note", "x=y")));
  EXPECT_EQ(options.label, "run");
}

TEST(ServeOptions, LogNormalHasFixedLengthsOnlyWhereTheyWereGiven) {
  EXPECT_EQ(parse({"--dataset-name", "lognormal"}).load.input.fixed, 0);
  const ServeOptions options = parse({"--dataset-name", "lognormal", "--random-output-len", "128"});
  EXPECT_EQ(options.load.input.fixed, 0);
  EXPECT_EQ(options.load.output.fixed, 128);
}

TEST(ServeOptions, AnEndpointOfItsOwnStays) {
  EXPECT_EQ(parse({"--endpoint", "/api/v2"}).endpoint.path, "/api/v2");
  const auto chat = parse_serve({"--backend", "openai-chat", "--tokenizer", "model.gguf"});
  ASSERT_TRUE(chat.ok());
  EXPECT_EQ(chat->endpoint.path, "/v1/chat/completions");
  EXPECT_TRUE(chat->endpoint.chat);
}

TEST(ServeOptions, BadValuesAreNamedWithWhatIsAllowed) {
  struct Case {
    std::vector<std::string> arguments;
    const char* says;
  };
  const Case cases[] = {
      {{"--num-prompts", "0"}, "--num-prompts is `0`; it must be an integer from 1"},
      {{"--num-prompts", "12x"}, "`12x`"},
      {{"--request-rate", "-1"}, "--request-rate is `-1`"},
      {{"--request-rate", "nan"}, "--request-rate is `nan`"},
      {{"--burstiness", "0"}, "--burstiness is `0`"},
      {{"--max-concurrency", "0"}, "from 1 to 4096"},
      {{"--random-range-ratio", "1"}, "from 0 to 0.999"},
      {{"--seed", "-3"}, "--seed is `-3`"},
      {{"--temperature", "nan"}, "--temperature is `nan`"},
      {{"--percentile-metrics", "ttft,foo"}, "ttft, tpot, itl and e2el"},
      {{"--metric-percentiles", "50,101"}, "from 0 to 100"},
      {{"--goodput", "ttfx:3"}, "NAME:MILLISECONDS"},
      {{"--goodput", "ttft:0"}, "NAME:MILLISECONDS"},
      {{"--goodput", "ttft"}, "NAME:MILLISECONDS"},
      {{"--goodput", "--seed", "1"}, "--goodput needs a value"},
      {{"--metadata", "=x"}, "KEY=VALUE"},
      {{"--extra-body", "[1]"}, "a JSON object"},
      {{"--extra-body", "{"}, "a JSON object"},
      {{"--dataset-name", "sonnet"}, "random, text or lognormal"},
      {{"--backend", "tgi"}, "openai-chat"},
      {{"--endpoint", "v1"}, "begins with /"},
      {{"--base-url", "https://host"}, "TLS"},
      {{"--base-url", "http://host:99999"}, "no port from 1 to 65535"},
      {{"--base-url", "http://:80"}, "http://HOST:PORT"},
      {{"--port", "http"}, "from 1 to 65535"},
      {{"--api-key-file", "/nonexistent"}, "--api-key-file is `/nonexistent`"},
      {{"--seed"}, "--seed needs a value (N)"},
      {{"--ignore-eos=yes"}, "--ignore-eos takes no value"},
      {{"--frobnicate", "1"}, "there is no option `--frobnicate`"},
      {{"stray"}, "there is no option `stray`"},
  };
  for (const Case& one : cases) {
    std::vector<std::string> arguments = {"--vocab-size", "100"};
    arguments.insert(arguments.end(), one.arguments.begin(), one.arguments.end());
    EXPECT_THAT(refusal(arguments), HasSubstr(one.says));
  }
}

TEST(ServeOptions, WhatDoesNotGoTogetherIsRefused) {
  EXPECT_THAT(refusal({}), HasSubstr("--tokenizer MODEL, or --vocab-size N"));
  EXPECT_THAT(refusal({"--vocab-size", "9", "--tokenizer", "m"}),
              HasSubstr("leave out --vocab-size"));
  EXPECT_THAT(refusal({"--vocab-size", "9", "--dataset-name", "text"}), HasSubstr("--tokenizer"));
  EXPECT_THAT(refusal({"--vocab-size", "9", "--backend", "openai-chat"}), HasSubstr("sends text"));
  EXPECT_THAT(refusal({"--vocab-size", "9", "--num-prompts", "5000"}),
              HasSubstr("--max-concurrency"));
  EXPECT_EQ(refusal({"--vocab-size", "9", "--num-prompts", "5000", "--max-concurrency", "64"}),
            "accepted");
}

TEST(ServeOptions, HelpListsEveryOptionOfVllmThatIsTaken) {
  ASSERT_TRUE(parse_serve({"--help", "--no-such-thing"}).ok());
  const std::string help = serve_help();
  for (const char* name : {"--num-prompts", "--request-rate", "--burstiness", "--max-concurrency",
                           "--dataset-name", "--random-input-len", "--random-output-len",
                           "--ignore-eos", "--seed", "--percentile-metrics", "--metric-percentiles",
                           "--goodput", "--save-result", "--result-filename"}) {
    EXPECT_THAT(help, HasSubstr(std::string("  ") + name + " "));
  }
}

}  // namespace
}  // namespace quire::bench
