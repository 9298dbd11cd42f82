// A run in words and as JSON, with the keys of `vllm bench serve`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bench/serve/options.h"
#include "bench/serve/send.h"

namespace quire::bench {

std::string text_report(const ServeOptions& options, const Summary& summary);
// `date`: YYYYMMDD-HHMMSS.
nlohmann::json json_report(const ServeOptions& options, const Summary& summary, const Run& run,
                           const std::string& date);
// Why requests failed, a line for each reason; empty where none did.
std::string failure_report(const Run& run);

}  // namespace quire::bench
