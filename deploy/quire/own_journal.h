// Where a server without a fixed port keeps its journal: nobody could find it by port, so it is
// named by its supervisor and goes with it.
#pragma once

#include <string>

#include "common/config.h"

namespace quire {

class OwnJournal {
 public:
  // Changes config->journal where it is `auto` and no port is given; else does nothing. Removes
  // what supervisors that live no more have left.
  explicit OwnJournal(EngineConfig* config);
  ~OwnJournal();
  OwnJournal(const OwnJournal&) = delete;
  OwnJournal& operator=(const OwnJournal&) = delete;

 private:
  std::string path_;  // empty: it has none
};

}  // namespace quire
