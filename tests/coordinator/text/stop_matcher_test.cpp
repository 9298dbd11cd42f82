// The stop matcher against a slow, obvious one, over random texts cut at random places.
#include "coordinator/text/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace quire {
namespace {

struct Result {
  std::string text;
  bool stopped = false;
  std::string stop;
  bool operator==(const Result&) const = default;
};

void PrintTo(const Result& r, std::ostream* out) {
  *out << "\"" << r.text << "\" stopped " << r.stopped << " by \"" << r.stop << "\"";
}

// The first end of any stop string; of those that end there, the longest.
Result obvious(const std::vector<std::string>& stops, const std::string& text, bool include) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::string best;
    for (const std::string& stop : stops) {
      const bool here = !stop.empty() && stop.size() <= end &&
                        text.compare(end - stop.size(), stop.size(), stop) == 0;
      if (here && stop.size() > best.size()) best = stop;
    }
    if (!best.empty()) return {text.substr(0, include ? end : end - best.size()), true, best};
  }
  return {text, false, ""};
}

std::string random_text(std::mt19937& random, int max_size) {
  std::string text(random() % static_cast<unsigned>(max_size + 1), 'a');
  for (char& c : text) c = "ab\n"[random() % 3];
  return text;
}

TEST(StopMatcher, EqualsTheObviousOneHoweverTheTextIsCut) {
  std::mt19937 random(20261123);  // printed by the test's name alone: it is fixed
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) stop = random_text(random, 5);
    const std::string text = random_text(random, 24);
    const bool include = random() % 2 == 0;
    const Result expected = obvious(stops, text, include);

    StopMatcher matcher(stops, include);
    Result got;
    for (std::size_t at = 0; at < text.size() && !got.stopped;) {
      const std::size_t size = random() % 4;
      const auto out = matcher.push(absl::string_view(text).substr(at, size));
      at += size;
      got.text += out.text;
      got.stopped = out.stopped;
      got.stop = out.stop;
      EXPECT_EQ(expected.text.compare(0, got.text.size(), got.text), 0) << "shown too much";
    }
    if (!got.stopped) got.text += matcher.finish();
    ASSERT_EQ(got, expected) << "round " << round << ", text \"" << text << "\"";
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"</s>", "\n\n"}, false);
  EXPECT_EQ(matcher.push("hello <").text, "hello ");
  EXPECT_EQ(matcher.push("b>").text, "<b>");
  EXPECT_EQ(matcher.push("\n").text, "");
  EXPECT_EQ(matcher.push("x</").text, "\nx");
  EXPECT_EQ(matcher.finish(), "</");
}

}  // namespace
}  // namespace quire
