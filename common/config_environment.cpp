// The environment variables we read, all of them.
#include <cstdlib>

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

}  // namespace quire
