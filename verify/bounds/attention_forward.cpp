// Exact values and bounds of the attention forward pass, row by row.
#include "verify/bounds/attention_forward.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>

#include "verify/bounds/value_sums.hpp"

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Rows that read V together: fewer if they are long, so that what is kept of each key stays in the cache.
constexpr Index most_rows_together = 8;
Index rows_together(Index keys) {
  constexpr Index keys_together = 1 << 16;
  return std::clamp(keys_together / std::max(keys, Index{1}), Index{1}, most_rows_together);
}

class Forward {
 public:
  Forward(const AttentionSpec& spec, const AttentionInputs& in, const Head& head, const Contract& contract,
          const ForwardOutputs& out, const HeadErrors* errors)
      : spec_(spec),
        in_(in),
        head_(head),
        arithmetic_(contract),
        qk_(sum_error(contract.qk, head.qk_width)),
        out_(out),
        errors_(errors),
        share_(std::max(arithmetic_.reference_share(head.qk_width, head.keys),
                        errors ? errors->inputs.reference_share : 0)) {}

  /// Rows [first, last) of query head h.
  void rows(Index h, Index first, Index last) {
    std::array<ScoreRow*, most_rows_together> scores;
    for (Index i = first; i < last; ++i) {
      scores[i - first] = &rows_[i - first].w.scores;
      scores[i - first]->locate(spec_, in_, head_, h, i);
    }
    ScoreRow::multiply({scores.data(), static_cast<std::size_t>(last - first)}, head_);
    std::array<ValueSums*, most_rows_together> attending;
    std::size_t count = 0;
    for (Index i = first; i < last; ++i) {
      ValueSums& row = rows_[i - first];
      const bool attends = row.w.compute(spec_, in_, head_, arithmetic_, h, errors_);
      if (out_.s) write_scores(row.w, h, i);
      if (!attends) {
        write_empty_row(h, i);
        continue;
      }
      row.query = i;
      row.with_coherent = errors_ || keys_repeat(row.w);
      attending[count++] = &row;
      if (out_.lse || out_.m || out_.l) write_statistics(row.w, h, i);
      if (out_.p) write_weights(row.w, h, i);
    }
    if (!out_.o) return;
    compute_value_sums({attending.data(), count}, head_, arithmetic_);
    for (std::size_t n = 0; n < count; ++n) write_output(*attending[n], h);
  }

 private:
  void write_scores(const Weights& w, Index h, Index i) const;
  void write_empty_row(Index h, Index i) const;
  void write_statistics(const Weights& w, Index h, Index i) const;
  void write_weights(const Weights& w, Index h, Index i) const;
  void write_output(const ValueSums& row, Index h);

  /// What a tanh may be off by for many keys alike.
  double capped_systematic(const Weights& w) const {
    return w.scores.capped * (arithmetic_.tanh_relative + arithmetic_.score_store_relative());
  }
  bool keys_repeat(const Weights& w) const { return head_.keys_repeat || w.structure.scores_repeat; }
  /// Rigorous bounds of the relative error of the row sum, and of the error of its logarithm.
  double row_sum_worst(const Weights& w) const { return std::expm1(log_row_sum_worst(w)); }
  double log_row_sum_worst(const Weights& w) const {
    const double of_additions =
        log_gamma(static_cast<double>(w.count()) + arithmetic_.tiles(w.count(), w.span()), arithmetic_.u);
    return of_additions - (w.stored_sum < 1 ? std::log1p(-w.stored_sum) : -infinity);
  }
  /// Variance of the relative error of the row sum and of the division by it.
  double row_sum_variance(const Weights& w) const {
    return w.stored_sum_variance +
           mean_square_rounding * arithmetic_.u * arithmetic_.u * (static_cast<double>(w.count()) / 3 + 3);
  }

  const AttentionSpec& spec_;
  const AttentionInputs& in_;
  const Head& head_;
  const Arithmetic arithmetic_;
  const SumError qk_;
  const ForwardOutputs& out_;
  const HeadErrors* errors_;
  const double share_;
  std::array<ValueSums, most_rows_together> rows_;
  InheritedValues inherited_;
};

void Forward::write_scores(const Weights& w, Index h, Index i) const {
  for (Index j = 0; j < head_.keys; ++j) {
    if (w.scores.is_masked(j)) {
      out_.s.set_exact(-infinity, h, i, j);
    } else {
      out_.s.set_bound(
          w.scores.s[j], w.scores.error[j],
          (qk_.shrinkage() + arithmetic_.u) * std::abs(w.scores.tangent[j]) + std::abs(w.scores.drift[j]),
          std::sqrt(w.scores.variance[j]), share_, h, i, j);
    }
  }
}

