// The identifiers that cross rooms. Plain integers: they are array indices or wire fields
// everywhere.
#pragma once

#include <cstdint>

namespace quire {

using TokenId = std::int32_t;
using BlockId =
    std::int32_t;  // index into every rank's KV arena; means the same block on all ranks
using HostBlockId = std::int32_t;  // index into every rank's offload store
using SlotId = std::int32_t;       // a row the workers have heard of, from Admit to Release
using EpochId = std::uint64_t;     // one life of the worker group; 0 = none
using StepId = std::uint64_t;      // contiguous within an epoch, from 1
using SequenceId = std::uint64_t;
using RequestId = std::uint64_t;

}  // namespace quire
