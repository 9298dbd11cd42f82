// NCCL among the threads of one process, behind the same table: it moves the bytes for real (of
// emulated device memory, in the order of the emulated stream), takes its time, and can be told to
// fail. What a peer's call must agree on is checked as NCCL would only hang on it.
//
// Everything is of the process: one test at a time sets the script.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/cuda/collective/nccl_api.h"

namespace quire::test {

struct FakeNcclScript {
  std::uint64_t seed = 1;
  int max_delay_us = 0;  // of an exchange, on each rank, drawn by the seed
  int max_polls = 0;     // a call is "in progress" for up to so many polls, drawn by the seed
  // Of all calls of the table that can fail, counted over all ranks from 1: the one that does.
  int fail_call = 0;
  ncclResult_t failure = ncclSystemError;
  bool fail_later = false;  // it succeeds at first, and the error is asynchronous
  // A rank that never does its part of exchange number `missing_exchange` (from 1; 0: none).
  int missing_rank = -1;
  int missing_exchange = 0;
};

void set_fake_nccl(const FakeNcclScript& script);  // and counts anew
int fake_nccl_calls();                             // that can fail, since then
int fake_nccl_communicators();                     // made and neither destroyed nor aborted
// How ranks disagreed about an exchange since then; empty: they did not.
std::string fake_nccl_disagreement();

cuda::NcclApi fake_nccl();

}  // namespace quire::test
