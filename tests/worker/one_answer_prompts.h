// The 64 prompts of one answer's tests: the 24 of reference/smollm2 and 40 of our own, of lengths
// around the edges of blocks, tiles and splits, every fourth behind the same system prompt.
#pragma once

#include <vector>

#include "tests/worker/harness.h"

namespace quire::test {

// Ids below `vocab`, at most `longest` of each. Without the test data the 24 are made up.
std::vector<std::vector<TokenId>> answer_prompts(int vocab, int longest);

// Which of a prompt's two requests: greedy, or with a seed of its own at temperature 0.8.
enum class Draw { kGreedy, kSeeded, kByTurns };
std::vector<Prompt> answer_requests(const std::vector<std::vector<TokenId>>& prompts,
                                    int max_tokens, Draw draw);

}  // namespace quire::test
