// Keeps one server alive: the coordinator and, under it, one life of the worker group after
// another.
#pragma once

#include "common/config.h"

namespace quire {

// Runs until a signal or a failure that cannot be mended; returns the exit code. `bin` holds the
// programs. SIGINT and SIGTERM must be blocked in this process; a second one hurries.
int supervise(const EngineConfig& config, const std::string& bin);

}  // namespace quire
