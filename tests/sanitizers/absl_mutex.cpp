// Tells ThreadSanitizer what absl::Mutex and absl::CondVar order. Debian's library is not built
// with it, so without this every access that such a mutex guards (ours, and gRPC's, which hands our
// callbacks from thread to thread) would look like a race. Linked only into builds with
// QUIRE_SANITIZE=thread: these definitions come before the library's, which they call. The names
// are in absl's inline namespace, as Debian has it.
#include <sanitizer/tsan_interface.h>

#include <utility>

#include "absl/synchronization/mutex.h"
#include "tests/sanitizers/library.h"

namespace absl {
ABSL_NAMESPACE_BEGIN
namespace {

using quire::sanitizers::call_library;

// The mutex that this thread gives up or waits with: the library looks at conditions on the way,
// its own and those that others wait for, under the lock.
thread_local void* leaving = nullptr;

class Leaving {
 public:
  explicit Leaving(void* mutex) : before_(std::exchange(leaving, mutex)) { __tsan_release(mutex); }
  ~Leaving() { leaving = before_; }
  Leaving(const Leaving&) = delete;
  Leaving& operator=(const Leaving&) = delete;

 private:
  void* before_;
};

}  // namespace

bool Condition::Eval() const {
  if (leaving != nullptr) __tsan_acquire(leaving);
  const bool met = call_library<"_ZNK4absl7debian39Condition4EvalEv", bool>(this);
  if (leaving != nullptr) __tsan_release(leaving);
  return met;
}

void Mutex::Lock() {
  call_library<"_ZN4absl7debian35Mutex4LockEv", void>(this);
  __tsan_acquire(this);
}
void Mutex::Unlock() {
  const Leaving scope(this);
  call_library<"_ZN4absl7debian35Mutex6UnlockEv", void>(this);
}
bool Mutex::TryLock() {
  const bool locked = call_library<"_ZN4absl7debian35Mutex7TryLockEv", bool>(this);
  if (locked) __tsan_acquire(this);
  return locked;
}
void Mutex::ReaderLock() {
  call_library<"_ZN4absl7debian35Mutex10ReaderLockEv", void>(this);
  __tsan_acquire(this);
}
void Mutex::ReaderUnlock() {
  const Leaving scope(this);
  call_library<"_ZN4absl7debian35Mutex12ReaderUnlockEv", void>(this);
}
void Mutex::LockWhen(const Condition& condition) {
  call_library<"_ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE", void>(this, &condition);
  __tsan_acquire(this);
}
void Mutex::Await(const Condition& condition) {
  const Leaving scope(this);
  call_library<"_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE", void>(this, &condition);
  __tsan_acquire(this);
}
bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  const Leaving scope(this);
  const bool met =
      call_library<"_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE",
                   bool>(this, &condition, timeout);
  __tsan_acquire(this);
  return met;
}
bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  const Leaving scope(this);
  const bool met =
      call_library<"_ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE", bool>(
          this, &condition, deadline);
  __tsan_acquire(this);
  return met;
}
void CondVar::Wait(Mutex* mutex) {
  const Leaving scope(mutex);
  call_library<"_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE", void>(this, mutex);
  __tsan_acquire(mutex);
}
bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  const Leaving scope(mutex);
  const bool late =
      call_library<"_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE", bool>(
          this, mutex, timeout);
  __tsan_acquire(mutex);
  return late;
}
bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  const Leaving scope(mutex);
  const bool late =
      call_library<"_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE", bool>(
          this, mutex, deadline);
  __tsan_acquire(mutex);
  return late;
}

ABSL_NAMESPACE_END
}  // namespace absl
