// Beam search against what transformers finds (beam_reference.h) and against a plain one written
// down here: whole sequences, the whole vocabulary, everything sorted in every step.
#include "coordinator/schedule/beam_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/coordinator/schedule/beam_model.h"
#include "tests/coordinator/schedule/beam_reference.h"

namespace quire::test {
namespace {

using Stop = BeamParams::EarlyStopping;
using Hypothesis = BeamSearch::Hypothesis;

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<Hypothesis> search(const BeamModel& model, BeamParams params,
                               std::vector<TokenId> stops, int max_tokens) {
  BeamSearch beams(params, std::move(stops), max_tokens);
  BeamDriver(model, beams).run();
  return beams.take_best(params.width);
}

struct PlainBeam {
  std::vector<TokenId> tokens;
  double cum = 0.0;
  double score = 0.0;
};

// The definition, with nothing saved.
std::vector<PlainBeam> plain_search(const BeamModel& model, BeamParams params,
                                    const std::set<TokenId>& stops, int max_tokens) {
  const auto width = static_cast<std::size_t>(params.width);
  const auto score = [&](double cum, std::size_t length) {
    return cum / std::pow(static_cast<double>(length), params.length_penalty);
  };
  std::vector<PlainBeam> open = {{}};
  std::vector<PlainBeam> finished;
  for (int length = 1; length <= max_tokens && !open.empty(); ++length) {
    std::vector<PlainBeam> all;
    for (const PlainBeam& beam : open) {
      const std::vector<float> logprobs = model.logprobs(beam.tokens);
      for (TokenId token = 0; token < model.vocab; ++token) {
        PlainBeam longer = beam;
        longer.tokens.push_back(token);
        longer.cum += logprobs[static_cast<std::size_t>(token)];
        longer.score = score(longer.cum, longer.tokens.size());
        all.push_back(longer);
      }
    }
    // Stable: `all` is in order of parents, then of tokens.
    std::stable_sort(all.begin(), all.end(),
                     [](const PlainBeam& a, const PlainBeam& b) { return a.cum > b.cum; });
    open.clear();
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      const bool ends = stops.count(all[rank].tokens.back()) > 0 || length == max_tokens;
      if (ends && rank < width) finished.push_back(all[rank]);
      if (!ends && open.size() < width) open.push_back(all[rank]);
    }
    std::stable_sort(finished.begin(), finished.end(),
                     [](const PlainBeam& a, const PlainBeam& b) { return a.score > b.score; });
    if (finished.size() < width || open.empty()) continue;
    finished.resize(width);
    if (params.early_stopping == Stop::kYes) break;
    double bound = score(open[0].cum, static_cast<std::size_t>(length));
    if (params.early_stopping == Stop::kNever && params.length_penalty > 0.0) {
      bound = score(open[0].cum, static_cast<std::size_t>(max_tokens));
    }
    if (bound <= finished.back().score) break;
  }
  if (finished.size() > width) finished.resize(width);
  return finished;
}

void expect_same(const std::vector<Hypothesis>& got, const std::vector<PlainBeam>& want,
                 const std::set<TokenId>& stops) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].tokens, want[i].tokens) << "hypothesis " << i;
    ASSERT_NEAR(got[i].cum_logprob, want[i].cum, 1e-9);
    ASSERT_NEAR(got[i].score, want[i].score, 1e-9 * (1.0 + std::abs(want[i].score)));
    ASSERT_EQ(got[i].stopped, stops.count(want[i].tokens.back()) > 0);
    ASSERT_EQ(got[i].logprobs.size(), got[i].tokens.size());
    double cum = 0.0;
    for (const float logprob : got[i].logprobs) cum += logprob;
    ASSERT_NEAR(cum, got[i].cum_logprob, 1e-9);
  }
}

TEST(BeamSearch, FindsWhatTransformersFinds) {
  int num_beams = 0;
  for (const ReferenceSearch& reference : reference_searches()) {
    SCOPED_TRACE(absl::StrCat("seed ", reference.seed));
    BeamModel model;
    model.vocab = kReferenceVocab;
    model.seed = reference.seed;
    model.eos_logit = reference.eos_logit;
    const std::vector<Hypothesis> got = search(model, reference.params, {0}, kReferenceMaxTokens);
    ASSERT_EQ(got.size(), reference.beams.size());
    for (std::size_t i = 0; i < got.size(); ++i, ++num_beams) {
      EXPECT_EQ(got[i].tokens, reference.beams[i].tokens) << "beam " << i;
      EXPECT_NEAR(got[i].score, reference.beams[i].score,
                  3e-6 * (1.0 + std::abs(reference.beams[i].score)));
      EXPECT_EQ(got[i].stopped, got[i].tokens.back() == 0);
    }
  }
  EXPECT_EQ(num_beams, (1 + 2 + 4 + 8) * 15);
}