void Forward::write_empty_row(Index h, Index i) const {
  const double keys = static_cast<double>(head_.keys);
  const double weight = spec_.empty_row == EmptyRow::zero  ? 0
                        : spec_.empty_row == EmptyRow::nan ? std::numeric_limits<double>::quiet_NaN()
                                                           : 1 / keys;
  const double weight_error = arithmetic_.p_unit + arithmetic_.exp_error + gamma(keys + 3, arithmetic_.u);
  if (out_.p) {
    for (Index j = 0; j < head_.keys; ++j) {
      out_.p.set_bound(weight, weight * weight_error, weight * weight_error, 0, share_, h, i, j);
    }
  }
  if (out_.o) {
    for (Index e = 0; e < head_.v_width; ++e) {
      if (spec_.empty_row != EmptyRow::mean_v) {
        out_.o.set_exact(weight, h, i, e);
        continue;
      }
      double mean = 0, magnitude = 0, from_v = 0;
      for (Index j = 0; j < head_.keys; ++j) {
        mean += weight * head_.v_row(j)[e];
        magnitude += weight * std::abs(head_.v_row(j)[e]);
        if (errors_) from_v += weight * errors_->v_row(j)[e];
      }
      const double relative = weight_error + sum_error(arithmetic_.contract.pv, head_.keys).worst;
      const double worst =
          magnitude * relative * (1 + weight_error) + from_v * (1 + relative) * (1 + weight_error);
      out_.o.set_bound(mean, worst, worst, 0, share_, h, i, e);
    }
  }
  for (Index r = 0; out_.lse && r < out_.lse.extent(2); ++r) out_.lse.set_exact(out_.lse_empty, h, i, r);
  for (Index r = 0; out_.m && r < out_.m.extent(2); ++r) out_.m.set_exact(-infinity, h, i, r);
  for (Index r = 0; out_.l && r < out_.l.extent(2); ++r) out_.l.set_exact(0, h, i, r);
}

// Equations (14) and (15).
void Forward::write_statistics(const Weights& w, Index h, Index i) const {
  const Arithmetic& a = arithmetic_;
  const Weights::InRowSum sum = w.in_row_sum();
  const double sum_worst = row_sum_worst(w);
  const double log = a.log_error + a.log_relative * std::abs(std::log(w.l));
  const double ends = a.u * (2 * std::abs(w.m) + 2 * std::abs(w.lse) + 4 * w.scores.inherited_worst);
  const double worst = std::max(std::log1p(sum.up), -std::log(sum.down)) + log_row_sum_worst(w) + log + ends +
                       2 * a.u * w.largest + w.split;
  const bool coherent = keys_repeat(w) || w.structure.row_sum_is_coherent;
  const double truncation = 0.2 * qk_.bias * std::abs(spec_.scale) * sum.truncation;
  const double systematic = a.exp_error + w.shift + w.split + w.update + log + ends +
                            (qk_.shrinkage() + a.u) * std::abs(sum.scale) + truncation +
                            capped_systematic(w) + w.structure.stagnation + (coherent ? sum_worst : 0) +
                            std::abs(sum.drift) + (w.structure.few_stored_values ? w.stored_sum : 0);
  const double sigma = std::sqrt(sum.noise * sum.noise + row_sum_variance(w));
  const double unit = out_.lse_unit, to_unit = unit == 1 ? 0 : 2 * a.u * std::abs(w.lse);
  for (Index r = 0; out_.lse && r < out_.lse.extent(2); ++r) {
    out_.lse.set_bound(w.lse * unit, (worst + to_unit) * unit, (systematic + to_unit) * unit, sigma * unit,
                       share_, h, i, r);
  }

  // The largest computed score is off by no more than the keys that can take the lead are.
  const double top_error = w.scores.error[w.key.empty() ? 0 : w.key[w.top]];
  double m_worst = 0;
  for (const Index j : w.key) {
    if (w.scores.s[j] + w.scores.error[j] >= w.m - top_error) m_worst = std::max(m_worst, w.scores.error[j]);
  }
  const double m_sigma = w.key.empty() ? 0 : std::sqrt(w.scores.variance[w.key[w.top]]);
  for (Index r = 0; out_.m && r < out_.m.extent(2); ++r) {
    out_.m.set_bound(w.m, m_worst, m_worst, m_sigma, share_, h, i, r);
  }
  const double l_worst = w.l * std::expm1(worst + m_worst);
  for (Index r = 0; out_.l && r < out_.l.extent(2); ++r) {
    out_.l.set_bound(w.l, l_worst, l_worst, w.l * std::hypot(sigma, m_sigma), share_, h, i, r);
  }
}

