// The directions in which rooms may include each other, read off the sources themselves.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Rule {
  const char* room;                      // files below this folder; the longest match holds
  std::vector<const char*> may_include;  // prefixes of quoted includes
};

const Rule kRules[] = {
    {"common/", {"common/"}},
    {"kernels/", {"kernels/", "common/"}},
    {"worker/comm/", {"worker/comm/", "worker/device_buffer.h", "kernels/", "common/"}},
    {"worker/kv/", {"worker/kv/", "worker/device_buffer.h", "kernels/", "common/"}},
    {"worker/sampler/", {"worker/sampler/", "kernels/", "common/"}},
    {"worker/loader/", {"worker/loader/", "kernels/", "common/"}},
    {"worker/model/",
     {"worker/model/", "worker/loader/", "worker/comm/", "worker/kv/", "worker/device_buffer.h",
      "kernels/", "common/"}},
    {"worker/", {"worker/", "kernels/", "common/"}},
    {"coordinator/cache/", {"coordinator/cache/", "common/"}},
    {"coordinator/schedule/", {"coordinator/schedule/", "coordinator/cache/", "common/"}},
    {"coordinator/engine/",
     {"coordinator/engine/", "coordinator/schedule/", "coordinator/cache/", "common/"}},
    {"coordinator/fleet/", {"coordinator/fleet/", "coordinator/engine/", "common/"}},
    {"coordinator/journal/",
     {"coordinator/journal/", "coordinator/engine/", "coordinator/schedule/beam_params.h",
      "common/"}},
    {"coordinator/text/", {"coordinator/text/", "common/"}},
    {"coordinator/api/",
     {"coordinator/api/", "coordinator/text/", "coordinator/engine/", "common/"}},
    {"coordinator/", {"coordinator/", "common/"}},
    {"deploy/", {"deploy/", "common/", "worker/loader/", "worker/model/arch/", "kernels/formats/"}},
};

// Where generated protocol headers may be seen.
const char* const kProtoEdges[] = {"common/wire",
                                   "worker/session/",
                                   "coordinator/fleet/",
                                   "coordinator/api/grpc_",
                                   "coordinator/journal/records",
                                   "coordinator/server",
                                   "deploy/quire/client/"};

const Rule* rule_of(const std::string& file) {
  const Rule* best = nullptr;
  for (const Rule& rule : kRules) {
    if (file.rfind(rule.room, 0) != 0) continue;
    if (best == nullptr || std::string(rule.room).size() > std::string(best->room).size())
      best = &rule;
  }
  return best;
}

template <typename Prefixes>
bool starts_with_any(const std::string& text, const Prefixes& prefixes) {
  for (const char* prefix : prefixes) {
    if (text.rfind(prefix, 0) == 0) return true;
  }
  return false;
}

std::vector<std::string> sources() {
  std::vector<std::string> files;
  for (const char* top : {"common", "kernels", "worker", "coordinator", "deploy"}) {
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(QUIRE_SOURCE_DIR) / top)) {
      const std::string extension = entry.path().extension();
      if (extension != ".h" && extension != ".cpp" && extension != ".cu" && extension != ".cuh")
        continue;
      files.push_back(fs::relative(entry.path(), QUIRE_SOURCE_DIR));
    }
  }
  return files;
}

std::vector<std::string> lines_of(const std::string& file) {
  std::ifstream in(fs::path(QUIRE_SOURCE_DIR) / file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(Rooms, IncludeOnlyWhatTheyMay) {
  const std::regex include("^\\s*#include\\s+[\"<]([^\">]+)[\">]");
  const std::regex generated("^(fleet|generate|journal)(\\.grpc)?\\.pb\\.h$");
  int seen = 0;
  for (const std::string& file : sources()) {
    const Rule* rule = rule_of(file);
    ASSERT_NE(rule, nullptr) << file << " is in a room without a rule";
    for (const std::string& line : lines_of(file)) {
      std::smatch match;
      if (!std::regex_search(line, match, include)) continue;
      const std::string target = match[1];
      if (std::regex_match(target, generated)) {
        EXPECT_TRUE(starts_with_any(file, kProtoEdges)) << file << " sees " << target;
        continue;
      }
      if (!fs::exists(fs::path(QUIRE_SOURCE_DIR) / target)) continue;  // a library's header
      ++seen;
      EXPECT_TRUE(starts_with_any(target, rule->may_include)) << file << " includes " << target;
    }
  }
  EXPECT_GT(seen, 200);
}

TEST(Rooms, FilesStaySmall) {
  for (const std::string& file : sources()) {
    EXPECT_LE(lines_of(file).size(), 600u) << file;
  }
}

TEST(Rooms, PreprocessorConditionsLiveInKernelsOnly) {
  const std::regex condition("^\\s*#\\s*(if|ifdef|ifndef|elif)\\b");
  for (const std::string& file : sources()) {
    if (file.rfind("kernels/", 0) == 0) continue;
    for (const std::string& line : lines_of(file)) {
      EXPECT_FALSE(std::regex_search(line, condition)) << file << ": " << line;
    }
  }
}

TEST(Rooms, OnlyConfigReadsTheEnvironment) {
  for (const std::string& file : sources()) {
    if (file.rfind("common/config", 0) == 0) continue;
    for (const std::string& line : lines_of(file)) {
      EXPECT_EQ(line.find("getenv"), std::string::npos) << file << ": " << line;
    }
  }
}

}  // namespace
