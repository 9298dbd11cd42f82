#include "kernels/cpu/numa.h"

#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace quire::cpu {
namespace {

// "0-3,8": numbers and ranges.
std::vector<int> read_list(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  std::vector<int> cpus;
  for (const absl::string_view range : absl::StrSplit(line, ',', absl::SkipWhitespace())) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(range, absl::MaxSplits('-', 1));
    int first = 0, last = 0;
    if (!absl::SimpleAtoi(ends.first, &first)) continue;
    if (!absl::SimpleAtoi(ends.second, &last)) last = first;
    for (int cpu = first; cpu <= std::min(last, CPU_SETSIZE - 1); ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace

std::vector<NumaNode> numa_nodes(const std::vector<int>& allowed, const std::string& folder) {
  std::vector<NumaNode> nodes;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    absl::string_view number = name;
    NumaNode node;
    if (!absl::ConsumePrefix(&number, "node") || !absl::SimpleAtoi(number, &node.id)) continue;
    for (const int cpu : read_list(entry.path() / "cpulist")) {
      if (std::find(allowed.begin(), allowed.end(), cpu) != allowed.end()) node.cpus.push_back(cpu);
    }
    if (!node.cpus.empty()) nodes.push_back(std::move(node));
  }
  std::sort(nodes.begin(), nodes.end(),
            [](const NumaNode& a, const NumaNode& b) { return a.id < b.id; });
  return nodes;
}

std::vector<int> cpus_of_rank(const std::vector<NumaNode>& nodes, int local_rank,
                              int num_local_ranks) {
  const auto count = static_cast<int>(nodes.size());
  if (count < 2) return {};
  const int begin = local_rank * count / num_local_ranks;
  const int end = std::max(begin + 1, (local_rank + 1) * count / num_local_ranks);
  std::vector<int> cpus;
  for (int i = begin; i < end; ++i) {
    const std::vector<int>& more = nodes[static_cast<std::size_t>(i)].cpus;
    cpus.insert(cpus.end(), more.begin(), more.end());
  }
  return cpus;
}

std::vector<int> cpus_of_this_thread() {
  cpu_set_t set;
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

void keep_to(const std::vector<int>& cpus) {
  if (cpus.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

}  // namespace quire::cpu
