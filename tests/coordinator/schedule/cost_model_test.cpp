// The cost model against machines whose cost is known: one like a CPU, where every token costs, one
// like a GPU, where tokens are free until it computes longer than it streams weights.
#include "coordinator/schedule/cost_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"

namespace quire::test {
namespace {

constexpr int kMaxContext = 4000;

struct Machine {
  bool is_gpu = false;
  double speed = 1.0;
  int max_rows() const { return is_gpu ? 256 : 32; }
  int max_chunk() const { return is_gpu ? 2048 : 512; }
  double us(const StepWork& w) const {
    if (w.num_tokens == 0) return 0.0;
    const double cpu = 3000.0 + 9000.0 * w.num_tokens + 300.0 * w.num_samples;
    const double gpu = 200.0 + std::max(5000.0, 39.0 * w.num_tokens) + 3.0 * w.num_samples;
    return speed * (is_gpu ? gpu + 0.005 * w.context_tokens : cpu + 0.8 * w.context_tokens);
  }
};

class Load {
 public:
  Load(const Machine& machine, unsigned seed) : machine_(machine), random_(seed) {}

  StepWork decodes() {
    StepWork work;
    // Few rows as often as many.
    const int most = uniform() < 0.5 ? machine_.max_rows() : machine_.max_rows() / 16;
    work.num_rows = work.num_tokens = work.num_samples = 1 + static_cast<int>(uniform() * most);
    for (int i = 0; i < work.num_rows; ++i) work.context_tokens += 1.0 + uniform() * kMaxContext;
    work.context_reads = work.context_tokens;
    return work;
  }
  StepWork step(double prefill_share = 0.3) {
    StepWork work = decodes();
    if (uniform() >= prefill_share) return work;
    const int chunk = 1 + static_cast<int>(uniform() * machine_.max_chunk());
    work.add_row(std::floor(uniform() * kMaxContext), chunk);
    return work;
  }
  // Within 20 % of the truth; one in fifty is 5 to 50 times as slow.
  double measured(const StepWork& work) {
    const double us = machine_.us(work) * (0.8 + 0.4 * uniform());
    return uniform() < 0.02 ? us * (5.0 + 45.0 * uniform()) : us;
  }
  void show(StepCostModel& model, int num_steps, double prefill_share = 0.3) {
    for (int i = 0; i < num_steps; ++i) {
      const StepWork work = step(prefill_share);
      model.observe(work, measured(work));
    }
  }
  // Of predictions over steps of this kind: the largest |ln(predicted / true)|.
  double worst_error(const StepCostModel& model, double prefill_share = 0.3) {
    double worst = 0.0;
    for (int i = 0; i < 1000; ++i) {
      const StepWork work = step(prefill_share);
      worst = std::max(worst, std::abs(std::log(model.predict_us(work) / machine_.us(work))));
    }
    return worst;
  }
  double uniform() { return std::uniform_real_distribution<double>(0.0, 1.0)(random_); }

 private:
  const Machine machine_;
  std::mt19937 random_;
};

// Every machine with several seeds.
class CostModel : public testing::TestWithParam<bool> {
 protected:
  Machine machine() const { return {GetParam()}; }
};
INSTANTIATE_TEST_SUITE_P(Machines, CostModel, testing::Bool(),
                         [](const auto& p) { return p.param ? "Gpu" : "Cpu"; });

TEST(CostModelStart, NothingIsKnownBeforeAFewSteps) {
  StepCostModel model;
  const StepWork work = {1, 8, 1, 36};
  for (int i = 0; i < 4; ++i) model.observe(work, 100.0);
  EXPECT_FALSE(model.known());
  EXPECT_EQ(model.predict_us(work), 0.0);
  EXPECT_EQ(model.max_prefill_tokens(work, 0, 1.0), std::numeric_limits<int>::max());
  model.observe({}, 5.0);
  model.observe(work, 0.0);
  model.observe(work, -3.0);
  model.observe(work, std::nan(""));
  model.observe(work, std::numeric_limits<double>::infinity());
  EXPECT_FALSE(model.known());  // none of those was a step
  model.observe(work, 100.0);
  EXPECT_TRUE(model.known());
  EXPECT_NEAR(model.predict_us(work), 100.0, 5.0);
}

// A server's first minutes on a busy machine: one short prompt after the other, each answered by a
// few streams; its first steps are far too slow, others much too slow now and then.
class FirstMinutes {
 public:
  FirstMinutes(const Machine& machine, int num_slow, unsigned seed)
      : machine_(machine), num_slow_(num_slow), load_(machine, seed) {}

