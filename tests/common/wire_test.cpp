// Round trips of random plans and results, and what a hostile peer could send.
#include "common/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "fleet.pb.h"

namespace quire::wire {
namespace {

using ::testing::HasSubstr;

StepPlan small_plan() {
  StepPlan plan;
  plan.epoch = 3;
  plan.step = 7;
  plan.sampling_rank = 1;
  plan.releases = {4, 5};
  AdmitRow admit;
  admit.slot = 4;
  admit.tokens = {1, 2, 3};
  admit.num_prompt_tokens = 2;
  admit.sample_index = 1;
  admit.params.temperature = 0.7f;
  admit.params.seed = 0xfedcba9876543210;
  admit.params.logprobs = 5;
  plan.admits = {admit};
  plan.copies = {{0, 9, 4}};
  PlanRow row;
  row.slot = 4;
  row.num_tokens = 3;
  row.samples = true;
  row.new_blocks = {{0, 9}, {}};
  plan.rows = {row};
  return plan;
}

template <typename Below>
void adjust(SamplingParams& params, const Below& below) {
  params.presence_penalty = static_cast<float>(below(400)) / 100.0f - 2.0f;
  params.frequency_penalty = static_cast<float>(below(400)) / 100.0f - 2.0f;
  params.repetition_penalty = 1.0f + static_cast<float>(below(3));
  for (int i = below(4); i > 0; --i) params.logit_bias.push_back({i, static_cast<float>(below(9))});
  for (int i = below(4); i > 0; --i) params.allowed_token_ids.push_back(below(200000));
  params.min_tokens = below(3);
  if (params.min_tokens == 0) return;  // only with it do these travel
  for (int i = below(4); i > 0; --i) params.stop_token_ids.push_back(below(200000));
  params.ignore_eos = below(2) == 1;
}

StepPlan random_plan(std::mt19937& random) {
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  StepPlan plan;
  plan.epoch = random();
  plan.step = random();
  plan.sampling_rank = below(8);
  for (int i = below(5); i > 0; --i) plan.releases.push_back(i);
  for (int i = below(5); i > 0; --i) {
    AdmitRow row;
    row.slot = i;
    for (int t = 1 + below(50); t > 0; --t) row.tokens.push_back(below(200000));
    row.num_prompt_tokens = 1 + below(static_cast<int>(row.tokens.size()));
    row.sample_index = below(kMaxChoices);
    row.params.temperature = static_cast<float>(below(200)) / 100.0f;
    row.params.top_p = static_cast<float>(1 + below(100)) / 100.0f;
    row.params.top_k = below(100) - 1;
    row.params.min_p = static_cast<float>(below(100)) / 100.0f;
    row.params.seed = (std::uint64_t{random()} << 32) | random();
    row.params.logprobs = below(kMaxLogprobs + 2) - 1;
    if (below(2) == 0) adjust(row.params, below);
    plan.admits.push_back(row);
  }
  for (int i = 1 + below(3); i > 1; --i) {
    AdmitRow& fork = plan.admits.emplace_back();
    fork.slot = 10 + i;
    fork.fork_of = below(5);
    fork.num_prompt_tokens = 1 + below(9);
    fork.params.beam_width = below(kMaxBeamWidth + 1);
    fork.params.logprobs = fork.params.beam_width > 0 ? 2 * fork.params.beam_width : -1;
  }
  for (int i = below(4); i > 0; --i) plan.copies.push_back({below(2), 100 + below(9), i});
  for (int i = below(4); i > 0; --i) plan.saves.push_back({below(100), i});
  for (int i = below(4); i > 0; --i) plan.loads.push_back({i, below(100)});
  for (int i = below(20); i > 0; --i) {
    PlanRow row{.slot = i,
                .first_position = below(100000),
                .num_tokens = below(512),
                .samples = below(2) == 1};
    for (int g = below(3); g > 0; --g) {
      row.new_blocks.emplace_back();
      for (int b = below(6); b > 0; --b) row.new_blocks.back().push_back(below(1 << 20));
    }
    if (below(4) == 0) row.keep_blocks = below(100);
    for (int t = below(3); t > 0; --t) row.tokens.push_back(below(200000));
    for (int t = below(3); t > 0; --t) row.drafts.push_back(below(200000));
    plan.rows.push_back(row);
  }
  return plan;
}

void expect_equal(const StepPlan& a, const StepPlan& b) {
  EXPECT_EQ(a.epoch, b.epoch);
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.sampling_rank, b.sampling_rank);
  EXPECT_EQ(a.releases, b.releases);
  EXPECT_EQ(a.copies, b.copies);
  EXPECT_EQ(a.saves, b.saves);
  EXPECT_EQ(a.loads, b.loads);
  ASSERT_EQ(a.admits.size(), b.admits.size());
  for (std::size_t i = 0; i < a.admits.size(); ++i) {
    const AdmitRow &x = a.admits[i], &y = b.admits[i];
    EXPECT_EQ(x.slot, y.slot);
    EXPECT_EQ(x.tokens, y.tokens);
    EXPECT_EQ(x.fork_of, y.fork_of);
    EXPECT_EQ(x.params.beam_width, y.params.beam_width);
    EXPECT_EQ(x.num_prompt_tokens, y.num_prompt_tokens);
    EXPECT_EQ(x.sample_index, y.sample_index);
    EXPECT_EQ(x.params.temperature, y.params.temperature);
    EXPECT_EQ(x.params.top_p, y.params.top_p);
    EXPECT_EQ(x.params.top_k, y.params.top_k);
    EXPECT_EQ(x.params.min_p, y.params.min_p);
    EXPECT_EQ(x.params.seed, y.params.seed);
    EXPECT_EQ(x.params.logprobs, y.params.logprobs);
    EXPECT_EQ(x.params.presence_penalty, y.params.presence_penalty);
    EXPECT_EQ(x.params.frequency_penalty, y.params.frequency_penalty);
    EXPECT_EQ(x.params.repetition_penalty, y.params.repetition_penalty);
    EXPECT_EQ(x.params.logit_bias, y.params.logit_bias);
    EXPECT_EQ(x.params.allowed_token_ids, y.params.allowed_token_ids);
    EXPECT_EQ(x.params.min_tokens, y.params.min_tokens);
    EXPECT_EQ(x.params.stop_token_ids, y.params.stop_token_ids);
    EXPECT_EQ(x.params.ignore_eos, y.params.ignore_eos);
  }
  ASSERT_EQ(a.rows.size(), b.rows.size());
  for (std::size_t i = 0; i < a.rows.size(); ++i) {
    const PlanRow &x = a.rows[i], &y = b.rows[i];
    EXPECT_EQ(x.slot, y.slot);
    EXPECT_EQ(x.first_position, y.first_position);
    EXPECT_EQ(x.num_tokens, y.num_tokens);
    EXPECT_EQ(x.samples, y.samples);
    EXPECT_EQ(x.new_blocks, y.new_blocks);
    EXPECT_EQ(x.keep_blocks, y.keep_blocks);
    EXPECT_EQ(x.tokens, y.tokens);
    EXPECT_EQ(x.drafts, y.drafts);
  }
}

TEST(WireTest, PlansRoundTrip) {
  std::mt19937 random(1);  // seed 1
  expect_equal(small_plan(), *decode_plan(encode(small_plan())));
  for (int i = 0; i < 500; ++i) {
    const StepPlan plan = random_plan(random);
    absl::StatusOr<StepPlan> back = decode_plan(encode(plan));
    ASSERT_TRUE(back.ok()) << back.status();
    expect_equal(plan, *back);
  }
}

TEST(WireTest, ResultsRoundTrip) {
  StepResult result;
  result.epoch = 2;
  result.step = 9;
  result.busy_us = 1234;
  // The second row had a draft, and searches the widest beam.
  result.rows = {{0, 17, {}}, {3, 5, {{5, -0.25f}, {8, -INFINITY}}}, {3, 6, {}}};
  result.rows[2].logprobs.resize(kMaxRowLogprobs + 1);
  result.rows[0].no_number = true;
  v1::StepResult message;
  message.set_step(999);  // what was there before is gone
  message.add_rows();
  encode(result, &message);
  absl::StatusOr<StepResult> back = decode(message);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->epoch, 2u);
  EXPECT_EQ(back->step, 9u);
  EXPECT_EQ(back->busy_us, 1234);
  ASSERT_EQ(back->rows.size(), 3u);
  EXPECT_EQ(back->rows[0].token, 17);
  EXPECT_TRUE(back->rows[0].no_number);
  EXPECT_FALSE(back->rows[1].no_number);
  EXPECT_TRUE(back->rows[0].logprobs.empty());
  EXPECT_EQ(back->rows[1].row, 3);
  EXPECT_EQ(back->rows[1].logprobs[1].token, 8);
  EXPECT_EQ(back->rows[1].logprobs[1].logprob, -INFINITY);
  EXPECT_EQ(back->rows[2].row, 3);
  EXPECT_EQ(back->rows[2].token, 6);
  EXPECT_EQ(back->rows[2].logprobs.size(), result.rows[2].logprobs.size());
}

