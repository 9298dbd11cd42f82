// Finds the shared test data (QUIRE_TEST_DATA, default ../shared beside the project) and the demo
// model. A test that needs what is absent skips with a reason; with QUIRE_REQUIRE_TEST_DATA=1 it
// fails.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace quire::test {

inline std::filesystem::path data_root() {
  if (const char* root = std::getenv("QUIRE_TEST_DATA")) return root;
  return std::filesystem::path(QUIRE_SOURCE_DIR).parent_path() / "shared";
}

inline bool data_required() {
  const char* flag = std::getenv("QUIRE_REQUIRE_TEST_DATA");
  return flag != nullptr && std::string(flag) == "1";
}

// The SmolLM2 GGUF that deploy/setup.sh caches: QUIRE_DEMO_MODEL, else the default cache folder.
inline std::filesystem::path demo_model() {
  if (const char* path = std::getenv("QUIRE_DEMO_MODEL")) return path;
  const char* cache = std::getenv("QUIRE_CACHE");
  const char* home = std::getenv("HOME");
  const std::filesystem::path root =
      cache != nullptr ? cache
                       : std::filesystem::path(home != nullptr ? home : "/tmp") / ".cache/quire";
  return root / "SmolLM2-135M-Instruct.Q4_1.gguf";
}

}  // namespace quire::test

// In a test body: QUIRE_NEED_DATA(path) skips (or fails, where data is required) without `path`.
#define QUIRE_NEED_DATA(path)                                                   \
  do {                                                                          \
    if (!std::filesystem::exists(path)) {                                       \
      if (::quire::test::data_required())                                       \
        FAIL() << "test data is required but missing: " << (path);              \
      GTEST_SKIP() << "no test data at " << (path) << " (set QUIRE_TEST_DATA)"; \
    }                                                                           \
  } while (false)
