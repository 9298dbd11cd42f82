#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "bench/kernels/cuda/meet_ranks.h"
#include "tests/cuda_emulation/control.h"
#include "tests/fakes/fake_nccl.h"

namespace quire::bench {

int run_ranks(int world, bool, const std::function<int(const RankPlaceHere&)>& work) {
  cuda_emulation::set_stream_mode(cuda_emulation::StreamMode::kDeferred);
  std::mutex mutex;
  std::condition_variable said;
  std::string id;
  std::vector<int> codes(static_cast<std::size_t>(world));
  std::vector<std::thread> threads;
  for (int r = 0; r < world; ++r) {
    const auto share = [&, r](const std::string& mine) {
      std::unique_lock lock(mutex);
      if (r == 0) id = mine;
      said.notify_all();
      said.wait(lock, [&] { return !id.empty(); });
      return id;
    };
    threads.emplace_back([&, r, share] {
      codes[static_cast<std::size_t>(r)] =
          work({r, world, [] { return test::fake_nccl(); }, share});
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int code : codes) {
    if (code != 0) return code;
  }
  return 0;
}

}  // namespace quire::bench
