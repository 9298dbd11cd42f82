// Counting, and the ban before min_tokens.
#include "worker/sampler/logit_state.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/check.h"

namespace quire {
namespace {

// More new tokens than these are put in order together.
constexpr std::size_t kMany = 16;

}  // namespace

LogitState::LogitState(const SamplingParams& params, int num_prompt_tokens,
                       absl::Span<const TokenId> eos, int vocab)
    : counts_(params.penalizes()),
      counts_prompt_(params.repetition_penalty != 1.0f),
      num_prompt_tokens_(static_cast<std::size_t>(num_prompt_tokens)),
      ban_end_(num_prompt_tokens_ + static_cast<std::size_t>(params.min_tokens)) {
  for (const LogitBias& bias : params.logit_bias) entry(bias.token).bias = bias.bias;
  if (params.min_tokens > 0) {
    if (!params.ignore_eos) {
      for (const TokenId id : eos) ban(id);
    }
    for (const TokenId id : params.stop_token_ids) ban(id);
  }
  if (!params.allowed_token_ids.empty()) {
    allowed_.resize(allowed_words(vocab));
    for (const TokenId id : params.allowed_token_ids) {
      allowed_[static_cast<std::size_t>(id / 32)] |= 1u << (id % 32);
    }
    adjustment_.allowed = allowed_.data();
  }
  adjustment_.repetition = params.repetition_penalty;
  adjustment_.frequency = params.frequency_penalty;
  adjustment_.presence = params.presence_penalty;
}

LogitEntry& LogitState::entry(TokenId id) {
  const auto at =
      std::lower_bound(entries_.begin(), entries_.end(), id,
                       [](const LogitEntry& e, TokenId wanted) { return e.token < wanted; });
  if (at != entries_.end() && at->token == id) return *at;
  return *entries_.insert(at, {id, 0.0f, -1});
}

void LogitState::ban(TokenId id) {
  LogitEntry& banned = entry(id);
  if (banned.bias == -std::numeric_limits<float>::infinity()) return;  // named twice
  bans_.push_back({id, banned.bias});
  banned.bias = -std::numeric_limits<float>::infinity();
}

void LogitState::count(TokenId token, bool is_output) {
  if (!is_output && !counts_prompt_) return;
  LogitEntry& counted = entry(token);
  counted.count = std::max(counted.count, 0) + (is_output ? 1 : 0);
}

// Entries for all of `tokens` at once: one by one, a long prompt would take its square.
void LogitState::add_entries(absl::Span<const TokenId> tokens) {
  std::vector<TokenId> ids(tokens.begin(), tokens.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  std::vector<LogitEntry> merged;
  merged.reserve(entries_.size() + ids.size());
  auto held = entries_.begin();
  for (const TokenId id : ids) {
    while (held != entries_.end() && held->token < id) merged.push_back(*held++);
    const bool known = held != entries_.end() && held->token == id;
    merged.push_back(known ? *held++ : LogitEntry{id, 0.0f, -1});
  }
  merged.insert(merged.end(), held, entries_.end());
  entries_ = std::move(merged);
}

const LogitAdjustment& LogitState::update(absl::Span<const TokenId> tokens) {
  QUIRE_CHECK_LE(num_counted_, tokens.size());
  if (counts_) {
    const std::size_t first =
        counts_prompt_ ? num_counted_ : std::max(num_counted_, num_prompt_tokens_);
    if (first + kMany < tokens.size()) add_entries(tokens.subspan(first));
    for (; num_counted_ < tokens.size(); ++num_counted_) {
      count(tokens[num_counted_], num_counted_ >= num_prompt_tokens_);
    }
  }
  if (tokens.size() >= ban_end_) {
    for (const Ban& ban : bans_) entry(ban.token).bias = ban.bias;
    bans_.clear();
  }
  adjustment_.entries = entries_;
  return adjustment_;
}

LogitStates::LogitStates(int num_slots, std::vector<TokenId> eos, int vocab)
    : eos_(std::move(eos)), vocab_(vocab), slots_(static_cast<std::size_t>(num_slots)) {}

const LogitAdjustment* LogitStates::update(SlotId slot, std::uint64_t admission,
                                           const SamplingParams& params, int num_prompt_tokens,
                                           absl::Span<const TokenId> tokens) {
  if (!params.adjusts_logits()) return nullptr;
  Held& held = slots_[static_cast<std::size_t>(slot)];
  if (held.state == nullptr || held.admission != admission) {
    held.admission = admission;
    held.state = std::make_unique<LogitState>(params, num_prompt_tokens, eos_, vocab_);
  }
  return &held.state->update(tokens);
}

}  // namespace quire
