// Sampling: picks equal to the reference's, the same bits however the vocabulary is cut and whoever
// shares the batch, and the right distribution (chi-square against given logits).
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "common/shard.h"
#include "tests/kernels/harness.h"
#include "tests/test_data.h"

namespace quire::test {
namespace {

// Samples `rows`, all from the same logits, cut into pieces at `begins`.
std::vector<RowResult> sample(Device& device, const std::vector<float>& logits,
                              const std::vector<SampleRow>& rows,
                              std::vector<TokenId> begins = {}) {
  if (begins.empty()) begins = {0, static_cast<TokenId>(logits.size())};
  std::vector<const float*> pieces;
  for (std::size_t p = 0; p + 1 < begins.size(); ++p) pieces.push_back(logits.data() + begins[p]);
  const std::vector<std::size_t> strides(pieces.size(), 0);
  std::vector<RowResult> results(rows.size());
  SampleArgs args;
  args.num_rows = static_cast<int>(rows.size());
  args.rows = rows;
  args.pieces = pieces;
  args.piece_strides = strides;
  args.piece_begin = begins;
  args.results = results.data();
  device.ops().sample(args);
  EXPECT_TRUE(device.wait().ok());
  return results;
}

void expect_same(const std::vector<RowResult>& a, const std::vector<RowResult>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].token, b[i].token) << "row " << i;
    ASSERT_EQ(a[i].logprobs.size(), b[i].logprobs.size());
    for (std::size_t j = 0; j < a[i].logprobs.size(); ++j) {
      ASSERT_EQ(a[i].logprobs[j].token, b[i].logprobs[j].token);
      ASSERT_EQ(a[i].logprobs[j].logprob, b[i].logprobs[j].logprob);  // bits
    }
  }
}

// Rows with all kinds of parameters.
std::vector<SampleRow> assorted_rows(int count, std::uint32_t seed) {
  std::mt19937 random(seed);
  const auto any = [&random](std::initializer_list<float> values) {
    return *(values.begin() + random() % values.size());
  };
  std::vector<SampleRow> rows(static_cast<std::size_t>(count));
  for (SampleRow& row : rows) {
    row.temperature = any({0.0f, 0.3f, 0.7f, 1.0f, 1.0f, 2.0f});
    row.top_p = any({1.0f, 1.0f, 0.95f, 0.9f, 0.5f, 0.01f});
    row.top_k = static_cast<int>(any({0, -1, 1, 2, 40, 300, 100000}));
    row.min_p = any({0.0f, 0.0f, 0.05f, 0.3f, 1.0f});
    row.seed = (static_cast<std::uint64_t>(random()) << 32) | random();
    row.sample_index = random() % 8;
    row.position = random() % 5000;
    row.num_logprobs = static_cast<int>(any({-1, 0, 5, 20}));
  }
  return rows;
}

TEST(Sample, PicksWhatTheReferencePicks) {
  const auto reference = open_backend("reference");
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name);
    for (const int vocab : {1, 15, 50, 1024, 3000}) {
      const auto logits = random_floats(static_cast<std::size_t>(vocab), 77, 2.5f);
      const auto rows = assorted_rows(1500, static_cast<std::uint32_t>(vocab));
      const auto got = sample(*device, logits, rows);
      const auto want = sample(*reference, logits, rows);
      int different = 0;
      for (std::size_t i = 0; i < rows.size(); ++i) {
        // A draw within rounding of a boundary may fall on the other side.
        different += got[i].token != want[i].token ? 1 : 0;
        ASSERT_EQ(got[i].logprobs.size(), want[i].logprobs.size());
        for (std::size_t j = 1; j < want[i].logprobs.size(); ++j) {
          ASSERT_EQ(got[i].logprobs[j].token, want[i].logprobs[j].token);
          ASSERT_NEAR(got[i].logprobs[j].logprob, want[i].logprobs[j].logprob, 3e-6);
        }
      }
      EXPECT_LE(different, 2) << name << " vocabulary " << vocab;
    }
  }
}

TEST(Sample, CutsOfTheVocabularyBatchAndThreadsChangeNoBit) {
  constexpr int kVocab = 5000;
  const auto logits = random_floats(kVocab, 78, 3.0f);
  const auto rows = assorted_rows(64, 3);
  for (const std::string& name : cpu_backends()) {
    const auto device = open_backend(name, 2);
    const auto base = sample(*device, logits, rows);
    expect_same(base, sample(*device, logits, rows, {0, 1024, kVocab}));
    expect_same(base, sample(*device, logits, rows, {0, 2048, 2048, 3072, kVocab}));
    expect_same(base, sample(*open_backend(name, 1), logits, rows));
    expect_same(base, sample(*open_backend(name, 3), logits, rows));
    for (std::size_t i = 0; i < rows.size(); i += 7) {
      expect_same({base[i]}, sample(*device, logits, {rows[i]}));
    }
  }
}

