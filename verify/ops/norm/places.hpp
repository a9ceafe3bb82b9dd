// Which columns of a matrix hold its wrong elements, as kernels divide columns among loops and threads.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "verify/expected.hpp"

namespace attest {

/// Some of the columns.
struct ColumnPlace {
  std::function<bool(Index j)> holds;
  std::string text;  // " in columns 232..255 of every 256", " in columns from 96 on"
};

/// All wrong elements of a matrix [R, width] are there, and nearly all of these columns have one; absent if
/// they are anywhere, or have no such place.
std::optional<ColumnPlace> place_of_wrong_columns(const Expected& e, Index width);

/// At most `most` of the rows that have a wrong element.
std::vector<Index> wrong_rows(const Expected& e, Index width, Index most);

}  // namespace attest