TEST(WireTest, HostilePlansAreRefusedByName) {
  struct Case {
    const char* says;
    std::function<void(StepPlan&)> spoil;
  };
  constexpr int kMax = std::numeric_limits<int>::max();
  const Case cases[] = {
      {"releases entry 1", [](StepPlan& p) { p.releases[1] = -1; }},
      {"named twice", [](StepPlan& p) { p.releases[1] = 4; }},
      {"releases entry 0", [](StepPlan& p) { p.releases[0] = kMax; }},
      {"sampling_rank", [](StepPlan& p) { p.sampling_rank = -1; }},
      {"admits entry 0", [](StepPlan& p) { p.admits[0].slot = -2; }},
      {"admits entry 1", [](StepPlan& p) { p.admits.push_back(p.admits[0]); }},
      {"admits[0].tokens is empty", [](StepPlan& p) { p.admits[0].tokens.clear(); }},
      {"admits[0].tokens[2]", [](StepPlan& p) { p.admits[0].tokens[2] = -7; }},
      {"num_prompt_tokens", [](StepPlan& p) { p.admits[0].num_prompt_tokens = 4; }},
      {"num_prompt_tokens", [](StepPlan& p) { p.admits[0].num_prompt_tokens = 0; }},
      {"num_prompt_tokens", [](StepPlan& p) { p.admits[0].num_prompt_tokens = -1; }},
      {"sample_index", [](StepPlan& p) { p.admits[0].sample_index = kMaxChoices; }},
      {"`temperature`", [](StepPlan& p) { p.admits[0].params.temperature = NAN; }},
      {"`logprobs`", [](StepPlan& p) { p.admits[0].params.logprobs = 1000000; }},
      {"`presence_penalty`", [](StepPlan& p) { p.admits[0].params.presence_penalty = NAN; }},
      {"`repetition_penalty`", [](StepPlan& p) { p.admits[0].params.repetition_penalty = 0; }},
      {"`logit_bias`",
       [](StepPlan& p) {
         p.admits[0].params.logit_bias = {{1, INFINITY}};
       }},
      {"`logit_bias`",
       [](StepPlan& p) {
         p.admits[0].params.logit_bias = {{-7, 1.0f}};
       }},
      {"`allowed_token_ids`", [](StepPlan& p) { p.admits[0].params.allowed_token_ids = {-1}; }},
      {"min_tokens", [](StepPlan& p) { p.admits[0].params.min_tokens = -1; }},
      {"`stop_token_ids`",
       [](StepPlan& p) {
         p.admits[0].params.min_tokens = 1;
         p.admits[0].params.stop_token_ids = {-1};
       }},
      {"copies[0]", [](StepPlan& p) { p.copies[0].to = -1; }},
      {"copies[0]", [](StepPlan& p) { p.copies[0].kv_group = 64; }},
      {"block 4 is written twice",
       [](StepPlan& p) {
         p.copies.push_back({0, 8, 4});
       }},
      {"block 9 is read and written",
       [](StepPlan& p) {
         p.copies.push_back({0, 3, 9});
       }},
      {"rows entry 0", [](StepPlan& p) { p.rows[0].slot = -1; }},
      {"rows entry 1", [](StepPlan& p) { p.rows.push_back(p.rows[0]); }},
      {"first_position", [](StepPlan& p) { p.rows[0].first_position = -1; }},
      {"num_tokens", [](StepPlan& p) { p.rows[0].num_tokens = -1; }},
      {"num_tokens", [](StepPlan& p) { p.rows[0].num_tokens = kMax; }},
      {"num_tokens", [](StepPlan& p) { p.rows[0].first_position = 1 << 30; }},
      {"new_blocks[0][1]", [](StepPlan& p) { p.rows[0].new_blocks[0][1] = -3; }},
      {"keep_blocks", [](StepPlan& p) { p.rows[0].keep_blocks = kMax; }},
      {"rows[0].tokens[0]", [](StepPlan& p) { p.rows[0].tokens = {-1}; }},
      {"rows[0].drafts[1]",
       [](StepPlan& p) {
         p.rows[0].drafts = {1, -1};
       }},
      {"has tokens, but a fork", [](StepPlan& p) { p.admits[0].fork_of = 5; }},
      {"fork_of",
       [](StepPlan& p) {
         p.admits[0].tokens.clear();
         p.admits[0].fork_of = kMax;
       }},
      {"beam_width", [](StepPlan& p) { p.admits[0].params.beam_width = kMaxBeamWidth + 1; }},
      {"beam_width", [](StepPlan& p) { p.admits[0].params.beam_width = -1; }},
      {"`logprobs`", [](StepPlan& p) { p.admits[0].params.logprobs = kMaxLogprobs + 1; }},
      {"`logprobs`",
       [](StepPlan& p) {
         p.admits[0].params.beam_width = kMaxBeamWidth;
         p.admits[0].params.logprobs = kMaxRowLogprobs + 1;
       }},
      {"saves[1]: its target is written twice",
       [](StepPlan& p) {
         p.saves = {{1, 7}, {2, 7}};
       }},
      {"loads[1]: its target is written twice",
       [](StepPlan& p) {
         p.loads = {{3, 7}, {3, 8}};
       }},
      {"loads[0]",
       [](StepPlan& p) {
         p.loads = {{-1, 7}};
       }},
      {"saves[0]",
       [](StepPlan& p) {
         p.saves = {{1, -7}};
       }},
      {"KV groups", [](StepPlan& p) { p.rows[0].new_blocks.resize(65); }},
  };
  for (const Case& c : cases) {
    StepPlan plan = small_plan();
    c.spoil(plan);
    const absl::Status status = decode_plan(encode(plan)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
    EXPECT_THAT(std::string(status.message()), HasSubstr("StepPlan 7"));
  }
}

TEST(WireTest, GarbageAndTruncationNeverCrash) {
  std::mt19937 random(2);  // seed 2
  const std::string whole = encode(small_plan());
  int refused = 0;
  for (std::size_t n = 0; n < whole.size(); ++n) {
    refused += decode_plan(whole.substr(0, n)).ok() ? 0 : 1;
  }
  EXPECT_GT(refused, static_cast<int>(whole.size()) / 2);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = encode(random_plan(random));
    for (int flips = 1 + static_cast<int>(random() % 4); flips > 0 && !bytes.empty(); --flips) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    absl::StatusOr<StepPlan> plan = decode_plan(bytes);
    if (!plan.ok()) {
      EXPECT_FALSE(plan.status().message().empty());
      continue;
    }
    for (const PlanRow& row : plan->rows) ASSERT_GE(row.slot, 0);
  }
  EXPECT_FALSE(decode_plan("GET / HTTP/1.1\r\n\r\n").ok());
}

