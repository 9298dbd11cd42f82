// Tells ThreadSanitizer what absl::Mutex and absl::CondVar order. Debian's library is not built
// with it, so without this every access that such a mutex guards (ours, and gRPC's, which hands our
// callbacks from thread to thread) would look like a race. Linked only into builds with
// QUIRE_SANITIZE=thread: these definitions come before the library's, which they call.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <algorithm>
#include <cstddef>

#include "absl/synchronization/mutex.h"
#include "common/check.h"

namespace absl {
ABSL_NAMESPACE_BEGIN
namespace {

// The library's own function. Its name is the mangled one, in absl's inline namespace.
template <typename Result, typename... Arguments>
Result call(void* (*find)(), Arguments... arguments) {
  return reinterpret_cast<Result (*)(Arguments...)>(find())(arguments...);
}

template <std::size_t kSize>
struct Name {
  char text[kSize];
  consteval Name(const char (&from)[kSize]) { std::copy(from, from + kSize, text); }
};

template <Name kName>
void* library() {
  static void* const found = [] {
    void* symbol = dlsym(RTLD_NEXT, kName.text);
    QUIRE_CHECK(symbol != nullptr);
    return symbol;
  }();
  return found;
}

}  // namespace

void Mutex::Lock() {
  call<void>(library<"_ZN4absl7debian35Mutex4LockEv">, this);
  __tsan_acquire(this);
}
void Mutex::Unlock() {
  __tsan_release(this);
  call<void>(library<"_ZN4absl7debian35Mutex6UnlockEv">, this);
}
bool Mutex::TryLock() {
  const bool locked = call<bool>(library<"_ZN4absl7debian35Mutex7TryLockEv">, this);
  if (locked) __tsan_acquire(this);
  return locked;
}
void Mutex::ReaderLock() {
  call<void>(library<"_ZN4absl7debian35Mutex10ReaderLockEv">, this);
  __tsan_acquire(this);
}
void Mutex::ReaderUnlock() {
  __tsan_release(this);
  call<void>(library<"_ZN4absl7debian35Mutex12ReaderUnlockEv">, this);
}
void Mutex::LockWhen(const Condition& condition) {
  call<void>(library<"_ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE">, this, &condition);
  __tsan_acquire(this);
}
void Mutex::Await(const Condition& condition) {
  __tsan_release(this);
  call<void>(library<"_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE">, this, &condition);
  __tsan_acquire(this);
}
bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  __tsan_release(this);
  const bool met = call<bool>(
      library<"_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE">, this,
      &condition, timeout);
  __tsan_acquire(this);
  return met;
}
bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  __tsan_release(this);
  const bool met =
      call<bool>(library<"_ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE">,
                 this, &condition, deadline);
  __tsan_acquire(this);
  return met;
}
void CondVar::Wait(Mutex* mutex) {
  __tsan_release(mutex);
  call<void>(library<"_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE">, this, mutex);
  __tsan_acquire(mutex);
}
bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  __tsan_release(mutex);
  const bool late =
      call<bool>(library<"_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE">,
                 this, mutex, timeout);
  __tsan_acquire(mutex);
  return late;
}
bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  __tsan_release(mutex);
  const bool late =
      call<bool>(library<"_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE">, this,
                 mutex, deadline);
  __tsan_acquire(mutex);
  return late;
}

ABSL_NAMESPACE_END
}  // namespace absl
