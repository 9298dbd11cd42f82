// The rules of beam_search.h. Where Hugging Face works on tensors of a fixed number of beams,
// filled up with beams of score -1e9, lists are as long as they are.
#include "coordinator/schedule/beam_search.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <tuple>
#include <utility>

#include "common/check.h"

namespace quire {

BeamSearch::BeamSearch(BeamParams params, std::vector<TokenId> stops, int max_tokens)
    : params_(params), stops_(std::move(stops)), max_tokens_(max_tokens) {
  QUIRE_CHECK_GT(params_.width, 0);
  QUIRE_CHECK_LE(params_.width, kMaxBeamWidth);
  QUIRE_CHECK_GT(max_tokens_, 0);
  std::sort(stops_.begin(), stops_.end());
  stops_.erase(std::unique(stops_.begin(), stops_.end()), stops_.end());
  open_.push_back({});
  open_nodes_.push_back(kRoot);
}

int BeamSearch::num_candidates() const {
  // Of width + stops tokens at least `width` do not stop, and that many can be open.
  const int enough = params_.width + static_cast<int>(stops_.size());
  return std::min(std::max(2 * params_.width, enough), kMaxRowLogprobs);
}

double BeamSearch::score(double cum_logprob, int num_tokens) const {
  if (num_tokens == 0) return cum_logprob;
  return cum_logprob / std::pow(num_tokens, params_.length_penalty);
}

// Fills found_, best first as far as a step looks.
void BeamSearch::collect(absl::Span<const BeamCandidates> candidates) {
  QUIRE_CHECK_EQ(candidates.size(), open_.size());
  found_.clear();
  int num_stops = 0;
  for (int parent = 0; parent < num_open(); ++parent) {
    for (const TokenLogprob& next : candidates[parent].best) {
      if (!(next.logprob > -std::numeric_limits<float>::infinity())) continue;
      const bool stops = std::binary_search(stops_.begin(), stops_.end(), next.token);
      found_.push_back(
          {{parent, next.token, open_[parent].cum_logprob + next.logprob}, next.logprob, stops});
      if (stops) ++num_stops;
    }
  }
  const auto before = [](const Continuation& a, const Continuation& b) {
    return std::tie(b.open.cum_logprob, a.open.parent, a.open.token) <
           std::tie(a.open.cum_logprob, b.open.parent, b.open.token);
  };
  const auto looked_at = static_cast<std::ptrdiff_t>(params_.width) + num_stops;
  const auto size = static_cast<std::ptrdiff_t>(found_.size());
  std::partial_sort(found_.begin(), found_.begin() + std::min(looked_at, size), found_.end(),
                    before);
  if (looked_at < size) found_.resize(static_cast<std::size_t>(looked_at));
}

void BeamSearch::finish(int node, double cum_logprob, bool stopped) {
  const Finished entry{node, cum_logprob, score(cum_logprob, num_generated_), stopped};
  const auto place = std::find_if(finished_.begin(), finished_.end(),
                                  [&](const Finished& f) { return f.score < entry.score; });
  finished_.insert(place, entry);
  if (static_cast<int>(finished_.size()) > params_.width) finished_.pop_back();
}

// Whether to go on with the open beams.
bool BeamSearch::can_improve() const {
  if (static_cast<int>(finished_.size()) < params_.width) return true;
  if (params_.early_stopping == BeamParams::EarlyStopping::kYes) return false;
  // What a beam could still reach: with a penalty above 0 a sum of logprobs weighs less the longer
  // it is, so the bound is that no token costs anything up to the longest.
  const bool grows =
      params_.early_stopping == BeamParams::EarlyStopping::kNever && params_.length_penalty > 0.0;
  const int num_tokens = grows ? max_tokens_ : num_generated_;
  return score(open_[0].cum_logprob, num_tokens) > finished_.back().score;
}

const std::vector<BeamSearch::Open>& BeamSearch::step(absl::Span<const BeamCandidates> candidates) {
  QUIRE_CHECK(!done());
  collect(candidates);
  ++num_generated_;
  const bool is_last = num_generated_ == max_tokens_;
  open_.clear();
  next_nodes_.clear();
  for (int i = 0; i < static_cast<int>(found_.size()); ++i) {
    const Continuation& next = found_[static_cast<std::size_t>(i)];
    const bool finishes = next.stops || is_last;
    // A stop token behind the `width` best is neither finished nor continued.
    if (finishes ? i >= params_.width : num_open() == params_.width) continue;
    const int node = static_cast<int>(nodes_.size());
    nodes_.push_back(
        {open_nodes_[static_cast<std::size_t>(next.open.parent)], next.open.token, next.logprob});
    if (finishes) {
      finish(node, next.open.cum_logprob, next.stops);
    } else {
      open_.push_back(next.open);
      next_nodes_.push_back(node);
    }
  }
  if (!open_.empty() && !can_improve()) {
    open_.clear();
    next_nodes_.clear();
  }
  open_nodes_.swap(next_nodes_);
  return open_;
}

std::vector<BeamSearch::Hypothesis> BeamSearch::take_best(int n) {
  QUIRE_CHECK_LE(n, params_.width);
  for (std::size_t i = 0; i < open_.size(); ++i) {
    finish(open_nodes_[i], open_[i].cum_logprob, /*stopped=*/false);
  }
  open_.clear();
  open_nodes_.clear();
  std::vector<Hypothesis> best;
  for (const Finished& f : finished_) {
    if (static_cast<int>(best.size()) == n) break;
    Hypothesis& h = best.emplace_back();
    h.cum_logprob = f.cum_logprob;
    h.score = f.score;
    h.stopped = f.stopped;
    for (int node = f.node; node != kRoot; node = nodes_[static_cast<std::size_t>(node)].parent) {
      h.tokens.push_back(nodes_[static_cast<std::size_t>(node)].token);
      h.logprobs.push_back(nodes_[static_cast<std::size_t>(node)].logprob);
    }
    std::reverse(h.tokens.begin(), h.tokens.end());
    std::reverse(h.logprobs.begin(), h.logprobs.end());
  }
  return best;
}

}  // namespace quire
