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

/// Gradients of the keys or values of one head, summed over the query heads that share it. A device may run
/// all of them through one accumulator, or store each head's share in the element type and add these up.
/// Equation (19).
class GroupSums {
 public:
  GroupSums(Index keys, Index width, Index group, bool queries_repeat)
      : all_heads_(keys, width),
        one_head_(group > 1 ? keys : 0, width),
        width_(width),
        group_(group),
        queries_repeat_(queries_repeat) {
    if (group > 1) shares_.resize(keys * width);
  }

  void add(Index key, Index count, const Factor* factors, const double* vectors) {
    all_heads_.add(key, count, factors, vectors);
    if (group_ > 1) one_head_.add(key, count, factors, vectors);
  }

  void finish_head(Index first_key, Index keys, Index queries, double scale, const Arithmetic& a,
                   DType dtype) {
    if (group_ == 1) return;
    const SumError sum = sum_error(a.contract.pv, queries);
    const double additions = gamma(static_cast<double>(group_), a.u);
    for (Index j = first_key; j < keys; ++j) {
      for (Index d = 0; d < width_; ++d) {
        const Estimate e = one_head_.result(j, d, scale, sum, 2, a.u, queries_repeat_);
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

  Estimate result(Index j, Index d, Index queries, double scale, const Arithmetic& a) const {
    Estimate e =
        all_heads_.result(j, d, scale, sum_error(a.contract.pv, group_ * queries), 2, a.u, queries_repeat_);
    if (group_ > 1) {
      const Estimate& shares = shares_[j * width_ + d];
      e.worst = std::max(e.worst, shares.worst);
      e.systematic = std::max(e.systematic, shares.systematic);
      e.variance = std::max(e.variance, shares.variance);
      e.rest_systematic = std::max(e.rest_systematic, shares.rest_systematic);
      e.rest_variance = std::max(e.rest_variance, shares.rest_variance);
    }
    return e;
  }

 private:
  Contraction all_heads_, one_head_;
  Index width_, group_;
  bool queries_repeat_;
  std::vector<Estimate> shares_;  // without their value
};

class Backward {
 public:
  Backward(const AttentionSpec& spec, const AttentionInputs& in, const BackwardInputs& saved,
           const Contract& contract, const BackwardOutputs& out)
      : spec_(spec), in_(in), saved_(saved), arithmetic_(contract), out_(out) {}

  void head(Index kv_head);

 private:
  void write_query(const Head& head, Index h, Index i, const PairRow& row) const;
  bool queries_repeat(Index kv_head) const;
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
  for (Index j = row.first; j < row.last; ++j) {
    const ScoreGradient& g = row.gradient[j];
    const double slope = g.value == 0 || row.ds[j].value == 0 ? 1 : row.ds[j].value / g.value;
    const double store =
        std::max(arithmetic_.p_unit * (std::abs(g.value) + g.worst), arithmetic_.p_half_subnormal);
    out_.dbias.value(h, i, j) += g.value;
    out_.dbias.magnitude(h, i, j) += std::abs(g.value);
    out_.dbias.worst(h, i, j) += g.worst + store;
    // All pairs of a row share the error of delta, and a bias may add them up.
    const double shared = confidence_multiplier(1) * row.p[j].value * std::sqrt(row.delta_variance);
    out_.dbias.systematic(h, i, j) += row.ds[j].systematic / slope + shared;
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

bool Backward::queries_repeat(Index g) const {
  Lanes q;
  bool repeat = false;
  for (Index h = g * in_.group(); h < (g + 1) * in_.group(); ++h) {
    copy_rows(in_.q, h, 0, in_.queries(), q);
    repeat |= rows_repeat(q, in_.queries(), padded(in_.qk_width()));
  }
  return repeat;
}

void Backward::head(Index g) {
  const Head head(in_, g);
  const Index queries = in_.queries(), keys = head.keys;
  const bool repeat = (out_.dk || out_.dv) && queries_repeat(g);
  GroupSums dk(out_.dk ? keys : 0, head.qk_width, in_.group(), repeat);
  GroupSums dv(out_.dv ? keys : 0, head.v_width, in_.group(), repeat);
  std::vector<PairRow> rows(block_rows);
  Lanes q, d_o;

  for (Index h = g * in_.group(); h < (g + 1) * in_.group(); ++h) {
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
        for (Index j = in_.past; j < keys; ++j) {
          if (out_.dk) {
            for (Index r = 0; r < count; ++r) column[r] = rows[r].ds[j];
            dk.add(j, count, column.data(), q.data());
          }
          if (out_.dv) {
            for (Index r = 0; r < count; ++r) column[r] = rows[r].p[j];
            dv.add(j, count, column.data(), d_o.data());
          }
        }
      }
      for (Index r = 0; r < count; ++r) {
        if (out_.dbias) add_bias(h, first + r, rows[r]);
        if (out_.dsink) add_sink(h, first + r, rows[r]);
      }
    }
    if (out_.dk) dk.finish_head(in_.past, keys, queries, spec_.scale, arithmetic_, out_.dk.dtype());
    if (out_.dv) dv.finish_head(in_.past, keys, queries, 1, arithmetic_, out_.dv.dtype());
  }

  const auto write = [&](const ExpectedView<3>& output, const GroupSums& sums, Index width, double scale) {
    if (!output) return;
    const double share = arithmetic_.reference_share(width, queries * in_.group());
    for (Index j = in_.past; j < keys; ++j) {
      for (Index d = 0; d < width; ++d) {
        const Estimate e = sums.result(j, d, queries, scale, arithmetic_);
        output.set_bound(e.value, e.worst, e.systematic, std::sqrt(e.variance), share, g, j - in_.past, d);
        output.set_rest(e.rest_systematic, std::sqrt(e.rest_variance), g, j - in_.past, d);
        output.set_replays(e.replay, g, j - in_.past, d);
      }
    }
  };
  write(out_.dk, dk, head.qk_width, spec_.scale);
  write(out_.dv, dv, head.v_width, 1);
}

}  // namespace

void attention_backward(const AttentionSpec& spec, const AttentionInputs& in, const BackwardInputs& saved,
                        const Contract& contract, const BackwardOutputs& out) {
  Backward backward(spec, in, saved, contract, out);
  for (Index g = 0; g < in.kv_heads(); ++g) backward.head(g);
}

}  // namespace attest::bounds