TEST(BeamSearch, FindsWhatAPlainSearchFinds) {
  std::set<std::size_t> lengths;  // that searches of every kind were among them
  int stopped = 0, cut = 0;
  for (unsigned seed = 1; seed <= 6; ++seed) {
    for (int width = 1; width <= 16; ++width) {
      for (const double penalty : {-1.0, 0.0, 0.5, 1.0, 2.0}) {
        for (const Stop early : {Stop::kNo, Stop::kYes, Stop::kNever}) {
          std::mt19937 random(seed * 1000 + static_cast<unsigned>(width));
          BeamModel model;
          model.seed = random();
          model.vocab = 5 + static_cast<int>(random() % 46);
          model.eos_logit = std::vector<double>{-3.0, 0.0, 2.0, 4.0, 7.0}[random() % 5];
          if (random() % 3 == 0) model.num_levels = 3;  // many ties
          const int max_tokens = 1 + static_cast<int>(random() % 12);
          std::set<TokenId> stops;
          const auto num_stops = static_cast<TokenId>(random() % 4);
          for (TokenId token = 0; token < num_stops; ++token) stops.insert(token);
          const BeamParams params{width, penalty, early};
          SCOPED_TRACE(absl::StrCat("seed ", seed, " width ", width, " penalty ", penalty,
                                    " early stopping ", static_cast<int>(early)));
          const std::vector<Hypothesis> got =
              search(model, params, {stops.begin(), stops.end()}, max_tokens);
          expect_same(got, plain_search(model, params, stops, max_tokens), stops);
          if (HasFatalFailure()) return;
          for (const Hypothesis& h : got) {
            lengths.insert(h.tokens.size());
            ++(h.stopped ? stopped : cut);
          }
        }
      }
    }
  }
  EXPECT_EQ(lengths.size(), 12u);
  EXPECT_GT(stopped, 1000);
  EXPECT_GT(cut, 1000);
}

TEST(BeamSearch, OpenBeamsNameTheBeamTheyContinue) {
  BeamModel model;
  model.seed = 5;
  BeamSearch beams({3, 1.0, Stop::kNo}, {}, 4);
  EXPECT_EQ(beams.num_open(), 1);
  const std::vector<TokenLogprob> first = {{7, -0.5f}, {2, -1.0f}, {4, -1.5f}, {1, -2.0f}};
  const BeamCandidates only{first};
  const std::vector<BeamSearch::Open>& open = beams.step({&only, 1});
  ASSERT_EQ(open.size(), 3u);
  EXPECT_EQ(open[1].parent, 0);
  EXPECT_EQ(open[1].token, 2);
  // Both of the next best continue the second beam, and the tie is for the lower parent.
  const std::vector<TokenLogprob> none = {{9, -4.0f}};
  const std::vector<TokenLogprob> two = {{5, -0.25f}, {6, -0.5f}, {3, -3.5f}};
  const std::vector<BeamCandidates> next = {{none}, {two}, {none}};
  beams.step(next);
  ASSERT_EQ(open.size(), 3u);
  EXPECT_EQ(open[0].parent, 1);
  EXPECT_EQ(open[0].token, 5);
  EXPECT_EQ(open[1].parent, 1);
  EXPECT_EQ(open[1].token, 6);
  EXPECT_EQ(open[2].parent, 0);  // -0.5 - 4.0 as -1.0 - 3.5
  EXPECT_EQ(open[2].token, 9);
  EXPECT_EQ(beams.num_generated(), 2);
  EXPECT_FALSE(beams.done());
}

TEST(BeamSearch, ImpossibleTokensAreNeverContinued) {
  BeamSearch beams({2, 1.0, Stop::kNo}, {0}, 5);
  const std::vector<TokenLogprob> one = {{3, 0.0f}, {0, -kInf}, {1, -kInf}, {2, -kInf}};
  const BeamCandidates only{one};
  EXPECT_EQ(beams.step({&only, 1}).size(), 1u);
  const std::vector<TokenLogprob> end = {{0, 0.0f}, {1, -kInf}};
  const BeamCandidates last{end};
  EXPECT_TRUE(beams.step({&last, 1}).empty());
  const std::vector<Hypothesis> best = beams.take_best(2);
  ASSERT_EQ(best.size(), 1u);
  EXPECT_EQ(best[0].tokens, (std::vector<TokenId>{3, 0}));
  EXPECT_TRUE(best[0].stopped);
}

