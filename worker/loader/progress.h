// Weight loading as a person sees it: a bar that redraws itself on a terminal, lines otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/time/time.h"

namespace quire {

// Called with bytes done and bytes in all; the last call has both equal.
using ProgressFn = std::function<void(std::uint64_t done, std::uint64_t total)>;

// `style` is config.progress: auto (a bar where stderr is a terminal), bar, lines, none. Writes to
// stderr, at most ten times a second for a bar and every two seconds for lines, and at the end.
ProgressFn make_progress(const std::string& style, const std::string& what);

// "[=====>    ]  52 %  51.0 of 98.1 MB", 30 cells wide.
std::string progress_bar(std::uint64_t done, std::uint64_t total);

}  // namespace quire
