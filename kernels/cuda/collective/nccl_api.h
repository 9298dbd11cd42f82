// The functions of NCCL that we call, as a table: filled from the library that is found when the
// process runs, or by tests/fakes/fake_nccl. Nothing of ours links NCCL, so that a program starts
// without it; only a group of several ranks needs it.
//
// Several ranks on one GPU (for tests) is a matter of the environment of whoever starts the
// processes: before NCCL 2.30 NCCL_HOSTID, another value for each process; from 2.30 on
// NCCL_MULTI_RANK_GPU_ENABLE=1 (README.md).
#pragma once

#include <nccl.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace quire::cuda {

// Each member has the type and meaning of the function that is named like it in nccl.h.
struct NcclApi {
  decltype(&ncclGetVersion) get_version = nullptr;
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) comm_init_rank_config = nullptr;
  decltype(&ncclCommGetAsyncError) comm_get_async_error = nullptr;
  decltype(&ncclCommFinalize) comm_finalize = nullptr;
  decltype(&ncclCommDestroy) comm_destroy = nullptr;
  decltype(&ncclCommAbort) comm_abort = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclBroadcast) broadcast = nullptr;
  decltype(&ncclGetErrorString) get_error_string = nullptr;
  decltype(&ncclGetLastError) get_last_error = nullptr;
};

// Opens the first of `paths` that there is, or, with none given, libnccl.so.2 as the dynamic linker
// finds it and then where the build found it. It stays open for the life of the process. NotFound
// says what was tried; FailedPrecondition: a library that lacks a function, or is too old.
absl::StatusOr<NcclApi> load_nccl(absl::Span<const std::string> paths = {});

// "2.28.9"
std::string nccl_version(const NcclApi& api);

}  // namespace quire::cuda
