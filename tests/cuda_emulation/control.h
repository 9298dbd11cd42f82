// What a test may set and ask of the emulation. All of it may be called from any thread, between
// launches. A whole program over the emulation starts with the environment's QUIRE_EMULATION_SEED
// and, with QUIRE_EMULATION_STREAMS=deferred, with deferred streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace quire::cuda_emulation {

// Orders of lanes, warps and blocks of all following launches; the same seed gives the same orders.
void set_seed(uint64_t seed);
uint64_t seed();

// How many blocks of a grid are under way at once; 0: as many as the emulated device holds.
void set_resident_blocks(int blocks);
int resident_blocks();

// A launch whose blocks all wait for this long dies with a sentence.
void set_spin_limit_seconds(int seconds);
int spin_limit_seconds();

// Devices of the process (4 at first) and memory of each (256 MiB at first).
void set_device_count(int devices);
void set_device_memory(size_t bytes);
// The compute capability that devices report, 8.0 at first: wgmma and TMA do not exist here.
void set_compute_capability(int major, int minor);

// kEager: work on a stream is done when the call that enqueues it returns. kDeferred: it is done
// only when somebody waits for it, so that a read without a wait finds NaN bytes or old content.
enum class StreamMode { kEager, kDeferred };
void set_stream_mode(StreamMode mode);

// Of all graphs, since the process began.
int graph_launches();

// The name of an allocation in messages.
void name_allocation(const void* pointer, std::string_view name);

}  // namespace quire::cuda_emulation
