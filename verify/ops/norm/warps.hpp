// How the warps of a block divide the columns of a row among themselves.
#pragma once

#include <string>
#include <vector>

#include "core/view.hpp"

namespace attest {

/// Each of the threads takes `vector` columns at a time, in turn.
struct Warps {
  Index count, vector;

  static constexpr Index lanes = 32;
  Index of(Index j) const { return j / (lanes * vector) % count; }
};

/// Those in which more than one warp has columns, and no warp's place is the same as in one before.
std::vector<Warps> divisions_among_warps(Index width);

}  // namespace attest
