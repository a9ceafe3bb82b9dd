// Sums of squares of rows, as they should be and as a kernel seems to have had them.
#pragma once

#include <vector>

#include "verify/expected.hpp"
#include "verify/ops/norm/case.hpp"

namespace attest {

/// Rows of a wrong output whose sums are looked at.
struct RowSums {
  std::vector<Index> rows;
  std::vector<double> exact, got;
};

/// The sums that variances or mean squares are made of, as rstd or else y tells; one of them may be null.
/// Rows that tell nothing are left out.
RowSums sums_of_squares(const NormCase& norm, const Expected* rstd, const Expected* y,
                        const std::vector<Index>& rows);

}  // namespace attest
