// For LD_PRELOAD in tests/chaos: the wall clock of whoever loads it is ahead by as many seconds as
// the file named by QUIRE_CLOCK_OFFSET says. The monotonic clock is left alone, as in a real jump.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

namespace {

using ClockGetTime = int (*)(clockid_t, timespec*);

ClockGetTime real_clock() {
  static const auto real = reinterpret_cast<ClockGetTime>(dlsym(RTLD_NEXT, "clock_gettime"));
  return real;
}

// Read again at most every 10 ms: clocks are asked thousands of times a second.
time_t offset() {
  static const char* const path = getenv("QUIRE_CLOCK_OFFSET");
  static std::atomic<long> next_look{0};
  static std::atomic<time_t> seconds{0};
  timespec now{};
  real_clock()(CLOCK_MONOTONIC, &now);
  const long ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
  if (path == nullptr || ms < next_look.load()) return seconds.load();
  next_look.store(ms + 10);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return seconds.load();
  char text[32] = {};
  const ssize_t size = read(fd, text, sizeof text - 1);
  close(fd);
  if (size > 0) seconds.store(std::strtol(text, nullptr, 10));
  return seconds.load();
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) {
  const int result = real_clock()(clock, time);
  if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += offset();
  return result;
}

int gettimeofday(timeval* time, void*) {
  timespec now{};
  const int result = clock_gettime(CLOCK_REALTIME, &now);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return result;
}

time_t time(time_t* out) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}

}  // extern "C"
