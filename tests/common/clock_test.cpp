// The monotonic time. What jumps of the wall clock do to a whole server is shown by tests/chaos
// (F31).
#include "common/clock.h"

#include <gtest/gtest.h>

#include <thread>

namespace quire {
namespace {

TEST(ClockTest, GoesForwardAndBeginsAtTheWallClock) {
  const absl::Time first = steady_now();
  EXPECT_GT(first, absl::UnixEpoch() + absl::Hours(24 * 365 * 50));  // a date, not an uptime
  for (absl::Time last = first; last < first + absl::Milliseconds(20);) {
    const absl::Time now = steady_now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(PacerTest, SleepsUntilItIsStopped) {
  Pacer pacer;
  EXPECT_TRUE(pacer.sleep(absl::Milliseconds(1)));
  std::thread stopper([&pacer] { pacer.stop(); });
  EXPECT_FALSE(pacer.sleep(absl::Hours(1)));
  stopper.join();
  EXPECT_FALSE(pacer.sleep(absl::Hours(1)));  // and stays so
}

}  // namespace
}  // namespace quire
