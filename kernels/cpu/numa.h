// Where the threads of a rank run on a host with several NUMA nodes. Ranks are dealt to the nodes
// in order, and each keeps to its own: what a thread touches first then lies in its node's memory,
// and its weights, K and V are read from there.
#pragma once

#include <string>
#include <vector>

namespace quire::cpu {

struct NumaNode {
  int id = 0;
  std::vector<int> cpus;  // that this process may use; never empty
};

// In order of their ids. `folder`: the kernel's list of nodes. None where it cannot be read.
std::vector<NumaNode> numa_nodes(const std::vector<int>& allowed,
                                 const std::string& folder = "/sys/devices/system/node");

// The CPUs of rank `local_rank` of `num_local_ranks` on this host: one node where there are as many
// ranks as nodes or more, else an equal run of nodes. Empty: no reason to choose.
std::vector<int> cpus_of_rank(const std::vector<NumaNode>& nodes, int local_rank,
                              int num_local_ranks);

std::vector<int> cpus_of_this_thread();
// The calling thread and those it starts keep to these CPUs. What the kernel refuses is not done.
void keep_to(const std::vector<int>& cpus);

}  // namespace quire::cpu
