// What submit() refuses, with the numbers in the message.
#include "coordinator/engine/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace quire {
namespace {

using testing::HasSubstr;

class AdmissionTest : public testing::Test {
 protected:
  AdmissionTest() {
    request_.prompt = {1, 2, 3};
    request_.params.max_tokens = 10;
  }
  void expect_refused(std::initializer_list<const char*> words) {
    const absl::Status status = check_request(request_, limits_);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    for (const char* word : words) EXPECT_THAT(std::string(status.message()), HasSubstr(word));
  }
  Request request_;
  RequestLimits limits_{
      .vocab = 100, .max_model_len = 20, .block_size = 4, .total_blocks = 5, .max_num_seqs = 4};
};

TEST_F(AdmissionTest, WhatFitsIsTaken) {
  EXPECT_TRUE(check_request(request_, limits_).ok());
  request_.params.max_tokens = 17;  // exactly the context: 19 computed positions, 5 blocks
  EXPECT_TRUE(check_request(request_, limits_).ok());
}

TEST_F(AdmissionTest, Prompts) {
  request_.prompt = {};
  expect_refused({"prompt is empty"});
  request_.prompt = {1, 100};
  expect_refused({"Token 1", "100", "[0, 99]"});
  request_.prompt = {-1};
  expect_refused({"Token 0", "-1"});
  request_.prompt.assign(20, 1);
  expect_refused({"20 tokens", "at most 19"});
}

TEST_F(AdmissionTest, Lengths) {
  request_.params.max_tokens = 18;
  expect_refused({"3 tokens", "18", "21", "at most 17"});
  request_.params.max_tokens = std::numeric_limits<int>::max();
  expect_refused({"2147483650"});
}

TEST_F(AdmissionTest, TheCacheMustHoldItUnlessItIsUnknown) {
  limits_.total_blocks = 3;
  request_.params.max_tokens = 11;
  expect_refused({"14 tokens", "4 blocks", "only 3 blocks", "--kv-cache-memory-bytes"});
  request_.params.max_tokens = 10;
  EXPECT_TRUE(check_request(request_, limits_).ok());
  limits_.total_blocks = 0;
  request_.params.max_tokens = 17;
  EXPECT_TRUE(check_request(request_, limits_).ok());
}

TEST_F(AdmissionTest, ChoicesAndParameters) {
  request_.n = 0;
  expect_refused({"`n` is 0", "[1, 64]"});
  request_.n = 65;
  expect_refused({"`n` is 65"});
  request_.n = 64;  // they can wait for each other
  EXPECT_TRUE(check_request(request_, limits_).ok());
  request_.params.temperature = -1.0f;
  expect_refused({"`temperature`"});
}

TEST_F(AdmissionTest, BeamsMustFitTogether) {
  request_.beams.width = 2;
  request_.n = 3;
  expect_refused({"2 beams for 3 choices"});
  request_.n = 2;
  request_.beams.width = 17;
  expect_refused({"17 beams", "at most 16"});
  request_.beams.width = 5;
  expect_refused({"5 beams", "at most 4 sequences", "--max-num-seqs"});
  limits_.total_blocks = 15;
  request_.prompt.assign(9, 1);    // two full blocks, which the beams share
  request_.params.max_tokens = 7;  // 15 positions: four blocks, two of each beam's own
  request_.beams.width = 4;
  EXPECT_TRUE(check_request(request_, limits_).ok());  // 2 + 4 * (2 + 1)
  limits_.total_blocks = 14;
  EXPECT_TRUE(check_request(request_, limits_).ok());
  limits_.total_blocks = 13;
  expect_refused({"4 beams of 16 tokens", "14 blocks", "only 13 blocks", "number of beams"});
  limits_.total_blocks = 0;
  EXPECT_TRUE(check_request(request_, limits_).ok());
}

}  // namespace
}  // namespace quire
