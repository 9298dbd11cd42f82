// The text that a scraper reads, and vLLM's names in it.
#include "common/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "tests/test_data.h"

namespace quire {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kLabels = R"({engine="0",model_name="tiny"})";

TEST(MetricsTest, EveryRowIsInTheFirstScrape) {
  const Metrics metrics("tiny", 2048);
  const std::string text = metrics.text();
  std::set<std::string> names;
  for (const MetricRow& row : metric_rows()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    if (row.id == Metric::kCacheConfigInfo) continue;  // appears once it is known
    const char* kind = row.kind == MetricKind::kGauge     ? "gauge"
                       : row.kind == MetricKind::kCounter ? "counter"
                                                          : "histogram";
    EXPECT_THAT(text, AllOf(HasSubstr(std::string("# HELP ") + row.name + " " + row.help + "\n"),
                            HasSubstr(std::string("# TYPE ") + row.name + " " + kind + "\n")));
    if (row.kind == MetricKind::kCounter) {
      EXPECT_THAT(row.name, ::testing::EndsWith("_total"));
    }
  }
}

TEST(MetricsTest, GroupsHaveASeriesEach) {
  Metrics metrics("tiny", 2048, /*num_groups=*/2);
  metrics.set(Metric::kGroupRunning, 7, "1");
  metrics.raise_to(Metric::kGroupSteps, 40, "0");
  const std::string text = metrics.text();
  for (const char* line :
       {R"(quire_group_requests_running{engine="0",model_name="tiny",group="0"} 0)",
        R"(quire_group_requests_running{engine="0",model_name="tiny",group="1"} 7)",
        R"(quire_group_steps_total{engine="0",model_name="tiny",group="0"} 40)"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr(R"(group="2")")));
}

TEST(MetricsTest, ValuesAppear) {
  Metrics metrics("tiny", 2048);
  metrics.set(Metric::kRequestsRunning, 3);
  metrics.set(Metric::kKvCacheUsage, 0.25);
  metrics.add(Metric::kGenerationTokens, 5);
  metrics.add(Metric::kGenerationTokens);
  metrics.add(Metric::kRequestSuccess, 1, "stop");
  metrics.raise_to(Metric::kAdmissionRejections, 3, "deadline");
  metrics.raise_to(Metric::kPrefixCacheHits, 48);
  metrics.set(Metric::kKvWasteRatio, 0.02);
  metrics.observe(Metric::kTimeToFirstToken, 0.03);
  const std::string text = metrics.text();
  const std::string labels = kLabels;
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running" + labels + " 3"));
  EXPECT_THAT(text, HasSubstr("vllm:kv_cache_usage_perc" + labels + " 0.25"));
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total" + labels + " 6"));
  EXPECT_THAT(text, HasSubstr(R"(finished_reason="stop"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(finished_reason="abort"} 0)"));
  EXPECT_THAT(text, HasSubstr(R"(reason="deadline"} 3)"));
  EXPECT_THAT(text, HasSubstr(R"(reason="max_num_queued_tokens"} 0)"));
  EXPECT_THAT(text, HasSubstr("vllm:prefix_cache_hits_total" + labels + " 48"));
  EXPECT_THAT(text, HasSubstr("quire_kv_waste_ratio" + labels + " 0.02"));
  EXPECT_THAT(text, HasSubstr(R"(le="0.02"} 0)"));
  EXPECT_THAT(text, HasSubstr(R"(le="0.04"} 1)"));
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_count" + labels + " 1"));
}

TEST(MetricsTest, TokenBucketsFollowTheContext) {
  const std::string text = Metrics("tiny", 300).text();
  const std::size_t at = text.find("vllm:request_prompt_tokens_bucket");
  const std::string part = text.substr(at, text.find("_sum", at) + 1000 - at);
  EXPECT_THAT(part, AllOf(HasSubstr(R"(le="1"})"), HasSubstr(R"(le="200"})")));
  EXPECT_THAT(text, Not(HasSubstr(R"(le="500"})")));
}

TEST(MetricsTest, RaiseToNeverFalls) {
  Metrics metrics("tiny", 2048);
  metrics.raise_to(Metric::kSteps, 10);
  metrics.raise_to(Metric::kSteps, 7);
  metrics.raise_to(Metric::kRequestSuccess, 2, "length");
  EXPECT_THAT(metrics.text(), HasSubstr(std::string("quire_steps_total") + kLabels + " 10"));
  EXPECT_THAT(metrics.text(), HasSubstr(R"(finished_reason="length"} 2)"));
}

TEST(MetricsTest, CacheConfigIsReplaced) {
  Metrics metrics("tiny", 2048);
  EXPECT_THAT(metrics.text(), Not(HasSubstr("vllm:cache_config_info{")));
  metrics.set_cache_config({{"block_size", "16"}, {"num_gpu_blocks", "10"}});
  metrics.set_cache_config({{"block_size", "16"}, {"num_gpu_blocks", "20"}});
  EXPECT_THAT(metrics.text(),
              AllOf(HasSubstr("vllm:cache_config_info{"), HasSubstr(R"(num_gpu_blocks="20")"),
                    Not(HasSubstr(R"(num_gpu_blocks="10")"))));
}

TEST(MetricsTest, ThreadsLoseNothing) {
  Metrics metrics("tiny", 2048);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&metrics] {
      for (int i = 0; i < 2000; ++i) {
        metrics.add(Metric::kPromptTokens);
        metrics.observe(Metric::kInterTokenLatency, 0.02);
        if (i % 500 == 0) metrics.text();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(metrics.text(),
              AllOf(HasSubstr(std::string("prompt_tokens_total") + kLabels + " 8000"),
                    HasSubstr(std::string("seconds_count") + kLabels + " 8000")));
}

TEST(MetricsDeathTest, WrongKindOrLabelIsOurBug) {
  Metrics metrics("tiny", 2048);
  EXPECT_DEATH(metrics.add(Metric::kEpoch), "CHECK");
  EXPECT_DEATH(metrics.add(Metric::kRequestSuccess, 1, "boredom"), "CHECK");
}

// Counters of vllm/v1/spec_decode/metrics.py that the list, made by a scan of its sources, misses.
constexpr const char* kNotInTheList[] = {"vllm:spec_decode_num_drafts",
                                         "vllm:spec_decode_num_draft_tokens",
                                         "vllm:spec_decode_num_accepted_tokens"};

TEST(MetricsTest, NamesAndKindsAreVllms) {
  const auto file = test::data_root() / "data/metrics/vllm-0.33.0/metric_names.json";
  QUIRE_NEED_DATA(file);
  std::ifstream in(file);
  const nlohmann::json known = nlohmann::json::parse(in);
  for (const MetricRow& row : metric_rows()) {
    std::string name = row.name;
    if (!name.starts_with("vllm:") || row.id == Metric::kCacheConfigInfo) continue;
    if (name.ends_with("_total")) name.resize(name.size() - 6);
    if (std::ranges::find(kNotInTheList, name) != std::end(kNotInTheList)) {
      EXPECT_EQ(row.kind, MetricKind::kCounter);
      continue;
    }
    ASSERT_TRUE(known.contains(name)) << name;
    const std::string kind = known[name]["kind"];
    EXPECT_EQ(kind.substr(0, kind.find('_')), row.kind == MetricKind::kGauge     ? "gauge"
                                              : row.kind == MetricKind::kCounter ? "counter"
                                                                                 : "histogram");
  }
}

}  // namespace
}  // namespace quire
