// How a client wants beams searched. beam_search.h has the rules.
#pragma once

namespace quire {

// As Hugging Face's generate() defines them. A request of width 0 samples.
struct BeamParams {
  enum class EarlyStopping {
    kNo,     // ends when no open beam can beat the worst finished one at its present length
    kYes,    // ends when `width` beams have finished
    kNever,  // as kNo, but an open beam is judged by the best score that it could still reach
  };
  int width = 0;                // up to kMaxBeamWidth
  double length_penalty = 1.0;  // score = cumulative logprob / generated tokens ^ penalty
  EarlyStopping early_stopping = EarlyStopping::kNo;
};

}  // namespace quire
