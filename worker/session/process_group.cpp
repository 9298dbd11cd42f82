// MPI's part in a worker's life: rank, world, hosts, instance id, and the end.
#include "worker/session/process_group.h"

#include <mpi.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status.h"
#include "worker/session/exit_code.h"

namespace quire {
namespace {

constexpr std::size_t kInstanceBytes = 64;

// Ranks are started together, so whoever has not come to MPI_Init within this time never will: a
// rank that left with 0 before it is nobody whom mpirun misses, and the others would wait for ever.
constexpr unsigned kMeetWithinSeconds = 30;

void end_waiting(int) {
  constexpr char kText[] =
      "quire-worker: not every rank has come to MPI_Init within 30 s; look for one that ended\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof kText - 1);
  ::_exit(kExitTemporary);
}

class MeetingDeadline {
 public:
  MeetingDeadline() : before_(signal(SIGALRM, end_waiting)) { alarm(kMeetWithinSeconds); }
  ~MeetingDeadline() {
    alarm(0);
    signal(SIGALRM, before_);
  }
  MeetingDeadline(const MeetingDeadline&) = delete;
  MeetingDeadline& operator=(const MeetingDeadline&) = delete;

 private:
  void (*const before_)(int);
};

std::string random_instance_id() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x", device(), device(), device());
}

// The id becomes part of the name of a shared-memory segment.
bool is_name(const std::string& id) {
  return id.size() < kInstanceBytes && std::all_of(id.begin(), id.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
         });
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::open(const EngineConfig& config) {
  auto group = std::unique_ptr<ProcessGroup>(new ProcessGroup());
  if (!is_name(config.instance_id)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--instance-id is \"", absl::CHexEscape(config.instance_id.substr(0, kInstanceBytes)),
        "\"; at most ", kInstanceBytes - 1, " letters, digits, - and _ are allowed"));
  }
  group->place_.local_group = config.data_parallel_rank;
  group->place_.num_local_groups = num_local_groups(config);
  const bool by_hand = config.rank >= 0 || config.world_size >= 0;
  QUIRE_RETURN_IF_ERROR(by_hand ? group->open_by_hand(config)
                                : group->open_mpi(config.instance_id));
  return group;
}

absl::Status ProcessGroup::open_by_hand(const EngineConfig& config) {
  place_.rank = config.rank;
  place_.world = config.world_size;
  if (place_.world < 1 || place_.rank < 0 || place_.rank >= place_.world) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--rank ", place_.rank, " --world-size ", place_.world,
        ": give both, with a rank in [0, world size - 1], or neither to take them ", "from MPI"));
  }
  if (place_.world > 1 && config.instance_id.empty()) {
    return absl::InvalidArgumentError(
        "--instance-id is needed with --world-size above 1 and no MPI: one new random text per "
        "start, the same for all ranks");
  }
  place_.num_local_ranks = place_.world;  // without MPI there is no way to another host
  instance_id_ = config.instance_id.empty() ? random_instance_id() : config.instance_id;
  return absl::OkStatus();
}

absl::Status ProcessGroup::open_mpi(const std::string& instance_id) {
  const MeetingDeadline deadline;
  int provided = MPI_THREAD_SINGLE;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS) {
    return absl::InternalError("MPI could not be initialised; see its message above");
  }
  mpi_ = true;
  if (provided < MPI_THREAD_SERIALIZED) {
    return absl::InternalError("this MPI library does not support MPI_THREAD_SERIALIZED");
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &place_.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &place_.world);

  MPI_Comm host = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, place_.rank, MPI_INFO_NULL, &host);
  MPI_Comm_size(host, &place_.num_local_ranks);
  int lowest = place_.rank;
  int highest = place_.rank;
  MPI_Allreduce(&place_.rank, &lowest, 1, MPI_INT, MPI_MIN, host);
  MPI_Allreduce(&place_.rank, &highest, 1, MPI_INT, MPI_MAX, host);
  MPI_Comm_free(&host);
  place_.first_local_rank = lowest;
  if (highest - lowest + 1 != place_.num_local_ranks) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ranks of this host are not neighbours (", place_.num_local_ranks,
                     " ranks from ", lowest, " to ", highest, "); give mpirun --map-by slot"));
  }

  std::array<char, kInstanceBytes> id{};
  const std::string mine = instance_id.empty() ? random_instance_id() : instance_id;
  mine.copy(id.data(), id.size() - 1);
  if (MPI_Bcast(id.data(), static_cast<int>(id.size()), MPI_CHAR, 0, MPI_COMM_WORLD) !=
      MPI_SUCCESS) {
    return absl::UnavailableError("MPI could not spread the instance id");
  }
  instance_id_ = id.data();
  return absl::OkStatus();
}

ProcessGroup::~ProcessGroup() = default;

void ProcessGroup::abort(int code) {
  if (mpi_) MPI_Abort(MPI_COMM_WORLD, code);
  ::_exit(code);
}

void ProcessGroup::finalize() {
  if (mpi_) MPI_Finalize();
}

}  // namespace quire
