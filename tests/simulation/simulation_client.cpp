// What each reader must get.
#include "tests/simulation/simulation_client.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/status.h"

namespace quire::test {
namespace {

bool contains(const std::vector<TokenId>& list, TokenId id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

template <typename... Words>
absl::Status wrong(const Gain& gain, const Words&... words) {
  return absl::InternalError(
      absl::StrCat("request ", gain.request, ", choice ", gain.choice, ": ", words...));
}

}  // namespace

SimulationClient::SimulationClient(const HashModel& model, const SchedulerConfig& config,
                                   NewRequest wish)
    : model_(model), eos_(config.eos), wish_(std::move(wish)) {
  const int room = config.max_model_len - num_prompt_tokens();
  max_total_ = num_prompt_tokens() + std::min(room, wish_.params.max_tokens);
  choices_.resize(static_cast<std::size_t>(wish_.n));
  for (Choice& choice : choices_) choice.tokens = wish_.prompt;
  num_open_ = wish_.n;
}

void SimulationClient::stop(int choice) {
  bool& open = choices_[static_cast<std::size_t>(choice)].open;
  if (!open) return;
  open = false;
  --num_open_;
}

absl::Status SimulationClient::take(const Gain& gain, int most_cached) {
  if (gain.choice < 0 || gain.choice >= wish_.n) return wrong(gain, "it has no such choice");
  Choice& choice = choices_[static_cast<std::size_t>(gain.choice)];
  if (!choice.open) return wrong(gain, "gains after its end");
  const int cached = gain.num_cached_tokens;
  if (cached < 0 || cached > (gained_ ? 0 : std::min(num_prompt_tokens() - 1, most_cached))) {
    return wrong(gain, cached, " of ", num_prompt_tokens(), " prompt tokens are said to be cached");
  }
  gained_ = true;
  if (!is_beam()) return take_sampled(gain, &choice);
  if (found_.empty()) found_ = search(std::numeric_limits<int>::max());
  return take_beam(gain, found_, &choice);
}

absl::Status SimulationClient::take_sampled(const Gain& gain, Choice* choice) {
  if (gain.tokens.empty()) return wrong(gain, "gains nothing");
  const std::size_t logprobs = wish_.params.logprobs < 0 ? 0 : gain.tokens.size();
  if (gain.logprobs.size() != logprobs) return wrong(gain, "has ", logprobs, " logprobs");
  for (std::size_t i = 0; i < gain.tokens.size(); ++i) {
    const TokenId expected = model_.next(choice->tokens, wish_.params.seed, gain.choice);
    if (gain.tokens[i] != expected) {
      return wrong(gain, "token ", gain.tokens[i], " at position ", choice->tokens.size(), ", not ",
                   expected);
    }
    QUIRE_RETURN_IF_ERROR(check_logprobs(gain, i, static_cast<int>(choice->tokens.size())));
    choice->tokens.push_back(expected);
    ++num_tokens_;
    const EndReason end = expected_end(choice->tokens);
    const bool last = i + 1 == gain.tokens.size();
    if (end != (last ? gain.end : EndReason::kNone)) return wrong(gain, "ends wrongly");
  }
  if (gain.end != EndReason::kNone) stop(gain.choice);
  return absl::OkStatus();
}

absl::Status SimulationClient::check_logprobs(const Gain& gain, std::size_t i, int position) const {
  if (gain.logprobs.empty()) return absl::OkStatus();
  const std::vector<TokenLogprob> right =
      model_.logprobs(gain.tokens[i], position, wish_.params.logprobs);
  const std::vector<TokenLogprob>& found = gain.logprobs[i];
  const auto same = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.token == b.token && a.logprob == b.logprob;
  };
  if (std::equal(found.begin(), found.end(), right.begin(), right.end(), same)) {
    return absl::OkStatus();
  }
  return wrong(gain, "has wrong logprobs at position ", position);
}

absl::Status SimulationClient::take_beam(const Gain& gain,
                                         const std::vector<BeamSearch::Hypothesis>& right,
                                         Choice* choice) {
  // Where no other sequence is possible the choice is empty.
  static const BeamSearch::Hypothesis kNone;
  const auto index = static_cast<std::size_t>(gain.choice);
  const BeamSearch::Hypothesis& expected = index < right.size() ? right[index] : kNone;
  if (absl::MakeConstSpan(gain.tokens) != absl::MakeConstSpan(expected.tokens)) {
    return wrong(gain, "the beam has ", gain.tokens.size(), " tokens, not the expected ",
                 expected.tokens.size());
  }
  const std::size_t logprobs = wish_.params.logprobs < 0 ? 0 : gain.tokens.size();
  if (gain.logprobs.size() != logprobs) return wrong(gain, "has ", logprobs, " logprobs");
  for (std::size_t i = 0; i < logprobs; ++i) {
    const std::vector<TokenLogprob>& found = gain.logprobs[i];
    if (found.empty() || found[0].token != gain.tokens[i] ||
        found[0].logprob != expected.logprobs[i]) {
      return wrong(gain, "has a wrong logprob of token ", i);
    }
  }
  const EndReason end = early_ ? EndReason::kNone : EndReason::kLength;
  if (gain.end != (expected.stopped ? EndReason::kStop : end)) return wrong(gain, "ends wrongly");
  choice->tokens.insert(choice->tokens.end(), gain.tokens.begin(), gain.tokens.end());
  num_tokens_ += static_cast<std::int64_t>(gain.tokens.size());
  stop(gain.choice);
  return absl::OkStatus();
}

absl::Status SimulationClient::take_early(const std::vector<Gain>& gains, int steps,
                                          int most_cached) {
  if (!is_beam() || steps == 0) {
    if (gains.empty()) return absl::OkStatus();
    return wrong(gains[0], "gains when it ends early");
  }
  early_ = true;
  found_ = search(steps);
  for (const Gain& gain : gains) QUIRE_RETURN_IF_ERROR(take(gain, most_cached));
  if (done()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("request ", wish_.id, " ends early with only ",
                                          gains.size(), " of ", wish_.n, " beams"));
}

EndReason SimulationClient::expected_end(const std::vector<TokenId>& tokens) const {
  if (contains(stops(), tokens.back())) return EndReason::kStop;
  const bool full = static_cast<int>(tokens.size()) >= max_total_;
  return full ? EndReason::kLength : EndReason::kNone;
}

std::vector<TokenId> SimulationClient::stops() const {
  std::vector<TokenId> stops = wish_.params.stop_token_ids;
  if (!wish_.params.ignore_eos) stops.insert(stops.end(), eos_.begin(), eos_.end());
  return stops;
}

std::vector<BeamSearch::Hypothesis> SimulationClient::search(int max_steps) const {
  BeamSearch search(wish_.beams, stops(), max_total_ - num_prompt_tokens());
  std::vector<std::vector<TokenId>> beams = {wish_.prompt};
  for (int step = 0; step < max_steps && !search.done(); ++step) {
    std::vector<std::vector<TokenLogprob>> best;
    std::vector<BeamCandidates> candidates;
    for (const auto& beam : beams) best.push_back(model_.best(beam, search.num_candidates()));
    for (const auto& list : best) candidates.push_back({list});
    std::vector<std::vector<TokenId>> next;
    for (const BeamSearch::Open& open : search.step(candidates)) {
      next.push_back(beams[static_cast<std::size_t>(open.parent)]);
      next.back().push_back(open.token);
    }
    beams = std::move(next);
  }
  return search.take_best(wish_.n);
}

}  // namespace quire::test
