#include "deploy/quire/client/interrupt.h"

#include <signal.h>

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

sigset_t ctrl_c() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

Interrupt::Interrupt() {
  const sigset_t set = ctrl_c();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void Interrupt::call_on_ctrl_c(std::function<void()> action) const {
  std::thread([action = std::move(action)] {
    const sigset_t set = ctrl_c();
    for (int number = 0; sigwait(&set, &number) == 0;) action();
  }).detach();
}

std::string describe_failure(const absl::Status& status, const std::string& server) {
  if (absl::IsUnavailable(status)) {
    return absl::StrCat("no ready server at ", server, " (", std::string(status.message()),
                        "); start one with `quire serve MODEL`, or give --wait SECONDS");
  }
  return std::string(status.message());
}

}  // namespace quire