// Equation (9), with the rounding of the store.
void Forward::write_weights(const Weights& w, Index h, Index i) const {
  for (Index j = 0; j < head_.keys; ++j) {
    if (w.scores.is_masked(j)) {
      out_.p.set_exact(0, h, i, j);
    } else {  // of keys whose weight vanishes this stays
      out_.p.set_bound(0, arithmetic_.flush, arithmetic_.flush, 0, share_, h, i, j);
    }
  }
  const double sum_worst = row_sum_worst(w), growth = std::exp(2 * w.delta_max);
  const Weights::InRowSum sum = w.in_row_sum();
  for (Index c = 0; c < w.count(); ++c) {
    const double worst =
        w.p[c] * (growth * (w.growth[c] + sum.up) + (sum_worst + 3 * arithmetic_.u) * (1 + 2 * sum_worst)) +
        w.store[c] * growth * (1 + sum_worst + 3 * arithmetic_.u) + arithmetic_.flush;
    const double systematic =
        w.p[c] * (2 * arithmetic_.exp_error + w.update + w.shift + w.split + 3 * arithmetic_.u +
                  (qk_.shrinkage() + arithmetic_.u) * 2 * w.largest + w.structure.stagnation +
                  std::abs(w.drift[c] - sum.drift)) +
        (keys_repeat(w) || w.structure.row_sum_is_coherent ? w.p[c] * sum_worst : 0) + arithmetic_.flush +
        w.p[c] * capped_systematic(w);
    const double variance =
        w.p[c] * w.p[c] * (w.variance[c] + sum.noise * sum.noise + row_sum_variance(w)) + w.store_variance[c];
    out_.p.set_bound(w.p[c], worst, systematic, std::sqrt(variance), share_, h, i, w.key[c]);
  }
}

