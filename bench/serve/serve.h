// `quire bench serve`, whole: options, load, run, report.
#pragma once

#include <string>
#include <vector>

namespace quire::bench {

// The arguments after `serve`; an exit code: 0, 1 where no request was answered, 64 for options.
int serve_main(const std::vector<std::string>& arguments);

}  // namespace quire::bench
