// Exact values and bounds of everything that a normalisation writes. Equation numbers: docs/bounds_norm.md.
#pragma once

#include <cmath>
#include <functional>

#include "verify/bounds/expected_view.hpp"
#include "verify/bounds/norm_row.hpp"

namespace attest::bounds {

/// Where one output goes. reference_error is how far ref, in double, may be off.
template <int Rank>
struct NormOutput {
  ExpectedView<Rank> expected;
  View<double, Rank> reference_error;

  explicit operator bool() const { return static_cast<bool>(expected); }
};

/// Outputs that the dump does not hold stay default-constructed. The gradients read dy.
struct NormOutputs {
  NormOutput<2> y;               // [R, N]
  NormOutput<1> mean, rstd;      // [R]
  NormOutput<2> dx;              // [R, N]
  NormOutput<1> dweight, dbias;  // [N]
};

/// Errors before the store; sigma is the standard deviation of the part that averages out.
template <int Rank, class... I>
void write(const NormOutput<Rank>& out, double value, double worst, double probable, double sigma,
           double exact, double reference, I... i) {
  ElementBound b = element_bound(value, worst, probable, 0, 0, 0, out.expected.dtype());
  b.value_error = exact + 0x1p-53 * std::abs(value);
  b.sigma = std::hypot(b.sigma, sigma);
  out.expected.set(b, i...);
  out.reference_error(i...) = reference + 0x1p-53 * std::abs(value);
}

/// progress is told the share of the work that is done.
void norm(const NormSpec& spec, const NormInputs& in, View<const double, 2> dy, const NormContract& contract,
          const NormOutputs& out, const std::function<void(double)>& progress);

/// y of one row before it is stored: exact values, and errors for each reader. Equations (14) to (17).
class NormForwardRow {
 public:
  /// weight + weight_offset and bias have to outlive this.
  NormForwardRow(const NormRows& rows, const NormInputs& in) : rows_(rows), in_(in) {}

  struct Element {
    DoubleDouble y;
    double worst, probable, systematic, exact, reference;  // errors
    double sigma;                                          // of the part that averages out
    double y_without_bias;
  };
  Element element(const NormRow& row, double x, Index j) const;

 private:
  const NormRows& rows_;
  const NormInputs& in_;
};

}  // namespace attest::bounds
