// Beam search as Hugging Face's generate() defines it, for one request: a state machine that is fed
// the best continuations of every open beam and says which beams are open next. No I/O, no clock.
// A step looks at the `width` best continuations of all beams: those that end with a stop token
// finish. The `width` best that do not end go on. Of the finished, the `width` best by score stay.
// A beam is a chain of back-pointers: a step costs O(width^2), whatever the length.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "common/ids.h"
#include "common/step.h"
#include "coordinator/schedule/beam_params.h"

namespace quire {

// Of one open beam: its best next tokens, best first, natural log of the softmax at temperature 1.
// Exact with num_candidates() of them; fewer if the vocabulary is smaller. Those of logprob -inf
// are impossible, never continued.
struct BeamCandidates {
  absl::Span<const TokenLogprob> best;
};

class BeamSearch {
 public:
  // `stops`: what finishes a beam (eos and stop tokens; empty if those are ignored).
  // `max_tokens` > 0: generated tokens of a hypothesis, at most.
  BeamSearch(BeamParams params, std::vector<TokenId> stops, int max_tokens);

  struct Open {
    int parent = 0;  // index of the beam, among those open before the step, that it continues
    TokenId token = 0;
    double cum_logprob = 0.0;
  };
  struct Hypothesis {
    std::vector<TokenId> tokens;  // with the stop token
    std::vector<float> logprobs;  // of each
    double cum_logprob = 0.0;
    double score = 0.0;    // cum_logprob / tokens.size() ^ length_penalty
    bool stopped = false;  // ends with a stop token; else it was as long as allowed
  };

  // How many best tokens a step needs of each open beam: 2 * width, more if there are more stop
  // tokens than that leaves room for, at most kMaxRowLogprobs.
  int num_candidates() const;

  // One step of all open beams, in the order that step() last gave (at first there is one, of no
  // tokens). Returns the next open beams, best first; none: the search is over.
  // Ties: the lower parent, then the lower token goes first.
  const std::vector<Open>& step(absl::Span<const BeamCandidates> candidates);

  bool done() const { return open_.empty(); }
  int num_open() const { return static_cast<int>(open_.size()); }
  int num_generated() const { return num_generated_; }  // tokens of an open beam

  // The `n` <= width best, best first. Fewer only where fewer sequences are possible. Before
  // done(), open beams compete as if they were as long as allowed. Ends the search.
  std::vector<Hypothesis> take_best(int n);

 private:
  static constexpr int kRoot = -1;
  struct Node {
    int parent = kRoot;
    TokenId token = 0;
    float logprob = 0.0f;
  };
  struct Finished {
    int node = kRoot;
    double cum_logprob = 0.0;
    double score = 0.0;
    bool stopped = false;
  };
  struct Continuation {
    Open open;
    float logprob = 0.0f;
    bool stops = false;
  };

  void collect(absl::Span<const BeamCandidates> candidates);
  void finish(int node, double cum_logprob, bool stopped);
  bool can_improve() const;
  double score(double cum_logprob, int num_tokens) const;

  const BeamParams params_;
  std::vector<TokenId> stops_;  // in order
  const int max_tokens_;
  int num_generated_ = 0;
  std::vector<Node> nodes_;          // of every beam that was ever open or finished
  std::vector<Open> open_;           // best first
  std::vector<int> open_nodes_;      // in the order of open_
  std::vector<Finished> finished_;   // best first, at most `width`
  std::vector<Continuation> found_;  // scratch of step()
  std::vector<int> next_nodes_;      // scratch of step()
};

}  // namespace quire
