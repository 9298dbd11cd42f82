// A child process: forked and watched by a pidfd (so a recycled pid is never signalled),
// its output optionally read line by line. Its death signal is SIGKILL: no orphan outlives its
// parent.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace quire {

// No process, or one that only waits to be reaped.
bool has_ended(int pid);

class Process {
 public:
  // argv[0] is the program's path. With `read_output`, standard output comes through a pipe.
  static absl::StatusOr<Process> start(const std::vector<std::string>& argv,
                                       const std::vector<std::string>& extra_env, bool read_output);
  Process(Process&& other) noexcept { *this = std::move(other); }
  Process& operator=(Process&& other) noexcept;
  ~Process();  // kills and reaps what still runs

  int pid() const { return pid_; }
  int pidfd() const { return pidfd_; }    // readable when the process has ended
  int output() const { return output_; }  // -1 without read_output
  bool running() const { return pidfd_ >= 0; }
  void signal(int number) const;
  struct Children {
    int living = 0;
    int ended = 0;  // and not reaped
  };
  Children children() const;
  // Reaps; only after pidfd() became readable. 128 + n for death by signal n.
  int exit_code();
  // Appends what there is; returns complete lines. Closes output() at its end.
  std::vector<std::string> read_lines();

 private:
  Process() = default;
  pid_t pid_ = -1;
  int pidfd_ = -1;
  int output_ = -1;
  std::string partial_;
};

// Collects children that have died, but for those in `ours`: orphans that this process has adopted,
// as the first one of a container or as the nearest subreaper. Whoever started a child waits for
// it.
void reap_adopted(const std::vector<int>& ours);

}  // namespace quire
