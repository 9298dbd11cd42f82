// A worker rank without a model: attaches to a real Fleet over gRPC, mirrors plans with HashWorker
// and answers as the protocol asks. Tests script its faults.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "fleet.grpc.pb.h"
#include "tests/fakes/hash_worker.h"

namespace quire::test {

inline constexpr const char* kBuild = "test";
inline constexpr std::uint64_t kModelHash = 42;

struct FakeWorkerScript {
  int num_blocks = 64;
  std::uint64_t host_blocks = 0, saved_prefixes = 0;  // what its Hello says of its store
  std::string collective;                             // what its Hello names
  std::string collective_id;                  // what rank 0 sends after Welcome; empty: nothing
  StepId wrong_digest_at = 0;                 // a step whose digest it reports wrongly
  StepId silent_from = 0;                     // a step from which it says nothing any more
  std::function<void(StepId)> before_answer;  // may block: holds the result back
};

// Where the ranks of a group wait for each other in every step, as real ones do between layers: so
// none is further behind than the plans in flight. Ranks whose stream has ended are not waited for.
class FakeMeeting {
 public:
  explicit FakeMeeting(int world) : reached_(static_cast<std::size_t>(world), 0) {}
  void arrive(int rank, StepId step);
  void leave(int rank);

 private:
  absl::Mutex mutex_;
  std::vector<StepId> reached_ ABSL_GUARDED_BY(mutex_);  // [rank]
};

class FakeWorker {
 public:
  // Without a meeting it waits for nobody.
  FakeWorker(const std::string& address, int rank, int world, const std::string& instance,
             FakeWorkerScript script = {}, const std::function<void(v1::Hello&)>& spoil = nullptr,
             std::shared_ptr<FakeMeeting> meeting = nullptr);
  ~FakeWorker();  // cancels its stream

  void kill() { context_.TryCancel(); }
  // Waits until the stream has ended and returns how.
  grpc::Status wait();

  std::string refusal() const;        // after wait()
  bool drained() const;               // after wait()
  std::string broken() const;         // the rule that a message broke
  std::string collective_id() const;  // relayed to it
  StepId last_step() const;
  v1::Welcome welcome() const;
  std::uint64_t sealed() const;  // the id that came with Drain

 private:
  void run();
  bool take(const v1::Down& down);
  void take_plan(const std::string& bytes);
  void answer(const StepPlan& plan, const StepResult& result);

  const int rank_;
  const FakeWorkerScript script_;
  const std::shared_ptr<FakeMeeting> meeting_;
  v1::Hello hello_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Fleet::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::Up, v1::Down>> stream_;
  v1::Welcome welcome_;
  std::unique_ptr<HashWorker> mirror_;
  std::uint64_t digest_ = 0;

  mutable absl::Mutex mutex_;
  bool done_ = false;
  bool drained_ = false;
  StepId last_step_ = 0;
  std::uint64_t sealed_ = 0;
  std::string refusal_, broken_, collective_id_;
  grpc::Status status_;
  std::thread thread_;
};

// A whole group of world ranks that attach as one instance.
class FakeGroup {
 public:
  FakeGroup(const std::string& address, int world, const std::string& instance,
            const FakeWorkerScript& script = {});
  FakeWorker& rank(int r) { return *ranks_[static_cast<std::size_t>(r)]; }

 private:
  std::vector<std::unique_ptr<FakeWorker>> ranks_;
};

}  // namespace quire::test
