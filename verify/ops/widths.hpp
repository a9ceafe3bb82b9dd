// Numbers of columns that a kernel may take for the width of a row, for diagnoses.
#pragma once

#include <set>

#include "core/view.hpp"

namespace attest {

/// Widths above `width` that rows may be padded to: multiples of powers of 2 from 8 on, less than twice as
/// wide or the next power of 2.
std::set<Index> padded_widths(Index width);

/// Widths below, no less than half, that whole vectors of 2, 4, ... columns cover, and one column less.
std::set<Index> cut_widths(Index width);

}  // namespace attest
