// The table from a shared library.
#include "kernels/cuda/collective/nccl_api.h"

#include <dlfcn.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"

namespace quire::cuda {
namespace {

// Non-blocking communicators as we use them.
constexpr int kOldestVersion = NCCL_VERSION(2, 19, 0);

template <typename Function>
absl::Status find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the NCCL library has no ", name, "; install NCCL 2.19 or newer"));
}

absl::StatusOr<NcclApi> fill(void* library) {
  NcclApi api;
  QUIRE_RETURN_IF_ERROR(find(library, "ncclGetVersion", &api.get_version));
  QUIRE_RETURN_IF_ERROR(find(library, "ncclGetUniqueId", &api.get_unique_id));
  QUIRE_RETURN_IF_ERROR(find(library, "ncclCommInitRankConfig", &api.comm_init_rank_config));
  QUIRE_RETURN_IF_ERROR(find(library, "ncclCommGetAsyncError", &api.comm_get_async_error));
  QUIRE_RETURN_IF_ERROR(find(library, "ncclCommFinalize", &api.comm_finalize));
  QUIRE_RETURN_IF_ERROR(find(library, "ncclCommDestroy", &api.comm_destroy));
  QUIRE_RETURN_IF_ERROR(find(library, "ncclCommAbort", &api.comm_abort));
  QUIRE_RETURN_IF_ERROR(find(library, "ncclAllGather", &api.all_gather));
  QUIRE_RETURN_IF_ERROR(find(library, "ncclBroadcast", &api.broadcast));
  QUIRE_RETURN_IF_ERROR(find(library, "ncclGetErrorString", &api.get_error_string));
  QUIRE_RETURN_IF_ERROR(find(library, "ncclGetLastError", &api.get_last_error));
  int version = 0;
  if (api.get_version(&version) != ncclSuccess || version < kOldestVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("NCCL ", nccl_version(api), " is too old; install 2.19 or newer"));
  }
  return api;
}

}  // namespace

absl::StatusOr<NcclApi> load_nccl(absl::Span<const std::string> paths) {
  std::vector<std::string> tried(paths.begin(), paths.end());
  if (tried.empty()) {
    tried = {"libnccl.so.2"};
#ifdef QUIRE_NCCL_LIBRARY
    tried.push_back(QUIRE_NCCL_LIBRARY);
#endif
  }
  std::vector<std::string> reasons;
  for (const std::string& path : tried) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) return fill(library);
    reasons.push_back(dlerror());
  }
  return absl::NotFoundError(absl::StrCat("several GPUs need NCCL, and there is none (",
                                          absl::StrJoin(reasons, "; "),
                                          "); install it, or put its folder into LD_LIBRARY_PATH"));
}

std::string nccl_version(const NcclApi& api) {
  int version = 0;
  if (api.get_version(&version) != ncclSuccess) return "of unknown version";
  return absl::StrCat(version / 10000, ".", version % 10000 / 100, ".", version % 100);
}

}  // namespace quire::cuda
