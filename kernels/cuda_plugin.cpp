#include "kernels/cuda_plugin.h"

#include <dlfcn.h>

#include <filesystem>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

// Beside the program in a build folder, in ../lib where it is installed.
std::filesystem::path plugin_path() {
  std::error_code error;
  const std::filesystem::path bin =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  const std::filesystem::path beside = bin / "libquire_cuda.so";
  return std::filesystem::exists(beside, error) ? beside : bin / "../lib/libquire_cuda.so";
}

}  // namespace

bool has_nvidia_driver() {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver == nullptr) return false;
  dlclose(driver);
  return true;
}

absl::StatusOr<const CudaPlugin*> load_cuda_plugin() {
  const std::filesystem::path path = plugin_path();
  if (std::error_code error; !std::filesystem::exists(path, error)) {
    return absl::NotFoundError(
        "this build has no CUDA backend (libquire_cuda.so); build with a CUDA toolkit, "
        "./deploy/setup.sh --cuda brings one");
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // for the life of the process
  if (library == nullptr) {
    return absl::NotFoundError(absl::StrCat("the CUDA backend does not load: ", dlerror()));
  }
  const auto* plugin = static_cast<const CudaPlugin*>(dlsym(library, kCudaPluginSymbol));
  if (plugin == nullptr || absl::string_view(plugin->build) != QUIRE_VERSION) {
    return absl::NotFoundError(
        absl::StrCat(path.string(), " is not of this build (", QUIRE_VERSION, "); build again"));
  }
  return plugin;
}

}  // namespace quire
