// One plan per step, one result per step: the values that travel between coordinator and workers.
// Plans are deltas. A slot is described once in full (AdmitRow) and afterwards only by what is new:
// the blocks it gained and how many tokens it is granted. Within a plan, order is: releases,
// admits, saves, loads, copies, rows. Rules for plans in flight: contracts in
// coordinator/README.md.
#pragma once

#include <cstdint>
#include <vector>

#include "common/ids.h"
#include "common/sampling_params.h"

namespace quire {

// A fork (`fork_of` >= 0) begins with the tokens, tables and computed positions that its parent has
// before this plan's rows; `tokens` is empty then.
struct AdmitRow {
  SlotId slot = 0;
  std::vector<TokenId> tokens;  // prompt, then everything generated before (recompute)
  SlotId fork_of = -1;          // a slot in use, also one that stands before in `admits`
  int num_prompt_tokens = 0;
  int sample_index = 0;  // which of the request's n choices: part of the Philox key
  SamplingParams params;
};

// Grants `num_tokens` tokens to a slot: positions [first_position, first_position + num_tokens).
// Their ids are in the worker's mirror of the slot (admitted, or sampled by an earlier step), or
// come with the row: first `tokens`, then `drafts` are appended to the mirror before the grant.
//
// Drafts are guesses. A row that has any samples once after the token before them and once after
// each: drafts.size() + 1 picks. Draft i is right if it equals pick i; from the first wrong one on
// (or after the last) the mirror holds no draft, but the pick that stands in its place, and the
// positions behind are not computed. No other plan names the slot until that is known.
//
// A row of no tokens is the first of a fork: `first_position` is where its parent's row of this
// plan ends, `new_blocks` what that row brought, and the fork picks from the parent's logits.
struct PlanRow {
  SlotId slot = 0;
  int first_position = 0;
  int num_tokens = 0;
  bool samples = false;  // the last granted token reaches the end: pick the next one
  int keep_blocks = -1;  // entries kept of the slot's tables, the others are dropped; -1: all
  std::vector<std::vector<BlockId>> new_blocks =
      {};  // [KV group][block], appended after that; or empty
  std::vector<TokenId> tokens =
      {};  // of a slot that searches beams: it does not keep its own picks
  std::vector<TokenId> drafts = {};
};

// Picks of one step, at most: all choices of a request may pick from one row's logits, and drafts
// have a pick each.
constexpr int max_picks(int max_num_seqs) {
  constexpr int kLeast = 256;
  static_assert(kLeast >= kMaxChoices);
  return max_num_seqs > kLeast ? max_num_seqs : kLeast;
}

// One block, in every layer, between the device and the offload store of each rank.
struct BlockSwap {
  BlockId block = 0;
  HostBlockId host = 0;
  bool operator==(const BlockSwap&) const = default;
};

// All of block `from` goes to block `to`, in every layer: a shared block before it is written.
struct BlockCopy {
  int kv_group = 0;
  BlockId from = 0;
  BlockId to = 0;
  bool operator==(const BlockCopy&) const = default;
};

struct StepPlan {
  EpochId epoch = 0;
  StepId step = 0;
  int sampling_rank = 0;
  std::vector<SlotId> releases;
  std::vector<AdmitRow> admits;
  std::vector<BlockSwap> saves;   // device to host, before anything of this plan is written
  std::vector<BlockSwap> loads;   // host to device
  std::vector<BlockCopy> copies;  // before this step's rows store anything; no block is both ends
  std::vector<PlanRow> rows;
};

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0.0f;  // natural log, full softmax at temperature 1
};

struct RowResult {
  int row = 0;  // index into that plan's rows
  TokenId token = 0;
  std::vector<TokenLogprob> logprobs;  // empty, or: the sampled token, then the k best in order
  // The logits are NaN or the largest one infinite: the token means nothing, though it is an id.
  bool no_number = false;
};

struct StepResult {
  EpochId epoch = 0;
  StepId step = 0;
  std::vector<RowResult> rows;  // a pick each, in plan order; a row with drafts has several
  std::int64_t busy_us = 0;     // the worker's own time on the step
};

// Layers that share a block table (contracts.md F): one group until other kinds of attention exist.
struct KvGroup {
  int k_dim = 0;  // per head
  int v_dim = 0;
  int num_layers = 0;
  int window = 0;  // 0 = full attention
};

}  // namespace quire