// Equations (10) to (13).
void Forward::write_output(const ValueSums& row, Index h) {
  const Index i = row.query;
  const Weights& w = row.w;
  const Arithmetic& a = arithmetic_;
  const Index width = head_.v_width, n = w.count();

  bool structured = w.structure.few_stored_values;
  if (a.p_is_rounded) {  // does the predicted rounding error exceed what independent roundings give?
    for (int k = 0; k < 3; ++k) {
      double excess = 0, columns = 0;
      for (Index e = 0; e < width; ++e) {
        const ValueBlock& c = row.blocks[e / lanes];
        if (c.store_variance[e % lanes] <= 0) continue;
        excess += c.predicted[k][e % lanes] * c.predicted[k][e % lanes] / c.store_variance[e % lanes];
        ++columns;
      }
      structured |= excess > columns * (1.5 + 6 * std::sqrt(2 / std::max(columns, 1.0)));
    }
  }

  const double tiles = a.tiles(n, w.span());
  const SumError pv = sum_error(a.contract.pv, n, w.span());
  const double pv_worst = pv.worst + gamma(a.roundings_per_tile * tiles, a.u) + gamma(2 * a.most_splits, a.u);
  const double sum_worst = row_sum_worst(w);
  const double combine = 2 * a.u * (std::abs(w.lse) + w.scores.inherited_worst) + a.log_error +
                         a.log_relative * std::log(1 + a.most_splits) + a.exp_error +
                         gamma(a.most_splits, a.u);
  const double normalisation = (1 + 3 * a.u + 2 * combine) * (1 + sum_worst) - 1;
  const double growth = std::exp(2 * w.delta_max);
  const double c2u2 = mean_square_rounding * a.u * a.u;
  // The parts of a row's splits are differences of running sums. Equation (11b).
  const double split_noise = 6 * mean_square_rounding * a.split_unit * a.split_unit;
  // docs/bounds_multihead.md, (4): noise that q brings along is common to the keys of the row.
  double coherent_growth = 0;
  if (errors_) {
    std::vector<double> exact(width);
    for (Index e = 0; e < width; ++e) exact[e] = row.blocks[e / lanes].o[e % lanes];
    inherited_.compute(*errors_, w, head_, exact, a.flush);
    const double largest = n > 0 ? *std::max_element(w.variance.begin(), w.variance.end()) : 0;
    coherent_growth = std::exp(2 * out_.o.lambda() * std::sqrt(largest));
  }
  const double* v_top = n > 0 ? head_.v_row(w.key[w.top]) : nullptr;
  for (Index e = 0; e < width; ++e) {
    const ValueBlock& c = row.blocks[e / lanes];
    const Index x = e % lanes;
    const double o = c.o[x], size = std::abs(o);
    const double exponent = growth * c.worst[x];
    double worst =
        exponent + growth * (1 + normalisation) * (c.store[x] * (1 + pv_worst) + pv_worst * c.magnitude[x]) +
        normalisation * (size + exponent) + a.flush * static_cast<double>(n + w.vanished) * head_.v_max[e];

    worst += growth * (1 + normalisation) *
             (a.split_unit * (c.magnitude[x] + c.store[x]) + a.split_half_subnormal);

    const double running =
        n > 0 ? mean_square_running_sum(o, c.squares[x], c.prefix[x], c.prefix_sum[x], static_cast<double>(n))
              : 0;
    const double common = coherent_growth * c.coherent[x];
    const double other_variance = (errors_ ? common * common : c.variance[x]) +
                                  pv.variance(running, c.squares[x]) +
                                  (c2u2 * a.roundings_per_tile * tiles + split_noise) * running;
    double variance = other_variance + c.store_variance[x] + o * o * row_sum_variance(w);
    double systematic = a.split_half_subnormal + c.second_order[x] +
                        (a.exp_error + w.update + w.shift + w.split) * c.spread[x] +
                        size * (3 * a.u + combine + w.structure.stagnation) + std::abs(c.tiny[x]) +
                        (qk_.shrinkage() + a.u) * std::abs(c.scale[x]) +
                        pv.truncation(running, c.squares[x], o) + (keys_repeat(w) ? 4 * c.coherent[x] : 0);
    // The largest weight may be stored as exactly 1 while the row sum takes its computed value.
    if (v_top && a.p_is_rounded) {
      systematic += w.p[w.top] * std::abs(v_top[e]) * std::min(a.p_unit, w.shift + w.split + a.exp_error);
    }
    systematic += capped_systematic(w) * c.spread[x];
    if (!row.stagnation.empty()) systematic += row.stagnation[e];
    if (w.structure.row_sum_is_coherent) systematic += size * (sum_worst + 0.5 * pv_worst);
    if (keys_repeat(w)) systematic += size * sum_worst + pv_worst * c.magnitude[x];
    const double rest = systematic;
    systematic += 1.5 * a.p_unit * a.p_unit * size;
    if (structured) systematic += c.store[x] + size * w.stored_sum;
    if (errors_) {
      worst += growth * (1 + normalisation) * (1 + pv_worst) * inherited_.worst[e];
      variance += inherited_.variance[e];
      systematic += std::abs(inherited_.drift[e]);
    }
    out_.o.set_bound(o, worst, systematic, std::sqrt(variance), share_, h, i, e);
    out_.o.set_joint((1 - w.joint) * c.store_variance[x], h, i, e);
    out_.o.set_rest(rest,
                    std::sqrt(other_variance + w.flipped * c.store_variance[x] +
                              o * o * (row_sum_variance(w) - (1 - w.flipped) * w.stored_sum_variance)),
                    h, i, e);
  }
}

}  // namespace

void attention_forward(const AttentionSpec& spec, const AttentionInputs& in, const Contract& contract,
                       const ForwardOutputs& out, const InputErrors* errors) {
  for (Index g = 0; g < in.kv_heads(); ++g) {
    const Head head(in, g, Pass::forward);
    const Index together = rows_together(in.keys());
    std::optional<HeadErrors> head_errors;
    if (errors) head_errors.emplace(*errors, in, g);
#pragma omp parallel
    {
      Forward forward(spec, in, head, contract, out, head_errors ? &*head_errors : nullptr);
#pragma omp for collapse(2) schedule(dynamic, 1)
      for (Index h = g * in.group(); h < (g + 1) * in.group(); ++h) {
        for (Index i = 0; i < in.queries(); i += together) {
          forward.rows(h, i, std::min(i + together, in.queries()));
        }
      }
    }
  }
}

}  // namespace attest::bounds
