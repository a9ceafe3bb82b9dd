// Errors that q, k and v bring along where an earlier step of the same device computed them.
#include "verify/bounds/input_errors.hpp"

#include <cmath>

#include "verify/bounds/weights.hpp"

namespace attest::bounds {

HeadErrors::HeadErrors(const InputErrors& errors, const AttentionInputs& in, Index g) : inputs(errors) {
  using Values = View<const double, 3>;
  const auto by_column = [g](Values x, auto value) {
    const Index keys = x.extent(1), width = x.extent(2);
    std::vector<double> columns(width * padded(keys));
    for (Index j = 0; j < keys; ++j) {
      for (Index d = 0; d < width; ++d) columns[(j / lanes * width + d) * lanes + j % lanes] = value(g, j, d);
    }
    return columns;
  };
  const auto by_row = [g](Values x, auto value) {
    const Index keys = x.extent(1), width = x.extent(2);
    std::vector<double> rows(keys * padded(width));
    for (Index j = 0; j < keys; ++j) {
      for (Index e = 0; e < width; ++e) rows[j * padded(width) + e] = value(g, j, e);
    }
    return rows;
  };
  const auto square_of = [](Values a, Values b) {
    return [a, b](auto... at) { return a(at...) * a(at...) + b(at...) * b(at...); };
  };
  const auto with_sign = [](Values size, Values sign) {
    return [size, sign](auto... at) { return std::copysign(size(at...), sign(at...)); };
  };
  k_worst = by_column(in.k, errors.k_worst);
  k_variance = by_column(in.k, square_of(errors.k_sigma, errors.k_systematic));
  k_drift = by_column(in.k, with_sign(errors.k_systematic, in.k));
  v_worst = by_row(in.v, errors.v_worst);
  v_variance = by_row(in.v, square_of(errors.v_sigma, errors.v_systematic));
  v_drift = by_row(in.v, with_sign(errors.v_systematic, in.v));
}

struct InheritedProducts::Query {
  double value;
  double worst, variance, drift;  // of its error
};

void InheritedProducts::compute(const HeadErrors& errors, const Head& head, const std::vector<double>& q,
                                Index h, Index i, Index first, Index last) {
  std::vector<Query> query;
  for (Index d = 0; d < head.qk_width; ++d) {
    const double sigma = errors.inputs.q_sigma(h, i, d), systematic = errors.inputs.q_systematic(h, i, d);
    query.push_back({q[d], errors.inputs.q_worst(h, i, d), sigma * sigma + systematic * systematic,
                     std::copysign(systematic, q[d])});
  }
  for (auto* x : {&worst, &variance, &drift}) x->resize(padded(head.keys));
  for (Index j = first / lanes * lanes; j < last; j += lanes) compute_block(query, errors, head, j);
}

ATTEST_VECTORISED
void InheritedProducts::compute_block(const std::vector<Query>& query, const HeadErrors& errors,
                                      const Head& head, Index first) {
  const Index start = first * head.qk_width;
  const double *k = &head.k_columns[start], *k_worst = &errors.k_worst[start],
               *k_variance = &errors.k_variance[start], *k_drift = &errors.k_drift[start];
  double w[lanes] = {}, v[lanes] = {}, t[lanes] = {};
  for (Index d = 0; d < head.qk_width; ++d) {
    const Query q = query[d];
    const double size = std::abs(q.value) + q.worst, square = q.value * q.value + q.variance;
    for (Index j = 0; j < lanes; ++j) {
      const Index at = d * lanes + j;
      const double x = k[at];
      w[j] += size * k_worst[at] + q.worst * std::abs(x);
      v[j] += square * k_variance[at] + q.variance * (x * x);
      t[j] += q.value * k_drift[at] + q.drift * x;
    }
  }
  for (Index j = 0; j < lanes; ++j) {
    worst[first + j] = w[j];
    variance[first + j] = v[j];
    drift[first + j] = t[j];
  }
}

void InheritedValues::compute(const HeadErrors& errors, const Weights& w, const Head& head,
                              const std::vector<double>& o, double flush) {
  const Index width = head.v_width, stride = padded(width);
  for (auto* x : {&worst, &variance, &drift}) x->assign(width, 0);
  for (Index c = 0; c < w.count(); ++c) {
    const Index j = w.key[c];
    const double p = w.p[c], largest = p + w.store[c] + flush, of_score = p * w.drift[c];
    const double *v = head.v_row(j), *v_worst = &errors.v_worst[j * stride],
                 *v_variance = &errors.v_variance[j * stride], *v_drift = &errors.v_drift[j * stride];
    for (Index e = 0; e < width; ++e) {
      worst[e] += largest * v_worst[e];
      variance[e] += p * p * v_variance[e];
      drift[e] += p * v_drift[e] + of_score * (v[e] - o[e]);
    }
  }
}

}  // namespace attest::bounds