  void show_one(StepCostModel& model) {
    const StepWork work = next();
    double us = machine_.us(work) * std::exp(0.5 * load_.uniform());
    if (steps_ <= num_slow_) us *= 5.0 + 95.0 * load_.uniform();
    if (load_.uniform() < 0.1) us *= 2.0 + 18.0 * load_.uniform();
    token_us_ = std::min(token_us_, us / work.num_tokens);
    model.observe(work, us);
  }
  // What a token took in the step that had it cheapest so far.
  double cheapest_token_us() const { return token_us_; }

 private:
  StepWork next() {
    ++steps_;
    StepWork work;
    if (left_ == 0) {
      rows_ = 1 + static_cast<int>(load_.uniform() * 3);
      context_ = 5 + static_cast<int>(load_.uniform() * 55);
      left_ = 10 + static_cast<int>(load_.uniform() * 30);
      work.add_row(0, context_);
      work.num_samples = rows_;
      return work;
    }
    --left_;
    for (int row = 0; row < rows_; ++row) work.add_row(context_, 1);
    work.num_samples = rows_;
    ++context_;
    return work;
  }

  const Machine machine_;
  const int num_slow_;
  Load load_;
  int steps_ = 0, left_ = 0, rows_ = 0, context_ = 0;
  double token_us_ = std::numeric_limits<double>::infinity();
};

// Of a long prompt, in steps of `chunk` tokens.
template <typename Cost>
double prompt_us(int num_tokens, int chunk, const Cost& cost) {
  double us = 0.0;
  for (int begin = 0; begin < num_tokens; begin += chunk) {
    StepWork work;
    work.add_row(begin, std::min(chunk, num_tokens - begin));
    us += cost(work);
  }
  return us;
}

TEST_P(CostModel, SlowFirstStepsAreNotExtrapolatedToLongPrompts) {
  for (unsigned seed = 1; seed <= 100; ++seed) {
    const int num_slow = static_cast<int>(seed % 4) * 3;
    SCOPED_TRACE(absl::StrCat("seed ", seed, ", the first ", num_slow, " steps slow"));
    const Machine here = {GetParam(), seed % 3 == 0 ? 10.0 : 1.0};
    FirstMinutes minutes(here, num_slow, seed);
    StepCostModel model;
    for (int step = 1; step <= 300; ++step) {
      minutes.show_one(model);
      if (!model.known() || step <= num_slow) continue;
      const double truth = prompt_us(1972, 512, [&](const StepWork& w) { return here.us(w); });
      const double guess =
          prompt_us(1972, 512, [&](const StepWork& w) { return model.predict_us(w); });
      // Nobody can know yet that tokens get cheaper in larger steps.
      const double most = std::max(truth, 1972 * minutes.cheapest_token_us());
      ASSERT_LT(guess, (GetParam() ? 10.0 : 2.5) * most) << "after " << step << " steps";
      ASSERT_GT(guess, truth / 3.0) << "after " << step << " steps";
      StepWork large;
      large.add_row(0, 512);
      ASSERT_EQ(model.least_us(large), 0.0) << "no step like it has been seen";
    }
  }
}

TEST_P(CostModel, TheLeastIsBelowTheTruthAndNotFarWhereItIsKnown) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Load load(machine(), seed);
    StepCostModel model;
    EXPECT_EQ(model.least_us(load.step()), 0.0);
    load.show(model, 10);
    EXPECT_EQ(model.least_us(load.step()), 0.0) << "too few steps";
    load.show(model, 300);
    for (int i = 0; i < 100; ++i) {
      StepWork prompt;
      prompt.add_row(load.uniform() * 3000, machine().max_chunk());
      ASSERT_LT(model.least_us(prompt), machine().us(prompt));
      ASSERT_GT(model.least_us(prompt), machine().us(prompt) / 3.0);
    }
    // Where predictions are wrong all the time, little is sure.
    for (int i = 0; i < 200; ++i) {
      const StepWork work = load.step();
      model.observe(work, machine().us(work) * (i % 2 == 0 ? 0.4 : 2.5));
    }
    StepWork prompt;
    prompt.add_row(0, machine().max_chunk());
    EXPECT_LT(model.least_us(prompt), machine().us(prompt) / 3.0);
  }
}