TEST(Sample, GreedyTakesTheLargestAndThenTheLowestId) {
  for (const char* name : {"reference", "avx512", "avx2"}) {
    const auto device = open_backend(name);
    if (device == nullptr) continue;
    std::vector<float> logits(3000, -1.0f);
    const std::vector<SampleRow> greedy = {{.temperature = 0.0f}};
    EXPECT_EQ(sample(*device, logits, greedy)[0].token, 0) << name;
    logits[2999] = 4.0f;
    EXPECT_EQ(sample(*device, logits, greedy)[0].token, 2999) << name;
    logits[1777] = 4.0f;
    logits[1030] = 4.0f;
    EXPECT_EQ(sample(*device, logits, greedy)[0].token, 1030) << name;
    EXPECT_EQ(sample(*device, logits, greedy, {0, 1024, 2048, 3000})[0].token, 1030) << name;
    logits[5] = -INFINITY;
    EXPECT_EQ(sample(*device, logits, greedy)[0].token, 1030) << name;
  }
}

// Greedy and drawn: the row says so, and has an id that exists.
TEST(Sample, LogitsThatAreNoNumbersAreSaid) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const char* backend : {"reference", "avx512", "avx2"}) {
    const auto device = open_backend(backend);
    if (device == nullptr) continue;
    const std::vector<float> good = random_floats(1500, 5);
    for (const int at : {0, 17, 1030, 1499, -1}) {  // -1: everywhere
      for (const float bad : {kNan, kInfinity}) {
        std::vector<float> logits = good;
        for (int i = 0; i < 1500; ++i) {
          if (at < 0 || i == at) logits[static_cast<std::size_t>(i)] = bad;
        }
        for (const SampleRow& row : assorted_rows(20, 3)) {
          const std::vector<RowResult> results = sample(*device, logits, {row}, {0, 1024, 1500});
          EXPECT_TRUE(results[0].no_number) << backend << " " << bad << " at " << at;
          EXPECT_TRUE(results[0].token >= 0 && results[0].token < 1500) << results[0].token;
          EXPECT_TRUE(results[0].logprobs.empty());
        }
      }
    }
    for (const SampleRow& row : assorted_rows(20, 3)) {
      EXPECT_FALSE(sample(*device, good, {row})[0].no_number);
    }
  }
}

TEST(Sample, BestLogprobsAreOrderedAndSumToOne) {
  for (const char* name : {"reference", "avx512", "avx2"}) {
    const auto device = open_backend(name);
    if (device == nullptr) continue;
    const std::vector<float> logits = {1.0f, 3.0f, 2.0f, 3.0f, -50.0f};
    const auto result =
        sample(*device, logits, {{.temperature = 0.0f, .num_logprobs = 20}}).front();
    ASSERT_EQ(result.logprobs.size(), 6u) << name;  // the pick, then all five
    EXPECT_EQ(result.logprobs[0].token, 1);
    double sum = 0.0;
    const TokenId order[] = {1, 3, 2, 0, 4};
    for (std::size_t i = 0; i < 5; ++i) {
      EXPECT_EQ(result.logprobs[i + 1].token, order[i]);
      sum += std::exp(result.logprobs[i + 1].logprob);
    }
    EXPECT_NEAR(sum, 1.0, 1e-6);
  }
}

TEST(Sample, TopKKeepsTiesAndTopPAtLeastOne) {
  for (const char* name : {"reference", "avx512", "avx2"}) {
    const auto device = open_backend(name);
    if (device == nullptr) continue;
    const std::vector<float> logits = {0.0f, 2.0f, 2.0f, 2.0f, 1.0f};
    std::vector<SampleRow> rows(300);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].seed = i;
      rows[i].top_k = 2;  // three ids share the second largest value
    }
    std::map<TokenId, int> counts;
    for (const RowResult& r : sample(*device, logits, rows)) ++counts[r.token];
    EXPECT_EQ(counts.size(), 3u) << name;
    EXPECT_EQ(counts.count(0) + counts.count(4), 0u) << name;
    for (SampleRow& row : rows) row = {.top_p = 1e-6f, .seed = row.seed};
    for (const RowResult& r : sample(*device, logits, rows)) ASSERT_EQ(r.token, 1) << name;
  }
}

