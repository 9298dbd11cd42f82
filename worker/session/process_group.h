// Who the other ranks are: from MPI, or from --rank and --world-size where there is none. The only
// file of the worker besides comm that knows MPI.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/config.h"
#include "worker/runner/rank.h"

namespace quire {

class ProcessGroup {
 public:
  // Collective under MPI (also started without mpirun: then a world of one). InvalidArgument names
  // the options that are missing or out of range.
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> open(const EngineConfig& config);
  ~ProcessGroup();

  const RankPlace& place() const { return place_; }
  // One random id for this life of the group: made by rank 0 and spread by MPI, or --instance-id.
  const std::string& instance_id() const { return instance_id_; }

  // Ends this process and, under MPI, all ranks with `code`. Does not return.
  [[noreturn]] void abort(int code);
  // The tidy end: all ranks arrive here.
  void finalize();

 private:
  ProcessGroup() = default;
  absl::Status open_mpi(const std::string& instance_id);
  absl::Status open_by_hand(const EngineConfig& config);

  RankPlace place_;
  std::string instance_id_;
  bool mpi_ = false;
};

}  // namespace quire
