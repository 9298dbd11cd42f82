// `quire doctor`: what this machine can run. Devices are told by quire-worker, the only program
// that opens them; the rest is what `quire serve` relies on.
#include <poll.h>
#include <sys/statvfs.h>

#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "deploy/quire/commands.h"
#include "deploy/quire/launch.h"
#include "deploy/quire/process.h"

namespace quire {
namespace {

constexpr int kWithinMs = 60000;  // a GPU driver may take seconds to wake up
constexpr double kSmallestSharedGb = 0.25;

struct Findings {
  int problems = 0;
  void tell(const char* name, const std::string& what) {
    std::printf("%-13s %s\n", name, what.c_str());
  }
  void problem(const char* name, const std::string& what) {
    ++problems;
    tell(name, absl::StrCat("PROBLEM: ", what));
  }
};

void check_mpi(Findings& findings) {
  const std::string mpirun = find_mpirun();
  if (mpirun.empty()) {
    findings.problem("mpirun", "not installed; install Open MPI 4.1 (openmpi-bin)");
  } else {
    findings.tell("mpirun", mpirun);
  }
}

// Ranks of one host exchange their sums in /dev/shm.
void check_shared_memory(Findings& findings) {
  struct statvfs info = {};
  if (statvfs("/dev/shm", &info) != 0) {
    findings.problem("/dev/shm", "there is none; mount a tmpfs there");
    return;
  }
  const double gigabytes =
      static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize) / 1e9;
  const std::string free = absl::StrFormat("%.1f GB free", gigabytes);
  if (gigabytes < kSmallestSharedGb) {
    findings.problem("/dev/shm", absl::StrCat(free, "; give a container more (--shm-size 1g)"));
  } else {
    findings.tell("/dev/shm", free);
  }
}

void check_devices(Findings& findings, const std::string& bin) {
  const std::string worker = absl::StrCat(bin, "/quire-worker");
  auto process = Process::start({worker, "--list-devices"}, {}, /*read_output=*/true);
  if (!process.ok()) {
    findings.problem("devices", std::string(process.status().message()));
    return;
  }
  // The worker ends by itself; the pidfd is readable when it has.
  pollfd ended = {process->pidfd(), POLLIN, 0};
  const bool in_time = poll(&ended, 1, kWithinMs) == 1;
  for (const std::string& line : process->read_lines()) std::printf("%s\n", line.c_str());
  if (!in_time) {
    findings.problem("devices", "quire-worker did not list them within a minute");
  } else if (const int code = process->exit_code(); code != 0) {
    findings.problem("devices", absl::StrCat("quire-worker: ", explain_exit(code)));
  }
}

}  // namespace

int doctor_command(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) {
    const bool help = arguments[0] == "--help" || arguments[0] == "-h";
    std::fputs(
        "usage: quire doctor\n\nLists what this machine can run; exit code 1 when something is "
        "missing.\n",
        help ? stdout : stderr);
    return help ? 0 : 64;
  }
  Findings findings;
  findings.tell("quire", QUIRE_VERSION);
  check_mpi(findings);
  check_shared_memory(findings);
  std::fflush(stdout);
  check_devices(findings, std::filesystem::read_symlink("/proc/self/exe").parent_path().string());
  return findings.problems == 0 ? 0 : 1;
}

}  // namespace quire