// Chi-square of counts against expected probabilities: ids with an expectation of at least 5 are
// buckets, the rest is one. Returns how far above the critical value at 1e-4 it is (<= 0: fine).
double chi_square_excess(const std::map<TokenId, int>& counts, const std::map<TokenId, double>& p,
                         int draws) {
  double statistic = 0.0, rest_p = 1.0;
  int buckets = 0, rest_count = draws;
  for (const auto& [id, probability] : p) {
    const double expected = probability * draws;
    if (expected < 5.0) continue;
    const auto found = counts.find(id);
    const int count = found == counts.end() ? 0 : found->second;
    statistic += (count - expected) * (count - expected) / expected;
    rest_p -= probability;
    rest_count -= count;
    ++buckets;
  }
  if (rest_p * draws >= 1.0) {
    statistic += (rest_count - rest_p * draws) * (rest_count - rest_p * draws) / (rest_p * draws);
    ++buckets;
  }
  const double df = std::max(1, buckets - 1);
  const double a = 2.0 / (9.0 * df);  // Wilson and Hilferty's approximation
  return statistic - df * std::pow(1.0 - a + 3.719 * std::sqrt(a), 3.0);
}

std::map<TokenId, int> draw_counts(Device& device, const std::vector<float>& logits, SampleRow row,
                                   int draws, std::uint64_t seed) {
  std::vector<SampleRow> rows(static_cast<std::size_t>(draws), row);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].seed = seed;
    rows[i].position = static_cast<std::uint32_t>(i);
  }
  std::map<TokenId, int> counts;
  for (const RowResult& r : sample(device, logits, rows)) ++counts[r.token];
  return counts;
}

TEST(Sample, DrawsFollowTheDistribution) {
  constexpr int kDraws = 20000, kVocab = 40;
  const auto logits = random_floats(kVocab, 5, 1.5f);
  for (const char* name : {"reference", "avx512", "avx2"}) {
    const auto device = open_backend(name);
    if (device == nullptr) continue;
    for (const float temperature : {0.5f, 1.0f, 1.7f}) {
      double total = 0.0;
      std::map<TokenId, double> p;
      for (int i = 0; i < kVocab; ++i) {
        p[i] = std::exp(logits[static_cast<std::size_t>(i)] / temperature);
        total += p[i];
      }
      for (auto& [id, value] : p) value /= total;
      const auto counts =
          draw_counts(*device, logits, {.temperature = temperature}, kDraws, 20261123);
      EXPECT_LE(chi_square_excess(counts, p, kDraws), 0.0) << name << " " << temperature;
      // The test can fail: the same counts are far from a slightly warmer distribution.
      std::map<TokenId, double> wrong;
      double wrong_total = 0.0;
      for (const auto& [id, value] : p) wrong_total += wrong[id] = std::pow(value, 0.85);
      for (auto& [id, value] : wrong) value /= wrong_total;
      EXPECT_GT(chi_square_excess(counts, wrong, kDraws), 0.0) << name << " " << temperature;
    }
  }
}

// Filters as the reference implementation of the field defines them, on a real model's
// distribution: the logits are the log of its 200 most likely ids, the others share the rest.
TEST(Sample, FiltersFollowTheRecordedDistributions) {
  const auto path = data_root() / "reference/smollm2/sampling.dev.json";
  QUIRE_NEED_DATA(path);
  std::ifstream file(path);
  const nlohmann::json data = nlohmann::json::parse(file);
  const auto device = open_backend(cpu_backends().empty() ? "reference" : cpu_backends().front());
  constexpr int kVocab = 49152, kDraws = 2000;
  int checked = 0;
  for (const auto& item : data.at("items")) {
    const auto& plain = item.at("step1").at(0);
    ASSERT_EQ(plain.at("case"), "temperature 1");
    std::vector<float> logits(
        kVocab, std::log(plain.at("rest").get<float>() / static_cast<float>(kVocab - 200)));
    for (std::size_t i = 0; i < plain.at("ids").size(); ++i) {
      logits[plain.at("ids")[i].get<std::size_t>()] = std::log(plain.at("p")[i].get<float>());
    }
    for (const auto& test : item.at("step1")) {
      const auto& params = test.at("params");
      if (test.at("edge").get<bool>() || test.at("rest").get<double>() > 0.0) continue;
      if (params.contains("repetition_penalty")) continue;
      const SampleRow row = {.temperature = params.value("temperature", 1.0f),
                             .top_p = params.value("top_p", 1.0f),
                             .top_k = params.value("top_k", 0),
                             .min_p = params.value("min_p", 0.0f)};
      std::map<TokenId, double> p;
      for (std::size_t i = 0; i < test.at("ids").size(); ++i) {
        p[test.at("ids")[i].get<TokenId>()] = test.at("p")[i].get<double>();
      }
      const auto counts = draw_counts(*device, logits, row, kDraws, 99);
      for (const auto& [id, count] : counts) {
        EXPECT_TRUE(p.contains(id)) << test.at("case") << " gave " << id << " outside the support";
      }
      EXPECT_LE(chi_square_excess(counts, p, kDraws), 0.0) << item.at("id") << test.at("case");
      ++checked;
    }
  }
  EXPECT_GE(checked, 15);
}

}  // namespace
}  // namespace quire::test
