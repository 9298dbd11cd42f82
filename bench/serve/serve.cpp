#include "bench/serve/serve.h"

#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "bench/serve/report.h"
#include "common/config.h"
#include "common/status.h"

namespace quire::bench {
namespace {

int fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "quire bench serve: %s\n", std::string(status.message()).c_str());
  return code;
}

// The calls to send, and after them those that only warm up.
absl::StatusOr<std::vector<Call>> prepare(const ServeOptions& options) {
  Text text;
  const Tokenizer* tokenizer = nullptr;
  int vocab = options.vocab_size;
  if (!options.tokenizer.empty()) {
    const bool demo = options.tokenizer == "smollm2";
    QUIRE_ASSIGN_OR_RETURN(text, open_tokenizer(demo ? demo_model_path() : options.tokenizer));
    tokenizer = text.tokenizer.get();
    vocab = tokenizer->vocab_size();
  }
  std::vector<TokenId> tokens;
  if (options.dataset == Dataset::kRandom || tokenizer == nullptr) {
    tokens = random_tokens(vocab, options.load.seed, tokenizer);
  } else {
    QUIRE_ASSIGN_OR_RETURN(tokens, tokens_of(options.dataset_path, *tokenizer));
  }
  LoadOptions load = options.load;
  load.requests += options.num_warmups;
  std::vector<Call> calls = make_load(load, tokens);
  if (tokenizer != nullptr && (options.endpoint.chat || options.print_load)) {
    for (Call& call : calls) call.text = tokenizer->decode(call.prompt, /*skip_special=*/false);
  }
  return calls;
}

void print_load(const std::vector<Call>& calls) {
  for (const Call& call : calls) {
    nlohmann::json line = {
        {"input", call.prompt.size()}, {"output", call.max_tokens}, {"prompt", call.prompt}};
    if (!call.text.empty()) line["text"] = call.text;
    // A cut may begin or end inside a character.
    std::printf("%s\n",
                line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  }
}

absl::Status save(const ServeOptions& options, const nlohmann::json& result,
                  const std::string& date) {
  std::filesystem::path path = options.result_dir;
  path /= options.result_filename.empty() ? absl::StrCat("quire-bench-", date, ".json")
                                          : options.result_filename;
  std::ofstream file(path);
  file << result.dump() << "\n";
  file.close();
  if (!file) return absl::UnavailableError(absl::StrCat("cannot write ", path.string()));
  std::printf("\nwritten to %s\n", path.c_str());
  return absl::OkStatus();
}

std::string now() {
  char date[32];
  const std::time_t seconds = std::time(nullptr);
  std::tm parts = {};
  std::strftime(date, sizeof(date), "%Y%m%d-%H%M%S", localtime_r(&seconds, &parts));
  return date;
}

}  // namespace

int serve_main(const std::vector<std::string>& arguments) {
  absl::StatusOr<ServeOptions> options = parse_serve(arguments);
  if (!options.ok()) return fail(options.status(), 64);
  if (options->help) {
    std::fputs(serve_help().c_str(), stdout);
    return 0;
  }
  absl::StatusOr<std::vector<Call>> calls = prepare(*options);
  if (!calls.ok()) return fail(calls.status(), 66);
  const auto warm_ups = calls->begin() + options->load.requests;
  const std::vector<Call> first(warm_ups, calls->end());
  calls->erase(warm_ups, calls->end());
  if (options->print_load) {
    print_load(*calls);
    return 0;
  }
  Endpoint& endpoint = options->endpoint;
  if (endpoint.model.empty() || options->ready_within_s > 0) {
    absl::StatusOr<std::string> model = wait_for_model(endpoint, options->ready_within_s);
    if (!model.ok()) return fail(model.status(), 1);
    if (endpoint.model.empty()) endpoint.model = *model;
  }
  if (!first.empty()) send_all(endpoint, first, std::vector<double>(first.size(), 0), 0);
  const std::vector<double> due = arrivals(options->load.requests, options->request_rate,
                                           options->burstiness, options->load.seed);
  const Run run = send_all(endpoint, *calls, due, options->max_concurrency);
  const Summary summary = summarize(run.outcomes, run.duration_s, options->goals);
  std::fputs(failure_report(run).c_str(), stderr);
  std::fputs(text_report(*options, summary).c_str(), stdout);
  if (options->save_result) {
    const std::string date = now();
    const absl::Status saved = save(*options, json_report(*options, summary, run, date), date);
    if (!saved.ok()) return fail(saved, 74);
  }
  return summary.completed > 0 ? 0 : 1;
}

}  // namespace quire::bench
