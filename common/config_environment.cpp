// The environment variables we read, all of them.
#include <cstdlib>
#include <string>

#include "common/config.h"

namespace quire {

std::string cache_folder() {
  if (const char* named = std::getenv("QUIRE_CACHE"); named != nullptr && *named != '\0') {
    return named;
  }
  const char* home = std::getenv("HOME");
  return std::string(home != nullptr ? home : "/tmp") + "/.cache/quire";
}

std::string api_key_of_environment() {
  const char* key = std::getenv(kApiKeyVariable);
  return key != nullptr ? key : "";
}

std::string demo_model_path() {
  return cache_folder() + "/SmolLM2-135M-Instruct.Q4_1.gguf";
}

std::string journal_path(const EngineConfig& config) {
  if (config.journal == "none") return "";
  if (config.journal != "auto") return config.journal;
  if (config.port == 0) return "";
  return cache_folder() + "/journal/port-" + std::to_string(config.port) + ".sqlite";
}

}  // namespace quire
