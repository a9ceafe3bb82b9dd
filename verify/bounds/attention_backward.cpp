// Exact values and bounds of the attention backward pass, in blocks of query rows.
#include "verify/bounds/attention_backward.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "verify/bounds/pairs.hpp"

namespace attest::bounds {
namespace {

constexpr Index block_rows = 32;

/// Rows [first, first + count) of head h of a [H, S, width] view, padded with zeros.
void copy_rows(View<const double, 3> from, Index h, Index first, Index count, Lanes& to) {
  const Index width = from.extent(2);
  to.assign(count * padded(width), 0);
  for (Index r = 0; r < count; ++r) {
    for (Index d = 0; d < width; ++d) to[r * padded(width) + d] = from(h, first + r, d);
  }
}

class Backward {
 public:
  Backward(const AttentionSpec& spec, const AttentionInputs& in, const BackwardInputs& saved,
           const Contract& contract, const BackwardOutputs& out)
      : spec_(spec), in_(in), saved_(saved), arithmetic_(contract), out_(out) {}

  void head(Index kv_head);
  /// All rows of query head h; those of the gradients are the keys of `head` from first_key on.
  void rows(const Head& head, Index h, Index first_key, KeyGradients& gradients);

 private:
  void write_query(const Head& head, Index h, Index i, const PairRow& row) const;
  void add_bias(Index h, Index i, const PairRow& row) const;
  void add_sink(Index h, Index i, const PairRow& row) const;

