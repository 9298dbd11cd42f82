#include "tests/fakes/fake_nccl.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace {

using Lock = std::unique_lock<std::mutex>;

// One exchange of a group: what each rank brought, and who has taken what it needs.
struct Exchange {
  char kind = 0;
  std::size_t bytes = 0;
  int root = 0;
  std::vector<const void*> in;
  std::vector<const ncclComm*> by;
  int arrived = 0;
  int finished = 0;
};

struct Group {
  int world = 0;
  int joined = 0;
  int left = 0;
  std::map<int, Exchange> exchanges;  // by number, from 1
};

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace

// What an ncclComm_t points to. All of it is guarded by World::mutex.
struct ncclComm {
  std::shared_ptr<Group> group;
  int rank = 0;
  int exchanges = 0;  // begun
  int polls = 0;      // left until what was called is done
  bool joining = true;
  bool finalizing = false;
  bool aborted = false;
  ncclResult_t error = ncclSuccess;  // asynchronous
};

namespace {

// A call on a stream.
struct Work {
  ncclComm* comm;
  int number;
  const void* in;
  void* out;
  std::size_t bytes;
  char kind;
  int root;
};

struct World {
  std::mutex mutex;
  std::condition_variable changed;
  quire::test::FakeNcclScript script;
  std::uint64_t draws = 0;
  int calls = 0;
  int ids = 0;
  int communicators = 0;
  std::string disagreement;
  std::map<std::string, std::shared_ptr<Group>> groups;
  std::deque<std::unique_ptr<ncclComm>> comms;  // kept: work on streams may still name them
  std::deque<std::unique_ptr<Work>> works;      // kept: graphs may run them again
};

World& world() {
  static auto* all = new World;
  return *all;
}

int draw(World& w, int below) {
  if (below <= 0) return 0;
  return static_cast<int>(mix(w.script.seed * 0x9e3779b97f4a7c15ull + ++w.draws) %
                          static_cast<std::uint64_t>(below));
}

// What a call returns before it does anything.
ncclResult_t begin_call(World& w, ncclComm* comm) {
  if (comm != nullptr && comm->error != ncclSuccess) return comm->error;
  if (++w.calls != w.script.fail_call) return ncclSuccess;
  if (!w.script.fail_later || comm == nullptr) return w.script.failure;
  comm->error = w.script.failure;
  return ncclSuccess;
}

// A call that is accepted: done now, or after some polls.
ncclResult_t accept(World& w, ncclComm* comm) {
  comm->polls = draw(w, w.script.max_polls + 1);
  return comm->polls > 0 ? ncclInProgress : ncclSuccess;
}

// A peer that failed or was aborted never comes: as with NCCL, only our own abort ends the waiting.
template <typename Condition>
bool wait_for(World& w, Lock& lock, ncclComm* comm, Condition condition) {
  w.changed.wait(lock, [&] { return comm->aborted || condition(); });
  return !comm->aborted;
}

void check_agreement(World& w, const Exchange& exchange, const Work& work) {
  if (exchange.kind == work.kind && exchange.bytes == work.bytes && exchange.root == work.root) {
    return;
  }
  w.disagreement = "rank " + std::to_string(work.comm->rank) + " calls " + work.kind + " of " +
                   std::to_string(work.bytes) + " bytes as exchange " +
                   std::to_string(work.number) + ", another rank " + exchange.kind + " of " +
                   std::to_string(exchange.bytes);
}

void take(const Work& work, const Exchange& exchange) {
  if (work.kind == 'b') {
    const void* from = exchange.in[static_cast<std::size_t>(work.root)];
    if (from != work.out) std::memcpy(work.out, from, work.bytes);
    return;
  }
  for (std::size_t r = 0; r < exchange.in.size(); ++r) {
    auto* to = static_cast<std::byte*>(work.out) + r * work.bytes;
    if (to != exchange.in[r]) std::memcpy(to, exchange.in[r], work.bytes);
  }
}

bool any_aborted(const Exchange& exchange) {
  return std::any_of(exchange.by.begin(), exchange.by.end(),
                     [](const ncclComm* comm) { return comm->aborted; });
}

// Runs on the stream: waits for the peers, copies, and waits until all have copied.
void run_exchange(const Work& work) {
  World& w = world();
  Lock lock(w.mutex);
  ncclComm* comm = work.comm;
  if (comm->aborted) return;
  const int delay = draw(w, w.script.max_delay_us + 1);
  if (delay > 0) {
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::microseconds(delay));
    lock.lock();
  }
  Group& group = *comm->group;
  const bool missing =
      comm->rank == w.script.missing_rank && work.number == w.script.missing_exchange;
  if (missing || comm->error != ncclSuccess) {
    wait_for(w, lock, comm, [] { return false; });
    return;
  }
  Exchange& exchange = group.exchanges[work.number];
  if (exchange.arrived++ == 0) {
    exchange.kind = work.kind;
    exchange.bytes = work.bytes;
    exchange.root = work.root;
    exchange.in.resize(static_cast<std::size_t>(group.world));
  }
  check_agreement(w, exchange, work);
  exchange.in[static_cast<std::size_t>(comm->rank)] = work.in;
  w.changed.notify_all();
  exchange.by.push_back(comm);
  if (!wait_for(w, lock, comm, [&] { return exchange.arrived == group.world; })) return;
  if (any_aborted(exchange)) {  // its memory may be gone
    wait_for(w, lock, comm, [] { return false; });
    return;
  }
  if (w.disagreement.empty()) take(work, exchange);
  ++exchange.finished;
  w.changed.notify_all();
  wait_for(w, lock, comm, [&] { return exchange.finished >= group.world; });
  if (exchange.finished++ == 2 * group.world - 1) group.exchanges.erase(work.number);
}

