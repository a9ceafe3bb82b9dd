// Sums of squares of rows, as they should be and as a kernel seems to have had them.
#include "verify/ops/norm/row_statistics.hpp"

#include <cmath>

#include "verify/ops/norm/stages.hpp"

namespace attest {
namespace {

/// By how much the rows of y, without the bias, are too large.
double factor_of_row(const Expected& y, const NormInputs& in, Index i) {
  double dd = 0, dg = 0;
  for (Index j = 0; j < in.width(); ++j) {
    const Index at = i * in.width() + j;
    const double bias = in.bias ? in.bias(j) : 0, d = y.value[at] - bias;
    dd += d * d, dg += d * (y.dumped->values[at] - bias);
  }
  return dg / dd;
}

}  // namespace

RowSums sums_of_squares(const NormCase& norm, const Expected* rstd, const Expected* y,
                        const std::vector<Index>& rows) {
  RowSums sums;
  const NormVariant right{"", norm.spec, norm.in};
  const NormStages kernel(right, {});
  const double n = static_cast<double>(norm.in.width());
  for (const Index i : rows) {
    const double want = kernel.statistics(i).rstd;
    const double got = rstd ? rstd->dumped->values[i] : want * factor_of_row(*y, norm.in, i);
    if (!(got > 0) || !std::isfinite(got)) continue;
    sums.rows.push_back(i);
    sums.exact.push_back(n / (want * want) - n * norm.spec.eps);
    sums.got.push_back(n / (got * got) - n * norm.spec.eps);
  }
  return sums;
}

}  // namespace attest
