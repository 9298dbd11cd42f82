// How threads divide an op. One that treats each row of the batch by itself gives a thread an equal
// run of rows. Where neighbouring ops do so with equally many rows, a thread goes on with its own
// without waiting for the others (Command::rows): then some read memory while others compute.
#pragma once

#include "common/shard.h"

namespace quire::cpu {

// Thread `thread`'s share of n rows.
Range share_of(int n, int thread, int num_threads);

// Whether matrix products and attention divide their rows, too. Each thread then reads all weights
// and computes with each of them long enough that reading does not slow it down (measured on two
// threads); with fewer rows they divide the weights, and K and V.
bool divides_rows(int rows, int num_threads);

}  // namespace quire::cpu