TEST(WireTest, AdmitWithoutSamplingIsRefused) {
  v1::StepPlan message;
  message.add_admits()->add_tokens(1);
  message.mutable_admits(0)->set_num_prompt_tokens(1);
  EXPECT_THAT(std::string(decode_plan(message.SerializeAsString()).status().message()),
              HasSubstr("sampling is missing"));
}

// -1 says "none" in the structs; on the wire the field is absent then.
TEST(WireTest, AbsentFieldsHaveNoSecondSpelling) {
  v1::StepPlan message;
  ASSERT_TRUE(message.ParseFromString(encode(small_plan())));
  message.mutable_rows(0)->set_keep_blocks(-1);
  EXPECT_THAT(std::string(decode_plan(message.SerializeAsString()).status().message()),
              HasSubstr("rows[0].keep_blocks"));
  ASSERT_TRUE(message.ParseFromString(encode(small_plan())));
  message.mutable_admits(0)->clear_tokens();
  message.mutable_admits(0)->set_fork_of(-1);
  EXPECT_THAT(std::string(decode_plan(message.SerializeAsString()).status().message()),
              HasSubstr("admits[0].fork_of"));
}

TEST(WireTest, BiasesWithoutIdsAreRefused) {
  v1::StepPlan message;
  ASSERT_TRUE(message.ParseFromString(encode(small_plan())));
  message.mutable_admits(0)->mutable_sampling()->add_biases(1.0f);
  EXPECT_THAT(std::string(decode_plan(message.SerializeAsString()).status().message()),
              HasSubstr("0 biased_ids but 1 biases"));
}

