// The table: a line for each engine and configuration, what was measured elsewhere among them.
#pragma once

#include <string>
#include <vector>

#include "bench/accuracy/scores.h"

namespace quire::bench {

// As Markdown.
std::string make_table(const Reference& reference, const std::vector<Scores>& all);

}  // namespace quire::bench