// Again and again where it was captured. Exchanges are numbered as they run: a captured call is
// none.
void run_on_stream(void* argument) {
  Work work = *static_cast<const Work*>(argument);
  {
    const Lock lock(world().mutex);
    work.number = ++work.comm->exchanges;
  }
  run_exchange(work);
}

ncclResult_t enqueue(Work work, cudaStream_t stream) {
  World& w = world();
  ncclResult_t result = ncclSuccess;
  Work* kept = nullptr;
  {
    const Lock lock(w.mutex);
    if (const ncclResult_t refused = begin_call(w, work.comm); refused != ncclSuccess) {
      return refused;
    }
    result = accept(w, work.comm);
    w.works.push_back(std::make_unique<Work>(work));
    kept = w.works.back().get();
  }
  const cudaError_t error = cudaLaunchHostFunc(stream, run_on_stream, kept);
  return error == cudaSuccess ? result : ncclUnhandledCudaError;
}

// --- the table ---

ncclResult_t get_version(int* version) {
  *version = 23456;
  return ncclSuccess;
}

ncclResult_t get_unique_id(ncclUniqueId* id) {
  World& w = world();
  const Lock lock(w.mutex);
  if (const ncclResult_t refused = begin_call(w, nullptr); refused != ncclSuccess) return refused;
  std::memset(id->internal, 0, sizeof id->internal);
  const std::string text = "fake group " + std::to_string(++w.ids);
  std::memcpy(id->internal, text.data(), text.size());
  return ncclSuccess;
}

ncclResult_t comm_init_rank_config(ncclComm_t* out, int num_ranks, ncclUniqueId id, int rank,
                                   ncclConfig_t* config) {
  World& w = world();
  const Lock lock(w.mutex);
  *out = nullptr;
  if (config->blocking != 0) return ncclInvalidArgument;
  auto comm = std::make_unique<ncclComm>();
  if (const ncclResult_t refused = begin_call(w, comm.get()); refused != ncclSuccess) {
    return refused;
  }
  auto& group = w.groups[std::string(id.internal, sizeof id.internal)];
  if (group == nullptr) group = std::make_shared<Group>();
  group->world = num_ranks;
  comm->group = group;
  comm->rank = rank;
  if (comm->error == ncclSuccess) ++group->joined;
  *out = comm.get();
  w.comms.push_back(std::move(comm));
  ++w.communicators;
  accept(w, *out);
  return ncclInProgress;
}

ncclResult_t comm_get_async_error(ncclComm_t comm, ncclResult_t* state) {
  World& w = world();
  const Lock lock(w.mutex);
  if (comm->aborted) return ncclInvalidArgument;  // NCCL's would be freed memory
  *state = comm->error;
  if (comm->error != ncclSuccess) return ncclSuccess;
  if (comm->joining && comm->group->joined == comm->group->world) comm->joining = false;
  const bool leaving = comm->finalizing && comm->group->left < comm->group->world;
  if (comm->joining || leaving || (comm->polls > 0 && comm->polls-- > 0)) *state = ncclInProgress;
  return ncclSuccess;
}

ncclResult_t comm_finalize(ncclComm_t comm) {
  World& w = world();
  const Lock lock(w.mutex);
  if (const ncclResult_t refused = begin_call(w, comm); refused != ncclSuccess) return refused;
  comm->finalizing = true;
  ++comm->group->left;
  accept(w, comm);
  return ncclInProgress;
}

ncclResult_t end(ncclComm_t comm) {
  World& w = world();
  const Lock lock(w.mutex);
  if (comm->aborted) return ncclInvalidArgument;
  comm->aborted = true;
  --w.communicators;
  w.changed.notify_all();
  return ncclSuccess;
}

ncclResult_t all_gather(const void* in, void* out, std::size_t count, ncclDataType_t type,
                        ncclComm_t comm, cudaStream_t stream) {
  if (type != ncclUint8) return ncclInvalidArgument;
  return enqueue({comm, 0, in, out, count, 'g', 0}, stream);
}

ncclResult_t broadcast(const void* in, void* out, std::size_t count, ncclDataType_t type, int root,
                       ncclComm_t comm, cudaStream_t stream) {
  if (type != ncclUint8) return ncclInvalidArgument;
  return enqueue({comm, 0, in, out, count, 'b', root}, stream);
}

const char* get_error_string(ncclResult_t result) {
  return result == ncclSystemError ? "fake system error" : "fake error";
}

const char* get_last_error(ncclComm_t) {
  return "as the script says";
}

}  // namespace

namespace quire::test {

void set_fake_nccl(const FakeNcclScript& script) {
  World& w = world();
  const Lock lock(w.mutex);
  w.script = script;
  w.calls = 0;
  w.draws = 0;
  w.disagreement.clear();
}

int fake_nccl_calls() {
  const Lock lock(world().mutex);
  return world().calls;
}

int fake_nccl_communicators() {
  const Lock lock(world().mutex);
  return world().communicators;
}

std::string fake_nccl_disagreement() {
  const Lock lock(world().mutex);
  return world().disagreement;
}

cuda::NcclApi fake_nccl() {
  cuda::NcclApi api;
  api.get_version = get_version;
  api.get_unique_id = get_unique_id;
  api.comm_init_rank_config = comm_init_rank_config;
  api.comm_get_async_error = comm_get_async_error;
  api.comm_finalize = comm_finalize;
  api.comm_destroy = end;
  api.comm_abort = end;
  api.all_gather = all_gather;
  api.broadcast = broadcast;
  api.get_error_string = get_error_string;
  api.get_last_error = get_last_error;
  return api;
}

}  // namespace quire::test