TEST(WireTest, HostileResultsAreRefusedByName) {
  struct Case {
    const char* says;
    std::function<void(v1::StepResult&)> spoil;
  };
  const Case cases[] = {
      {"rows[0].row", [](v1::StepResult& r) { r.mutable_rows(0)->set_row(-1); }},
      {"rows[1].row", [](v1::StepResult& r) { r.mutable_rows(0)->set_row(3); }},
      {"rows[1].row", [](v1::StepResult& r) { r.mutable_rows(1)->set_row(1 << 30); }},
      {"rows[0].token", [](v1::StepResult& r) { r.mutable_rows(0)->set_token(-1); }},
      {"1 logprob_tokens but 0",
       [](v1::StepResult& r) { r.mutable_rows(0)->add_logprob_tokens(1); }},
      {"34 logprobs",
       [](v1::StepResult& r) {
         for (int i = 0; i < kMaxRowLogprobs + 2; ++i) {
           r.mutable_rows(0)->add_logprob_tokens(1);
           r.mutable_rows(0)->add_logprobs(-1.0f);
         }
       }},
      {"logprobs[0] is nan",
       [](v1::StepResult& r) {
         r.mutable_rows(0)->add_logprob_tokens(1);
         r.mutable_rows(0)->add_logprobs(NAN);
       }},
      {"busy_us", [](v1::StepResult& r) { r.set_busy_us(-1); }},
  };
  for (const Case& c : cases) {
    v1::StepResult message;
    encode(StepResult{1, 5, {{0, 3, {}}, {2, 4, {}}}, 10}, &message);
    c.spoil(message);
    EXPECT_THAT(std::string(decode(message).status().message()), HasSubstr(c.says));
  }
}

TEST(WireTest, DigestDependsOnBytesOrderAndBoundaries) {
  const auto chain = [](std::initializer_list<const char*> plans) {
    std::uint64_t digest = 0;
    for (const char* plan : plans) digest = plan_digest(digest, plan);
    return digest;
  };
  EXPECT_EQ(chain({"a", "b"}), chain({"a", "b"}));
  EXPECT_NE(chain({"a", "b"}), chain({"b", "a"}));
  EXPECT_NE(chain({"a", "b"}), chain({"ab"}));
  EXPECT_NE(chain({"ab", ""}), chain({"ab"}));
  EXPECT_NE(chain({""}), 0u);
}

}  // namespace
}  // namespace quire::wire
