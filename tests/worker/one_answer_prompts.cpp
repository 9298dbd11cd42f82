#include "tests/worker/one_answer_prompts.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/test_data.h"

namespace quire::test {
namespace {

constexpr int kGoldens = 24;
constexpr int kSystemTokens = 40;
constexpr int kLogprobs = 3;
constexpr int kLengths[] = {1,   2,   3,   5,   7,   8,   15,  16,  17,  31,  32,  33,  47,  48,
                            49,  63,  64,  65,  66,  80,  95,  96,  97,  127, 128, 129, 160, 191,
                            192, 193, 200, 224, 255, 256, 257, 258, 300, 320, 383, 384};
static_assert(std::size(kLengths) == 40);

using Ids = std::vector<TokenId>;

nlohmann::json read(const std::string& name) {
  std::ifstream in(data_root() / "reference/smollm2" / name);
  return in.is_open() ? nlohmann::json::parse(in) : nlohmann::json();
}

std::vector<Ids> golden_prompts(std::mt19937_64& random) {
  std::vector<Ids> prompts;
  const nlohmann::json golden = read("golden.dev.json");
  for (int i = 0; i < kGoldens; ++i) {
    if (!golden.is_null()) {
      prompts.push_back(golden["items"][static_cast<std::size_t>(i)]["prompt_ids"].get<Ids>());
      continue;
    }
    Ids& ids = prompts.emplace_back();
    for (std::uint64_t n = 20 + random() % 100; n > 0; --n) {
      ids.push_back(static_cast<TokenId>(random() % 100000));
    }
  }
  return prompts;
}

// English text as token ids where there is some.
Ids long_text(std::mt19937_64& random) {
  Ids text;
  const nlohmann::json windows = read("ppl.json");
  for (int w = 0; w < 20; ++w) {
    if (!windows.is_null()) {
      const Ids ids = windows["windows"][static_cast<std::size_t>(w)]["ids"].get<Ids>();
      text.insert(text.end(), ids.begin(), ids.end());
    } else {
      for (int i = 0; i < 512; ++i) text.push_back(static_cast<TokenId>(random() % 100000));
    }
  }
  return text;
}

}  // namespace

std::vector<Ids> answer_prompts(int vocab, int longest) {
  std::mt19937_64 random(20261124);
  std::vector<Ids> prompts = golden_prompts(random);
  const Ids text = long_text(random);
  auto at = text.begin() + kSystemTokens;
  int number = 0;
  for (const int length : kLengths) {
    Ids& ids = prompts.emplace_back();
    if (number++ % 4 == 0) ids.assign(text.begin(), text.begin() + kSystemTokens);
    const auto missing = std::max<std::ptrdiff_t>(0, length - static_cast<int>(ids.size()));
    ids.insert(ids.end(), at, at + missing);
    ids.resize(static_cast<std::size_t>(length));
    at += missing;
  }
  for (Ids& ids : prompts) {
    ids.resize(std::min(ids.size(), static_cast<std::size_t>(longest)));
    for (TokenId& id : ids) id %= vocab;
  }
  return prompts;
}

std::vector<Prompt> answer_requests(const std::vector<Ids>& prompts, int max_tokens, Draw draw) {
  std::vector<Prompt> requests;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    Prompt& request = requests.emplace_back(greedy(prompts[i], max_tokens, kLogprobs));
    if (draw == Draw::kGreedy || (draw == Draw::kByTurns && i % 2 == 0)) continue;
    request.params.temperature = 0.8f;
    request.params.seed = 1000 + i;
  }
  return requests;
}

}  // namespace quire::test
