// The cosine and sine of every rotary angle, made once at start.
#pragma once

#include <vector>

#include "common/model_spec.h"

namespace quire {

// One angle per pair of dimensions, in radians per position: [dims / 2]. Scalings: linear (position
// interpolation, arXiv 2306.15595), llama3 (as transformers defines rope_type "llama3"), yarn
// (arXiv 2309.00071, NTK-by-parts); GGUF frequency factors divide the result.
std::vector<double> rope_frequencies(const RopeSpec& rope);

// What yarn multiplies cosine and sine by; 1 otherwise.
double rope_attention_factor(const RopeSpec& rope);

// [max_positions][dims / 2][2]: cosine, sine; computed in double, stored as fp32.
std::vector<float> rope_table(const RopeSpec& rope, int max_positions);

}  // namespace quire