// A machine that reads each row's context once and then computes with it for every token.
TEST(CostModelContext, ThatOfAPromptsRowIsReadOnceAndAttendedToByEachToken) {
  const auto truth = [](const StepWork& w) {
    return 4000.0 + 1200.0 * w.num_tokens + 100.0 * w.num_samples + 0.9 * w.context_reads +
           0.15 * (w.context_tokens - w.context_reads);
  };
  std::mt19937 random(7);
  const auto uniform = [&](double most) {
    return std::uniform_real_distribution<double>(0.0, most)(random);
  };
  StepCostModel model;
  for (int i = 0; i < 2000; ++i) {
    StepWork work;
    for (int row = static_cast<int>(uniform(32)); row >= 0; --row) work.add_row(uniform(1000), 1);
    work.num_samples = work.num_rows;
    if (i % 3 == 0) work.add_row(uniform(6000), 16 + static_cast<int>(uniform(48)));
    model.observe(work, truth(work) * (0.9 + uniform(0.2)));
  }
  for (const int chunk : {16, 64}) {
    for (const int begin : {0, 3000, 6000}) {
      StepWork work;
      for (int row = 0; row < 32; ++row) work.add_row(200, 1);
      work.num_samples = 32;
      work.add_row(begin, chunk);
      EXPECT_NEAR(model.predict_us(work) / truth(work), 1.0, 0.05) << chunk << " at " << begin;
    }
  }
}

TEST_P(CostModel, LearnsToPredictUnderNoiseAndOutliers) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Load load(machine(), seed);
    StepCostModel model;
    const StepWork first = load.step();
    model.observe(first, 30.0 * machine().us(first));
    load.show(model, 200);
    EXPECT_LT(load.worst_error(model), 0.2);
    load.show(model, 2000);
    EXPECT_LT(load.worst_error(model), 0.15);
  }
}

TEST_P(CostModel, RecoversWhatATokenCosts) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Load load(machine(), seed);
    StepCostModel model;
    load.show(model, 3000);
    const int late = machine().max_chunk();
    const double token_us = GetParam() ? 39.0 : 9000.0;
    const double context_us = GetParam() ? 0.005 : 0.8;
    EXPECT_NEAR(model.us_per_prefill_token(0, late) / token_us, 1.0, 0.1);
    EXPECT_NEAR((model.us_per_prefill_token(3000, late) - model.us_per_prefill_token(0, late)) /
                    (3000.0 * context_us),
                1.0, 0.4);
    // A step that streams weights anyway has room for drafts; a CPU has none.
    EXPECT_NEAR(model.us_per_draft_token(0, 16) / (GetParam() ? 5200.0 : 9300.0),
                GetParam() ? 0.0 : 1.0, 0.1);
  }
}

TEST_P(CostModel, NeverNegativeAndNeverLessForMore) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Load load(machine(), seed);
    StepCostModel model;
    for (int i = 0; i < 300; ++i) {
      // Times that have nothing to do with the work: whatever is fitted must stay a cost.
      model.observe(load.step(), std::exp(12.0 * load.uniform()));
      StepWork work = load.step();
      double last = model.predict_us(work);
      ASSERT_GE(last, 0.0);
      for (int more = 0; more < 6; ++more) {
        if (more % 3 == 0) work.num_tokens += 1 + static_cast<int>(load.uniform() * 300);
        if (more % 3 == 1) work.num_samples += 5;
        if (more % 3 == 2) work.add_row(10000.0 * load.uniform(), more);
        const double us = model.predict_us(work);
        ASSERT_TRUE(std::isfinite(us));
        ASSERT_GE(us, last);
        last = us;
      }
    }
  }
}

