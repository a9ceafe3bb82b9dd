// Errors that q, k and v bring along where an earlier step of the same device computed them.
#include "verify/bounds/input_errors.hpp"

#include <cmath>

#include "verify/bounds/weights.hpp"

namespace attest::bounds {

HeadErrors::HeadErrors(const InputErrors& errors, Index g) : inputs(errors) {
  const auto square = [](double x) { return x * x; };
  const auto same = [](double x) { return x; };
  const auto by_column = [g](View<const double, 3> x, auto change) {
    const Index keys = x.extent(1), width = x.extent(2);
    std::vector<double> columns(width * padded(keys));
    for (Index j = 0; j < keys; ++j) {
      for (Index d = 0; d < width; ++d)
        columns[(j / lanes * width + d) * lanes + j % lanes] = change(x(g, j, d));
    }
    return columns;
  };
  const auto by_row = [g](View<const double, 3> x, auto change) {
    const Index keys = x.extent(1), width = x.extent(2);
    std::vector<double> rows(keys * padded(width));
    for (Index j = 0; j < keys; ++j) {
      for (Index e = 0; e < width; ++e) rows[j * padded(width) + e] = change(x(g, j, e));
    }
    return rows;
  };
  k_worst = by_column(errors.k_worst, same);
  k_variance = by_column(errors.k_sigma, square);
  k_systematic = by_column(errors.k_systematic, same);
  v_worst = by_row(errors.v_worst, same);
  v_variance = by_row(errors.v_sigma, square);
  v_systematic = by_row(errors.v_systematic, same);
}

struct InheritedProducts::Query {
  double size, square;                 // |q|, q^2
  double worst, variance, systematic;  // of its error
};

void InheritedProducts::compute(const HeadErrors& errors, const Head& head, const std::vector<double>& q,
                                Index h, Index i, Index first, Index last) {
  std::vector<Query> query;
  for (Index d = 0; d < head.qk_width; ++d) {
    const double sigma = errors.inputs.q_sigma(h, i, d);
    query.push_back({std::abs(q[d]), q[d] * q[d], errors.inputs.q_worst(h, i, d), sigma * sigma,
                     errors.inputs.q_systematic(h, i, d)});
  }
  for (auto* x : {&worst, &variance, &systematic}) x->resize(padded(head.keys));
  for (Index j = first / lanes * lanes; j < last; j += lanes) compute_block(query, errors, head, j);
}

ATTEST_VECTORISED
void InheritedProducts::compute_block(const std::vector<Query>& query, const HeadErrors& errors,
                                      const Head& head, Index first) {
  const Index start = first * head.qk_width;
  const double *k = &head.k_columns[start], *k_worst = &errors.k_worst[start],
               *k_variance = &errors.k_variance[start], *k_systematic = &errors.k_systematic[start];
  double w[lanes] = {}, v[lanes] = {}, s[lanes] = {};
  for (Index d = 0; d < head.qk_width; ++d) {
    const Query q = query[d];
    for (Index j = 0; j < lanes; ++j) {
      const Index at = d * lanes + j;
      const double size = std::abs(k[at]);
      w[j] += (q.size + q.worst) * k_worst[at] + q.worst * size;
      v[j] += (q.square + q.variance) * k_variance[at] + q.variance * size * size;
      s[j] += (q.size + q.systematic) * k_systematic[at] + q.systematic * size;
    }
  }
  for (Index j = 0; j < lanes; ++j) {
    worst[first + j] = w[j];
    variance[first + j] = v[j];
    systematic[first + j] = s[j];
  }
}

void InheritedValues::compute(const HeadErrors& errors, const Weights& w, Index v_width, double flush) {
  const Index stride = padded(v_width);
  for (auto* x : {&worst, &variance, &systematic}) x->assign(v_width, 0);
  for (Index c = 0; c < w.count(); ++c) {
    const Index row = w.key[c] * stride;
    const double p = w.p[c], largest = p + w.store[c] + flush;
    for (Index e = 0; e < v_width; ++e) {
      worst[e] += largest * errors.v_worst[row + e];
      variance[e] += p * p * errors.v_variance[row + e];
      systematic[e] += p * errors.v_systematic[row + e];
    }
  }
}

}  // namespace attest::bounds