// A penalty below 0 makes every further token cost: the bound is the present length.
TEST(BeamSearch, NeverWithANegativePenaltyJudgesByThePresentLength) {
  BeamSearch beams({2, -1.0, Stop::kNever}, {0}, 12);
  const std::vector<TokenLogprob> first = {{0, -0.125f}, {5, -2.5f}, {6, -2.625f}};
  const BeamCandidates only{first};
  ASSERT_EQ(beams.step({&only, 1}).size(), 2u);
  const std::vector<TokenLogprob> after5 = {{7, -0.5f}, {0, -2.5f}};
  const std::vector<TokenLogprob> after6 = {{8, -3.0f}};
  const std::vector<BeamCandidates> next = {{after5}, {after6}};
  beams.step(next);
  ASSERT_FALSE(beams.done());  // -3.0 * 2 beats -5.0 * 2
  const std::vector<TokenLogprob> end = {{0, -0.125f}, {1, -9.0f}};
  const std::vector<BeamCandidates> last = {{end}, {after6}};
  beams.step(last);
  EXPECT_TRUE(beams.done());
  const std::vector<Hypothesis> best = beams.take_best(2);
  ASSERT_EQ(best.size(), 2u);
  EXPECT_EQ(best[1].tokens, (std::vector<TokenId>{5, 7, 0}));
  EXPECT_EQ(best[1].score, -9.375);
}

TEST(BeamSearch, TakenEarlyOpenBeamsCompeteWithFinishedOnes) {
  BeamSearch beams({2, 1.0, Stop::kNever}, {0}, 50);
  const std::vector<TokenLogprob> first = {{5, -1.0f}, {0, -1.5f}, {3, -2.0f}};
  const BeamCandidates only{first};
  ASSERT_EQ(beams.step({&only, 1}).size(), 2u);
  const std::vector<TokenLogprob> after5 = {{6, -0.25f}, {0, -8.0f}};
  const std::vector<TokenLogprob> after3 = {{7, -2.0f}};
  const std::vector<BeamCandidates> next = {{after5}, {after3}};
  ASSERT_EQ(beams.step(next).size(), 2u);
  const std::vector<Hypothesis> best = beams.take_best(2);
  EXPECT_TRUE(beams.done());
  ASSERT_EQ(best.size(), 2u);
  EXPECT_EQ(best[0].tokens, (std::vector<TokenId>{5, 6}));
  EXPECT_EQ(best[0].score, -0.625);
  EXPECT_FALSE(best[0].stopped);
  EXPECT_EQ(best[1].tokens, (std::vector<TokenId>{0}));  // -1.5, before -4.0 / 2
  EXPECT_TRUE(best[1].stopped);
}

TEST(BeamSearch, TakenBeforeTheFirstTokenThereIsOneHypothesisOfNone) {
  BeamSearch beams({4, 1.0, Stop::kNo}, {0}, 5);
  const std::vector<Hypothesis> best = beams.take_best(4);
  ASSERT_EQ(best.size(), 1u);
  EXPECT_TRUE(best[0].tokens.empty());
  EXPECT_EQ(best[0].score, 0.0);
}

TEST(BeamSearch, AsksForMoreCandidatesIfManyTokensStop) {
  EXPECT_EQ(BeamSearch({4, 1.0, Stop::kNo}, {0}, 5).num_candidates(), 8);
  EXPECT_EQ(BeamSearch({2, 1.0, Stop::kNo}, {1, 2, 3, 4, 4}, 5).num_candidates(), 6);
  EXPECT_EQ(BeamSearch({16, 1.0, Stop::kNo}, {0}, 5).num_candidates(), 32);
  std::vector<TokenId> many;
  for (TokenId token = 0; token < 64; ++token) many.push_back(token);
  EXPECT_EQ(BeamSearch({4, 1.0, Stop::kNo}, many, 5).num_candidates(), kMaxRowLogprobs);
}

TEST(BeamSearch, ALongSearchHoldsItsWholeSequence) {
  BeamModel model;
  model.seed = 3;
  model.vocab = 40;
  const std::vector<Hypothesis> best = search(model, {4, 1.0, Stop::kNo}, {}, 300);
  ASSERT_EQ(best.size(), 4u);
  for (const Hypothesis& h : best) {
    ASSERT_EQ(h.tokens.size(), 300u);
    for (std::size_t i = 0; i < h.tokens.size(); ++i) {
      const std::vector<float> all = model.logprobs({h.tokens.data(), i});
      ASSERT_EQ(all[static_cast<std::size_t>(h.tokens[i])], h.logprobs[i]);
    }
  }
}

}  // namespace
}  // namespace quire::test
