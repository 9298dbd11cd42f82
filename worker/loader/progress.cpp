// The bar and the lines of weight loading.
#include "worker/loader/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"

namespace quire {
namespace {

constexpr int kCells = 30;

std::string amount(std::uint64_t done, std::uint64_t total) {
  return absl::StrFormat("%.1f of %.1f MB", static_cast<double>(done) / 1e6,
                         static_cast<double>(total) / 1e6);
}

double fraction(std::uint64_t done, std::uint64_t total) {
  if (total == 0) return 1.0;
  return std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
}

}  // namespace

std::string progress_bar(std::uint64_t done, std::uint64_t total) {
  const double part = fraction(done, total);
  const int full = static_cast<int>(part * kCells);
  std::string cells(static_cast<std::size_t>(full), '=');
  if (full < kCells) cells += '>';
  cells.resize(kCells, ' ');
  return absl::StrFormat("[%s] %3.0f %%  %s", cells, part * 100.0, amount(done, total));
}

ProgressFn make_progress(const std::string& style, const std::string& what) {
  if (style == "none") return [](std::uint64_t, std::uint64_t) {};
  const bool bar = style == "bar" || (style == "auto" && ::isatty(STDERR_FILENO) == 1);
  const absl::Time start = steady_now();
  auto last = std::make_shared<absl::Time>(start);
  const absl::Duration pause = bar ? absl::Milliseconds(100) : absl::Seconds(2);
  return [=](std::uint64_t done, std::uint64_t total) {
    const absl::Time now = steady_now();
    const bool end = done >= total;
    if (!end && now - *last < pause) return;
    *last = now;
    const std::string took =
        end ? absl::StrFormat(" in %.1f s", absl::ToDoubleSeconds(now - start)) : "";
    if (bar) {
      std::fprintf(stderr, "\r%s %s%s%s", what.c_str(), progress_bar(done, total).c_str(),
                   took.c_str(), end ? "\n" : "");
    } else {
      std::fprintf(stderr, "%s: %s (%.0f %%)%s\n", what.c_str(), amount(done, total).c_str(),
                   fraction(done, total) * 100.0, took.c_str());
    }
    std::fflush(stderr);
  };
}

}  // namespace quire
