// Removes what killed worker groups leave behind: names of shared memory that no process maps, and
// the session folders of an mpirun that lives no more. Only our user's files are touched, and none
// that a group which is just starting could still need.
#pragma once

#include <string>

namespace quire {

// Where such files are.
struct SweepPlaces {
  std::string shared_memory = "/dev/shm";
  std::string temporary;  // Open MPI's; empty: the system's folder for temporary files
};

// `dead_instance`: an instance id (--instance-id) none of whose ranks lives; empty: none is known.
// Returns how many files and folders were removed.
int sweep(const std::string& dead_instance, const SweepPlaces& places = {});

// Makes the folder in which every mpirun of `host` and ours has its own: two that start at once may
// both try to, and the second one fails.
void make_sessions_folder(const std::string& host, const SweepPlaces& places = {});

}  // namespace quire
