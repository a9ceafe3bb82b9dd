// dk and dv of the keys of one head, with their bounds.
#include "verify/bounds/key_gradients.hpp"

#include <algorithm>
#include <cmath>

namespace attest::bounds {
namespace {

constexpr double extra_roundings = 2;  // docs/bounds.md, "Sums of inexact terms"

}  // namespace

GroupSums::GroupSums(const Arithmetic& arithmetic, double scale, Index keys, Index width, Index group)
    : arithmetic_(arithmetic),
      scale_(scale),
      keys_(keys),
      width_(width),
      group_(group),
      all_heads_(keys, width),
      one_head_(group > 1 ? keys : 0, width) {
  if (group > 1) shares_.resize(keys * width);
}

void GroupSums::add(Index key, Index count, const Factor* factors, const double* vectors) {
  all_heads_.add(key, count, factors, vectors);
  if (group_ > 1) one_head_.add(key, count, factors, vectors);
}

void GroupSums::finish_head(Index rows, bool rows_repeat, DType dtype) {
  if (group_ == 1) return;
  const SumError sum = sum_error(arithmetic_.contract.pv, std::max(rows, Index{1}));
  const double additions = gamma(static_cast<double>(group_), arithmetic_.u);
  for (Index j = 0; j < keys_; ++j) {
    for (Index d = 0; d < width_; ++d) {
      const Estimate e = one_head_.result(j, d, scale_, sum, extra_roundings, arithmetic_.u, rows_repeat);
      const double spacing = ulp(std::abs(e.value) + e.worst, dtype);
      Estimate& total = shares_[j * width_ + d];
      total.worst += e.worst + spacing / 2 + additions * (std::abs(e.value) + e.worst);
      total.systematic += e.systematic + additions * std::abs(e.value);
      total.variance += e.variance + spacing * spacing / 12;
      total.rest_systematic += e.rest_systematic + additions * std::abs(e.value);
      total.rest_variance += e.rest_variance + spacing * spacing / 12;
    }
  }
  one_head_.reset();
}

Estimate GroupSums::result(Index key, Index d, Index rows, bool rows_repeat) const {
  Estimate e = all_heads_.result(key, d, scale_, sum_error(arithmetic_.contract.pv, rows), extra_roundings,
                                 arithmetic_.u, rows_repeat);
  if (group_ > 1) {
    const Estimate& shares = shares_[key * width_ + d];
    e.worst = std::max(e.worst, shares.worst);
    e.systematic = std::max(e.systematic, shares.systematic);
    e.variance = std::max(e.variance, shares.variance);
    e.rest_systematic = std::max(e.rest_systematic, shares.rest_systematic);
    e.rest_variance = std::max(e.rest_variance, shares.rest_variance);
  }
  return e;
}

KeyGradients::KeyGradients(const AttentionSpec& spec, const Contract& contract, Index group,
                           const ExpectedView<3>& dk, const ExpectedView<3>& dv)
    : arithmetic_(contract),
      dk_(dk),
      dv_(dv),
      dk_sums_(arithmetic_, spec.scale, dk ? dk.extent(1) : 0, dk ? dk.extent(2) : 0, group),
      dv_sums_(arithmetic_, 1, dv ? dv.extent(1) : 0, dv ? dv.extent(2) : 0, group) {}

void KeyGradients::count_rows(const Lanes& q, Index rows, Index width) {
  for (Index r = 0; r < rows; ++r) repeated_.add(&q[r * padded(width)], width);
  rows_of_head_ += rows;
}

void KeyGradients::finish_head() {
  const bool repeat = repeated_.are_many();
  if (dk_) dk_sums_.finish_head(rows_of_head_, repeat, dk_.dtype());
  if (dv_) dv_sums_.finish_head(rows_of_head_, repeat, dv_.dtype());
  rows_repeat_ |= repeat;
  rows_ += rows_of_head_;
  rows_of_head_ = 0;
  repeated_ = {};
}

void KeyGradients::finish(Index g) {
  write(dk_, dk_sums_, g);
  write(dv_, dv_sums_, g);
}

void KeyGradients::write(const ExpectedView<3>& output, const GroupSums& sums, Index g) const {
  if (!output) return;
  const Index width = output.extent(2);
  const Index rows = std::max(rows_, Index{1});
  const double share = arithmetic_.reference_share(width, rows);
  for (Index j = 0; j < output.extent(1); ++j) {
    for (Index d = 0; d < width; ++d) {
      const Estimate e = sums.result(j, d, rows, rows_repeat_);
      output.set_bound(e.value, e.worst, e.systematic, std::sqrt(e.variance), share, g, j, d);
      output.set_rest(e.rest_systematic, std::sqrt(e.rest_variance), g, j, d);
      output.set_replays(e.replay, g, j, d);
    }
  }
}

}  // namespace attest::bounds