  const AttentionSpec& spec_;
  const AttentionInputs& in_;
  const BackwardInputs& saved_;
  const Arithmetic arithmetic_;
  const BackwardOutputs& out_;
};

void Backward::write_query(const Head& head, Index h, Index i, const PairRow& row) const {
  const Index width = head.qk_width, count = row.last - row.first;
  Contraction sums(1, width);
  std::vector<double> mean_key(padded(width));
  if (count > 0) {
    sums.add(0, count, &row.ds[row.first], head.k_row(row.first));
    // sum_j p_j k_j: how an error of delta, common to the row, reaches dq
    for (Index j = row.first; j < row.last; ++j) {
      for (Index d = 0; d < width; ++d) mean_key[d] += row.p[j].value * head.k_row(j)[d];
    }
  }
  const SumError pv = sum_error(arithmetic_.contract.pv, head.keys);
  const double share = arithmetic_.reference_share(width, head.keys);
  const double scale = std::abs(spec_.scale);
  for (Index d = 0; d < width; ++d) {
    const Estimate e =
        sums.result(0, d, spec_.scale, pv, arithmetic_.tiles(head.keys) + 2, arithmetic_.u, head.keys_repeat);
    const auto with_delta = [&](double variance, double of_delta) {
      return std::hypot(std::sqrt(variance), scale * std::sqrt(of_delta) * mean_key[d]);
    };
    out_.dq.set_bound(e.value, e.worst, e.systematic, with_delta(e.variance, row.delta_variance), share, h, i,
                      d);
    out_.dq.set_rest(e.rest_systematic, with_delta(e.rest_variance, row.delta_rest), h, i, d);
    out_.dq.set_replays(e.replay, h, i, d);
  }
}

void Backward::add_bias(Index h, Index i, const PairRow& row) const {
  // cuDNN stores the scale times dS, which meets the subnormals earlier, and divides by the scale again.
  const double scale = std::abs(spec_.scale), quantum = (arithmetic_.p_half_subnormal + arithmetic_.flush) *
                                                        std::max(1.0, scale > 0 ? 1 / scale : 1.0);
  for (Index j = row.first; j < row.last; ++j) {
    const ScoreGradient& g = row.gradient[j];
    const double slope = g.value == 0 || row.ds[j].value == 0 ? 1 : row.ds[j].value / g.value;
    const double store = arithmetic_.p_unit * (std::abs(g.value) + g.worst) + quantum;
    out_.dbias.value(h, i, j) += g.value;
    out_.dbias.magnitude(h, i, j) += std::abs(g.value);
    out_.dbias.worst(h, i, j) += g.worst + store;
    // All pairs of a row share the error of delta, and a bias may add them up.
    const double shared = confidence_multiplier(1) * row.p[j].value * std::sqrt(row.delta_variance);
    out_.dbias.systematic(h, i, j) += row.ds[j].systematic / slope + shared + quantum;
    out_.dbias.variance(h, i, j) += row.ds[j].variance / (slope * slope);
  }
}

void Backward::add_sink(Index h, Index i, const PairRow& row) const {
  const double sink = in_.sink(h), lse = saved_.lse(h, i), u = arithmetic_.u;
  const double p = std::exp(sink - lse), size = std::abs(p * row.delta);
  const double relative =
      std::expm1(4 * u * (std::abs(sink) + std::abs(lse)) + arithmetic_.exp_error + saved_.lse_worst(h, i)) +
      2 * u;
  out_.dsink.value(h) -= p * row.delta;
  out_.dsink.magnitude(h) += size;
  const double vanished = arithmetic_.flush * (std::abs(row.delta) + row.delta_worst);
  out_.dsink.worst(h) += size * relative + p * (1 + relative) * row.delta_worst + vanished;
  out_.dsink.systematic(h) += size * relative + vanished;
  out_.dsink.variance(h) += p * p * row.delta_variance;
}

void Backward::rows(const Head& head, Index h, Index first_key, KeyGradients& gradients) {
  const Index queries = in_.queries();
  std::vector<PairRow> rows(block_rows);
  Lanes q, d_o;
  for (Index first = 0; first < queries; first += block_rows) {
    const Index count = std::min(block_rows, queries - first);
    copy_rows(in_.q, h, first, count, q);
    copy_rows(saved_.d_o, h, first, count, d_o);
#pragma omp parallel
    {
      PairRows pairs(spec_, in_, saved_, arithmetic_, head);
#pragma omp for schedule(dynamic, 1)
      for (Index r = 0; r < count; ++r) {
        pairs.fill(h, first + r, rows[r]);
        if (out_.dq) write_query(head, h, first + r, rows[r]);
      }
      // Each key belongs to one thread and sees the rows in order, so that the bits do not depend on the
      // threads.
      std::vector<Factor> column(count);
#pragma omp for schedule(static, 16)
      for (Index j = 0; j < gradients.keys(); ++j) {
        if (gradients.dk()) {
          for (Index r = 0; r < count; ++r) column[r] = rows[r].ds[first_key + j];
          gradients.dk_sums().add(j, count, column.data(), q.data());
        }
        if (gradients.dv()) {
          for (Index r = 0; r < count; ++r) column[r] = rows[r].p[first_key + j];
          gradients.dv_sums().add(j, count, column.data(), d_o.data());
        }
      }
    }
    gradients.count_rows(q, count, in_.qk_width());
    for (Index r = 0; r < count; ++r) {
      if (out_.dbias) add_bias(h, first + r, rows[r]);
      if (out_.dsink) add_sink(h, first + r, rows[r]);
    }
  }
}

void Backward::head(Index g) {
  const Head head(in_, g, Pass::backward);
  KeyGradients gradients(spec_, arithmetic_.contract, in_.group(), out_.dk, out_.dv);
  for (Index h = g * in_.group(); h < (g + 1) * in_.group(); ++h) {
    rows(head, h, in_.past, gradients);
    gradients.finish_head();
  }
  gradients.finish(g);
}

}  // namespace

void attention_backward(const AttentionSpec& spec, const AttentionInputs& in, const BackwardInputs& saved,
                        const Contract& contract, const BackwardOutputs& out) {
  Backward backward(spec, in, saved, contract, out);
  for (Index g = 0; g < in.kv_heads(); ++g) backward.head(g);
}

void attention_backward_rows(const AttentionSpec& spec, const AttentionInputs& in,
                             const BackwardInputs& saved, const Contract& contract, KeyGradients& gradients) {
  const BackwardOutputs no_others;
  Backward(spec, in, saved, contract, no_others).rows(Head(in, 0, Pass::backward), 0, 0, gradients);
}

}  // namespace attest::bounds
