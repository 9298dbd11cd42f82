#include "tests/worker/smollm2.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "common/status.h"

namespace quire::test {
namespace {

// |d logprob| of the golden tokens, and how often the best token is another one.
struct GoldenDeviations {
  std::vector<double> golden;
  double matches = 0.0;
  double largest_open_gap = 0.0;
};

GoldenDeviations golden_deviations(const ForcedRun& run) {
  GoldenDeviations deviations;
  for (std::size_t i = 0; i < run.items.size(); ++i) {
    const nlohmann::json& item = run.items[i];
    for (std::size_t t = 0; t < item["output_ids"].size(); ++t) {
      const auto golden = item["output_ids"][t].get<TokenId>();
      const auto ours = static_cast<double>(logprob_of(run.outputs[i].logprobs[t], golden));
      deviations.golden.push_back(std::abs(ours - item["logprobs"][t].get<double>()));
      if (run.outputs[i].tokens[t] == golden) {
        deviations.matches += 1.0;
      } else {
        deviations.largest_open_gap =
            std::max(deviations.largest_open_gap, item["gap"][t].get<double>());
      }
    }
  }
  return deviations;
}

}  // namespace

void SmolLm2::SetUp() {
  const auto folder = data_root() / "reference/smollm2";
  golden_path_ = folder / "golden.dev.json";
  ppl_path_ = folder / "ppl.json";
  QUIRE_NEED_DATA(golden_path_);
  QUIRE_NEED_DATA(ppl_path_);
  QUIRE_NEED_DATA(demo_model());
  items_ = nlohmann::json::parse(std::ifstream(golden_path_))["items"];
  windows_ = nlohmann::json::parse(std::ifstream(ppl_path_))["windows"];
}

GroupOptions SmolLm2::options(const char* dtype, int world) {
  GroupOptions options;
  options.device = "cpu";
  options.dtype = dtype;
  options.world = world;
  options.limits = {.num_blocks = 800,
                    .block_size = 16,
                    .max_num_seqs = 33,
                    .max_num_batched_tokens = 512,
                    .max_model_len = 2560};
  return options;
}

GroupOptions SmolLm2::scoring_options(const char* dtype) {
  GroupOptions with = options(dtype, 1);
  with.limits.num_blocks = 160;  // of one text at a time
  with.limits.max_num_seqs = 512;
  return with;
}

absl::StatusOr<ForcedRun> SmolLm2::lead(const std::string& model, const char* dtype,
                                        std::size_t longest, std::size_t most,
                                        const char* kv_dtype) const {
  ForcedRun run;
  std::vector<ForcedText> texts;
  for (const nlohmann::json& item : items_) {
    if (item["prompt_ids"].size() > longest || run.items.size() >= most) continue;
    run.items.push_back(item);
    texts.push_back({item["prompt_ids"].get<std::vector<TokenId>>(),
                     item["output_ids"].get<std::vector<TokenId>>()});
  }
  GroupOptions with = options(dtype, 1);
  with.kv_dtype = kv_dtype;
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<RankGroup> group, RankGroup::open(model, with));
  QUIRE_ASSIGN_OR_RETURN(run.outputs, teacher_force(*group, texts));
  return run;
}

absl::Status SmolLm2::look_closer(const std::string& model, const char* dtype, ForcedRun& run,
                                  const BestRows& reference, const char* device) const {
  GroupOptions with = scoring_options(dtype);
  with.device = device;
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<Scorer> scorer, Scorer::open(model, with));
  for (std::size_t i = 0; i < run.items.size(); ++i) {
    auto ids = run.items[i]["prompt_ids"].get<std::vector<TokenId>>();
    const std::size_t prompt = ids.size();
    const auto forced = run.items[i]["output_ids"].get<std::vector<TokenId>>();
    ids.insert(ids.end(), forced.begin(), forced.end());
    std::vector<BestTokens>& best = run.best.emplace_back();
    const auto observe = [&](std::size_t position, absl::Span<const float> logits) {
      if (position < prompt) return;
      const Distribution ours(logits);
      run.golden.push_back(ours.logprob(ids[position]));
      if (!reference.empty()) run.kl20.push_back(divergence(reference[i][best.size()], ours));
      best.push_back(best_of(ours, 20));
    };
    QUIRE_RETURN_IF_ERROR(scorer->score(ids, observe));
  }
  return absl::OkStatus();
}

void SmolLm2::expect_golden(const ForcedRun& run, const ArithmeticClass& limits) {
  const GoldenDeviations deviations = golden_deviations(run);
  expect_within("|d logprob| of golden tokens", deviations.golden, limits.mean, limits.p99,
                limits.max);
  const double argmax = deviations.matches / static_cast<double>(deviations.golden.size());
  std::printf("best token = golden: %.2f %%, largest gap where not %.3f\n", argmax * 100.0,
              deviations.largest_open_gap);
  EXPECT_GE(argmax, limits.min_argmax);
  EXPECT_LE(deviations.largest_open_gap, limits.open_gap);
}

void SmolLm2::expect_kl20(const ForcedRun& run, const ArithmeticClass& limits) {
  expect_within("KL20", run.kl20, limits.kl_mean, limits.kl_p99,
                std::numeric_limits<double>::infinity());
  // What the runner reports, token by token through its sampler, is what the scorer found at once.
  std::size_t n = 0;
  for (std::size_t i = 0; i < run.items.size(); ++i) {
    for (std::size_t t = 0; t < run.outputs[i].logprobs.size(); ++t, ++n) {
      const auto golden = run.items[i]["output_ids"][t].get<TokenId>();
      const auto reported = static_cast<double>(logprob_of(run.outputs[i].logprobs[t], golden));
      ASSERT_NEAR(reported, run.golden[n], 1e-5) << "item " << i << ", token " << t;
    }
  }
  EXPECT_EQ(n, run.kl20.size());
}

absl::StatusOr<std::vector<double>> SmolLm2::nll_deviations(const std::string& model,
                                                            const char* dtype,
                                                            std::size_t most) const {
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<Scorer> scorer,
                         Scorer::open(model, scoring_options(dtype)));
  std::vector<double> deviations;
  for (std::size_t w = 0; w < std::min(most, windows_.size()); ++w) {
    const auto ids = windows_[w]["ids"].get<std::vector<TokenId>>();
    std::vector<double> nll;
    QUIRE_RETURN_IF_ERROR(scorer->score(ids, [&](std::size_t i, absl::Span<const float> logits) {
      nll.push_back(-Distribution(logits).logprob(ids[i]));
    }));
    EXPECT_EQ(nll.size(), ids.size() - 1);
    deviations.push_back(mean_of(nll) - windows_[w]["nll"].get<double>());
  }
  return deviations;
}

absl::StatusOr<std::vector<double>> SmolLm2::prompt_deviations(const std::string& model,
                                                               const char* dtype,
                                                               std::size_t longest) const {
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<Scorer> scorer,
                         Scorer::open(model, scoring_options(dtype)));
  std::vector<double> deviations;
  for (const nlohmann::json& item : items_) {
    const auto ids = item["prompt_ids"].get<std::vector<TokenId>>();
    if (!item.contains("prompt_logprobs") || ids.size() > longest) continue;
    const nlohmann::json& reference = item["prompt_logprobs"];
    QUIRE_RETURN_IF_ERROR(scorer->score(ids, [&](std::size_t i, absl::Span<const float> logits) {
      const double ours = Distribution(logits).logprob(ids[i]);
      deviations.push_back(std::abs(ours - reference[i].get<double>()));
    }));
  }
  return deviations;
}

}  // namespace quire::test
