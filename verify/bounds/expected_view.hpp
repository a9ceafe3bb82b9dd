// ExpectedView: where the bounds of one output are written, whatever its layout in the dump.
#pragma once

#include <algorithm>
#include <cmath>

#include "verify/bounds/arithmetic.hpp"
#include "verify/expected.hpp"

namespace attest::bounds {

/// The arrays of an Expected, seen with one shape and one set of strides. A default-constructed one
/// stands for an output that the dump does not hold; nothing may be written to it.
template <int Rank>
class ExpectedView {
 public:
  using Extents = typename View<double, Rank>::Extents;

  ExpectedView() = default;
  /// shape.data_handle() points into expected.value and says where the first element is.
  ExpectedView(Expected& expected, View<double, Rank> shape)
      : expected_(&expected),
        shape_(shape),
        lambda_(confidence_multiplier(static_cast<Index>(expected.value.size()))) {}

  explicit operator bool() const { return expected_ != nullptr; }
  DType dtype() const { return expected_->dtype; }
  Index extent(int r) const { return shape_.extent(r); }
  double lambda() const { return lambda_; }  // confidence_multiplier of the whole output

  template <class... I>
  void set(const ElementBound& b, I... i) const {
    expected_->set(&shape_(i...) - expected_->value.data(), b);
  }

  /// element_bound for this output's element type and size, written to (i, ...).
  template <class... I>
  void set_bound(double value, double worst, double systematic, double sigma, double share, I... i) const {
    set(element_bound(value, worst, systematic, sigma, lambda_, share, dtype()), i...);
  }

  /// After set_bound: by how much variances are less that all elements can have at once. Nothing is done for
  /// an output that does not ask for it.
  template <class... I>
  void set_joint(double less_variance, I... i) const {
    if (expected_->joint.empty()) return;
    const Index at = &shape_(i...) - expected_->value.data();
    const double variance = expected_->sigma[at] * expected_->sigma[at];
    if (variance > 0)
      expected_->joint[at] = static_cast<float>(std::sqrt(std::max(0.0, 1 - less_variance / variance)));
  }

  /// What is left of systematic and sigma if the roundings of stored operands are known. Nothing is done for
  /// an output that does not ask for it.
  template <class... I>
  void set_rest(double systematic, double sigma, I... i) const {
    if (expected_->rest_sigma.empty()) return;
    const Index at = &shape_(i...) - expected_->value.data();
    expected_->rest_systematic[at] = systematic;
    expected_->rest_sigma[at] = sigma;
  }
  template <class... I>
  void set_replays(const double* shifts, I... i) const {
    const Index at = &shape_(i...) - expected_->value.data();
    for (std::size_t k = 0; k < expected_->replays.size(); ++k) expected_->replays[k].shift[at] = shifts[k];
  }

  /// A value that has to be met exactly.
  template <class... I>
  void set_exact(double value, I... i) const {
    set({value, 0, 0, 0, 0, 0}, i...);
  }

 private:
  Expected* expected_ = nullptr;
  View<double, Rank> shape_;
  double lambda_ = 0;
};

}  // namespace attest::bounds