TEST_P(CostModel, ALoadWithoutPrefillsDoesNotUnlearnThem) {
  for (unsigned seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Load load(machine(), seed);
    StepCostModel model;
    load.show(model, 1000);
    load.show(model, 10'000, /*prefill_share=*/0.0);
    EXPECT_LT(load.worst_error(model, 0.0), 0.15);
    EXPECT_LT(load.worst_error(model, 1.0), 0.3);
  }
}

TEST_P(CostModel, WhatWasNeverShownIsGuessedInProportion) {
  for (unsigned seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Load load(machine(), seed);
    StepCostModel model;
    double dearest = 0.0;  // us per token of any step so far
    for (int i = 0; i < 3000; ++i) {
      const StepWork work = load.decodes();
      const double us = machine().us(work) * (0.8 + 0.4 * load.uniform());
      dearest = std::max(dearest, us / work.num_tokens);
      model.observe(work, us);
    }
    const StepWork prompt = {1, 512, 1, context_tokens_of(0, 512), 512};
    EXPECT_GE(model.predict_us(prompt), machine().us({1, 1, 1, 1}) / 2);
    EXPECT_LE(model.predict_us(prompt), 512 * dearest);
    // And it is learned from the first few that come.
    for (int i = 0; i < 20; ++i) model.observe(prompt, machine().us(prompt));
    EXPECT_NEAR(model.predict_us(prompt) / machine().us(prompt), 1.0, 0.15);
  }
}

TEST_P(CostModel, AnOutlierMovesLittleAndALastingChangeIsFollowed) {
  for (unsigned seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Load load(machine(), seed);
    StepCostModel model;
    load.show(model, 500);
    const StepWork work = load.decodes();
    const double before = model.predict_us(work);
    model.observe(work, 1000.0 * before);
    model.observe(work, 1000.0 * before);
    EXPECT_NEAR(model.predict_us(work) / before, 1.0, 0.05);
    model.observe(work, before / 1000.0);
    EXPECT_NEAR(model.predict_us(work) / before, 1.0, 0.05);
    Load slower({GetParam(), 3.0}, seed);
    slower.show(model, 300);
    EXPECT_LT(slower.worst_error(model), 0.5);
    slower.show(model, 1000);
    EXPECT_LT(slower.worst_error(model), 0.2);
  }
}

// Too small to be a surprise, and after very many steps.
TEST_P(CostModel, ASmallChangeIsFollowedHoweverMuchWasSeen) {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    StepCostModel model;
    Load(machine(), seed).show(model, 20'000);
    Load slower({GetParam(), 1.35}, seed);
    EXPECT_GT(slower.worst_error(model), 0.25);
    slower.show(model, 2000);
    EXPECT_LT(slower.worst_error(model), 0.15);
  }
}

TEST_P(CostModel, MostPrefillTokensAreThoseThatFit) {
  for (unsigned seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Load load(machine(), seed);
    StepCostModel model;
    load.show(model, 300);
    for (int i = 0; i < 500; ++i) {
      const StepWork others = i % 10 == 0 ? StepWork{} : load.step();
      const double begin = std::floor(load.uniform() * 8000);
      const double allowed = std::exp(14.0 * load.uniform());
      const auto extra = [&](double n) {
        StepWork with = others;
        if (n > 0) with.add_row(begin, static_cast<int>(n));
        return model.predict_us(with) - model.predict_us(others);
      };
      const int most = model.max_prefill_tokens(others, begin, allowed);
      ASSERT_GE(most, 0);
      ASSERT_LT(most, 1 << 24);
      ASSERT_LE(extra(most), allowed * (1.0 + 1e-6) + 1e-6);
      ASSERT_GT(extra(most + 1.0), allowed * (1.0 - 1e-6) - 1e-6);
    }
    EXPECT_EQ(model.max_prefill_tokens({}, 0, -1.0), 0);
  }
}

}  // namespace
}  // namespace quire::test
