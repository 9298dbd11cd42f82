#include "bench/accuracy/table.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire::bench {
namespace {

using test::largest_of;
using test::mean_of;
using test::percentile99;

// reference/smollm2/README.md, "Accuracy anchors": measured with the same texts, elsewhere.
constexpr const char* kAnchors =
    "| *llama.cpp, F32 GGUF (anchor)* | 4e-06 | 3e-05 | 0.0001 | 100 % | < 1e-7 | -0.00005 | | "
    "19.499 |\n"
    "| *vLLM 0.32 CPU, bf16 (anchor)* | 0.0154 | 0.095 | 0.156 | 100 %, 43 ties | 5.1e-04 | "
    "+0.0003 | 0.0050 | 19.506 |\n"
    "| *llama.cpp Q4_1 x Q8_1, f16 KV (anchor)* | 0.0305 | 0.205 | 0.313 | 97.6 % | 2.3e-03 | "
    "+0.0020 | | 19.539 |\n"
    "| *llama.cpp Q4_1 x Q8_1, f32 KV (anchor)* | 0.0308 | 0.183 | 0.358 | 97.7 % | 2.3e-03 | | | "
    "|\n";

// Three digits, however small.
std::string number(double value) {
  return std::abs(value) >= 0.001 || value == 0.0 ? absl::StrFormat("%.4f", value)
                                                  : absl::StrFormat("%.1e", value);
}

std::string text_cells(const Reference& reference, const std::vector<double>& nll) {
  if (nll.empty()) return "| | | ";
  std::vector<double> signed_by_window, by_window;
  for (std::size_t w = 0; w < nll.size(); ++w) {
    signed_by_window.push_back(nll[w] - reference.windows[w].nll);
    by_window.push_back(std::abs(signed_by_window.back()));
  }
  return absl::StrFormat("| %+.5f | %s | %.3f ", mean_of(signed_by_window),
                         number(largest_of(by_window)), std::exp(mean_of(nll)));
}

std::string line(const Reference& reference, const Scores& scores) {
  std::vector<double> deviations;
  double matches = 0.0;
  for (const Reference::Item& item : reference.items) {
    for (const double logprob : item.logprobs) {
      matches += scores.is_argmax[deviations.size()] ? 1.0 : 0.0;
      deviations.push_back(std::abs(scores.golden[deviations.size()] - logprob));
    }
  }
  return absl::StrCat(
      "| ", scores.name, " | ", number(mean_of(deviations)), " | ",
      number(percentile99(deviations)), " | ", number(largest_of(deviations)),
      absl::StrFormat(" | %.1f %% | ", 100.0 * matches / static_cast<double>(deviations.size())),
      scores.kl20.empty() ? "" : absl::StrFormat("%.1e ", mean_of(scores.kl20)),
      text_cells(reference, scores.nll), "|\n");
}

std::string reference_line(const Reference& reference) {
  std::vector<double> nll;
  for (const Reference::Window& window : reference.windows) nll.push_back(window.nll);
  return absl::StrFormat(
      "| reference (transformers, fp32) | 0 | 0 | 0 | 100 %% | 0 | 0 | 0 | %s |\n",
      nll.empty() ? "" : absl::StrFormat("%.3f", std::exp(mean_of(nll))));
}

}  // namespace

std::string make_table(const Reference& reference, const std::vector<Scores>& all) {
  std::size_t positions = 0;
  for (const Reference::Item& item : reference.items) positions += item.logprobs.size();
  std::string table = absl::StrFormat(
      "|d| of %d golden tokens; KL20 against our own float32 run; d NLL and ppl on %d windows of "
      "512 tokens.\n\n"
      "| engine | mean | p99 | max | best = golden | KL20 | d NLL | largest of a window | ppl |\n"
      "|---|---|---|---|---|---|---|---|---|\n",
      positions, reference.windows.size());
  table += reference_line(reference) + kAnchors;
  for (const Scores& scores : all) table += line(reference, scores);
  return table;
}

}  // namespace quire::bench
