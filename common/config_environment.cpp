// The environment variables we read, all of them.
#include <cstdlib>

#include "common/config.h"

namespace quire {

std::string demo_model_path() {
  std::string cache;
  if (const char* named = std::getenv("QUIRE_CACHE"); named != nullptr && *named != '\0') {
    cache = named;
  } else {
    const char* home = std::getenv("HOME");
    cache = std::string(home != nullptr ? home : "/tmp") + "/.cache/quire";
  }
  return cache + "/SmolLM2-135M-Instruct.Q4_1.gguf";
}

}  // namespace quire
