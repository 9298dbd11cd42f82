// Which seeds a part of a simulation's test runs. QUIRE_SIM_SEEDS sets the number of all parts
// together, QUIRE_SIM_SEED replays the one that a failure prints.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

namespace quire::test {

struct Seeds {
  std::uint64_t first = 1, count = 0;
  bool is_replay = false;  // of one seed: by part 0

  static std::uint64_t from_environment(const char* name, std::uint64_t fallback) {
    const char* text = std::getenv(name);
    return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
  }

  static Seeds of_part(int part, int num_parts) {
    if (const std::uint64_t only = from_environment("QUIRE_SIM_SEED", 0); only != 0) {
      return {only, part == 0 ? 1u : 0u, true};
    }
    const std::uint64_t per_part =
        from_environment("QUIRE_SIM_SEEDS", 1000) / static_cast<std::uint64_t>(num_parts);
    return {1 + static_cast<std::uint64_t>(part) * per_part, per_part, false};
  }

  std::string text() const {
    return "seeds " + std::to_string(first) + " to " + std::to_string(first + count - 1);
  }
};

inline std::string replay_hint(std::uint64_t seed) {
  const std::string number = std::to_string(seed);
  return "seed " + number + " (replay: QUIRE_SIM_SEED=" + number + "): ";
}

}  // namespace quire::test
