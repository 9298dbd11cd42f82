#include "bench/accuracy/scores.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "tests/worker/scorer.h"

namespace quire::bench {
namespace {

constexpr int kBest = 20;

absl::StatusOr<nlohmann::json> read_json(const std::filesystem::path& file) {
  std::ifstream in(file);
  nlohmann::json json = nlohmann::json::parse(in, nullptr, false);
  if (!in.is_open() || json.is_discarded()) {
    return absl::NotFoundError(absl::StrCat(file.string(),
                                            " cannot be read as JSON; --data names the folder "
                                            "that has reference/smollm2, --peer a file that "
                                            "bench/peers/accuracy.py wrote."));
  }
  return json;
}

test::GroupOptions scoring_options(const Configuration& with) {
  test::GroupOptions options;
  options.device = "cpu";
  options.dtype = with.dtype;
  options.kv_dtype = with.kv_dtype;
  options.threads = with.threads;
  options.open_device = [isa = with.isa](DeviceOptions device) {
    device.isa = isa;
    return open_device(device);
  };
  options.limits = {.num_blocks = 160,  // of one text at a time
                    .block_size = 16,
                    .max_num_seqs = 512,
                    .max_num_batched_tokens = 512,
                    .max_model_len = 2560};
  return options;
}

absl::Status score_goldens(test::Scorer& scorer, const Reference& reference, const BestRows& exact,
                           Scores& scores) {
  for (const Reference::Item& item : reference.items) {
    const auto observe = [&](std::size_t position, absl::Span<const float> logits) {
      const test::Distribution ours(logits);
      if (!exact.empty()) {
        scores.kl20.push_back(test::divergence(exact[scores.golden.size()], ours));
      }
      test::BestTokens best = test::best_of(ours, kBest);
      scores.is_argmax.push_back(best.logprobs[0].first == item.ids[position]);
      scores.golden.push_back(ours.logprob(item.ids[position]));
      scores.best.push_back(std::move(best));
    };
    QUIRE_RETURN_IF_ERROR(scorer.score(item.ids, observe, item.prompt));
  }
  return absl::OkStatus();
}

absl::Status score_windows(test::Scorer& scorer, const Reference& reference, Scores& scores) {
  for (const Reference::Window& window : reference.windows) {
    double sum = 0.0;
    QUIRE_RETURN_IF_ERROR(
        scorer.score(window.ids, [&](std::size_t position, absl::Span<const float> logits) {
          sum -= test::Distribution(logits).logprob(window.ids[position]);
        }));
    scores.nll.push_back(sum / static_cast<double>(window.ids.size() - 1));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Reference> read_reference(const std::filesystem::path& folder,
                                         std::size_t max_windows) {
  QUIRE_ASSIGN_OR_RETURN(const nlohmann::json golden, read_json(folder / "golden.dev.json"));
  QUIRE_ASSIGN_OR_RETURN(const nlohmann::json text, read_json(folder / "ppl.json"));
  Reference reference;
  for (const nlohmann::json& from : golden["items"]) {
    Reference::Item& item = reference.items.emplace_back();
    item.ids = from["prompt_ids"].get<std::vector<TokenId>>();
    item.prompt = item.ids.size();
    item.logprobs = from["logprobs"].get<std::vector<double>>();
    const auto output = from["output_ids"].get<std::vector<TokenId>>();
    item.ids.insert(item.ids.end(), output.begin(), output.end());
  }
  for (const nlohmann::json& from : text["windows"]) {
    if (reference.windows.size() == max_windows) break;
    reference.windows.push_back(
        {from["ids"].get<std::vector<TokenId>>(), from["nll"].get<double>()});
  }
  return reference;
}

absl::StatusOr<Scores> score(const Configuration& with, const Reference& reference,
                             const BestRows& exact) {
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<test::Scorer> scorer,
                         test::Scorer::open(with.model, scoring_options(with)));
  Scores scores;
  scores.name = with.name;
  QUIRE_RETURN_IF_ERROR(score_goldens(*scorer, reference, exact, scores));
  QUIRE_RETURN_IF_ERROR(score_windows(*scorer, reference, scores));
  return scores;
}

absl::StatusOr<Scores> read_scores(const std::filesystem::path& file, const Reference& reference) {
  QUIRE_ASSIGN_OR_RETURN(const nlohmann::json json, read_json(file));
  Scores scores;
  scores.name = json.value("name", file.stem().string());
  scores.golden = json.value("golden", std::vector<double>());
  for (const int flag : json.value("argmax", std::vector<int>())) {
    scores.is_argmax.push_back(flag != 0);
  }
  scores.nll = json.value("nll", std::vector<double>());
  scores.nll.resize(std::min(scores.nll.size(), reference.windows.size()));
  std::size_t positions = 0;
  for (const Reference::Item& item : reference.items) positions += item.logprobs.size();
  if (scores.golden.size() != positions || scores.is_argmax.size() != positions ||
      scores.nll.size() != reference.windows.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.string(), " has ", scores.golden.size(), " golden tokens and ",
                     scores.nll.size(), " windows, the reference has ", positions, " and ",
                     reference.windows.size(), "; write it again with bench/peers/accuracy.py."));
  }
  return scores;
}

}  // namespace quire::bench
