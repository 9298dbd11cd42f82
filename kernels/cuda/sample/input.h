// What sampling reads besides logits, as one stretch of memory that one copy sends: wishes,
// adjustments, their entries, their masks. The stretch of a shape has fixed places, so that a
// captured step is given its inputs by a copy to the same address.
#pragma once

#include <cstddef>

#include "absl/types/span.h"
#include "kernels/cuda/sample/sample.h"
#include "kernels/sampling.h"

namespace quire::cuda {

// How much of each there is room for.
struct SampleShape {
  int rows = 0;
  int adjusts = 0;  // rows that are adjusted
  int entries = 0;  // of all of them
  int masks = 0;
  int vocab = 0;
};

// What `rows` need.
SampleShape sample_shape(absl::Span<const SampleRow> rows, int vocab);

// Whether any of the rows filters: SampleJob::may_filter.
bool any_filters(absl::Span<const SampleRow> rows);

std::size_t sample_input_bytes(const SampleShape& shape);

// Writes rows, which the shape has room for, to host memory of that many bytes. What is left over
// of the shape's adjustments becomes idle ones.
void write_sample_input(absl::Span<const SampleRow> rows, const SampleShape& shape, void* to);

// Points the job at what was copied to `input`, in device memory: num_rows is the shape's.
void use_sample_input(const SampleShape& shape, const void* input, SampleJob& job);

}  // namespace quire::cuda
