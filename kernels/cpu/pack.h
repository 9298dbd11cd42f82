// From a checkpoint's rows to panels (panel.h) and back.
#pragma once

#include <cstddef>

#include "kernels/cpu/panel.h"
#include "kernels/weight.h"

namespace quire::cpu {

// Sizes of the packed form of a matrix.
struct PanelLayout {
  int num_panels = 0;
  std::size_t num_units = 0;      // of a panel
  std::size_t header_offset = 0;  // from the panel's start
  std::size_t panel_bytes = 0;

  // Behind the panels of a format of 4 bits, where the instruction set has a use for them.
  std::size_t pair_sums_offset() const {
    return static_cast<std::size_t>(num_panels) * panel_bytes;
  }
  std::size_t pair_sums_bytes() const {
    return static_cast<std::size_t>(num_panels) * num_units * kPairSumBytes;
  }
};

PanelLayout panel_layout(Format format, const SumPlan& sum, int rows);

}  // namespace quire::cpu
