// A launch: arguments are copied by value, as CUDA does, so that a captured launch can be replayed.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>

namespace quire::cuda_emulation {

struct GridRun {
  dim3 grid;
  dim3 block;
  size_t shared_bytes;
  void (*run)(void*);  // one thread's call of the kernel
  void* closure;
};

// Runs a grid to its end on the calling thread.
void run_grid(const GridRun& grid);

// Checks the shape as the driver does, sets the last error; cudaSuccess: may be run.
cudaError_t check_launch(const cudaLaunchConfig_t& config, const void* kernel);
// Refuses pointers that a device could not follow.
void check_pointer_argument(const void* pointer, int number);
// Runs now, or records where the stream is being captured.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);

template <typename T>
void check_argument(const T& value, int number) {
  if constexpr (std::is_pointer_v<T> && !std::is_function_v<std::remove_pointer_t<T>>) {
    check_pointer_argument(value, number);
  }
}

template <typename... Args>
cudaError_t launch_kernel(const cudaLaunchConfig_t& config, void (*kernel)(Args...),
                          std::type_identity_t<Args>... args) {
  const cudaError_t refused = check_launch(config, reinterpret_cast<const void*>(kernel));
  if (refused != cudaSuccess) return refused;
  int number = 0;
  (check_argument(args, ++number), ...);

  struct Closure {
    void (*kernel)(Args...);
    std::tuple<std::remove_const_t<Args>...> args;
    static void run(void* self) {
      auto* closure = static_cast<Closure*>(self);
      std::apply(closure->kernel, closure->args);
    }
  };
  auto closure = std::make_shared<Closure>(Closure{kernel, {args...}});
  return enqueue(config.stream, [closure, grid = config.gridDim, block = config.blockDim,
                                 shared = config.dynamicSmemBytes] {
    run_grid({grid, block, shared, &Closure::run, closure.get()});
  });
}

}  // namespace quire::cuda_emulation
