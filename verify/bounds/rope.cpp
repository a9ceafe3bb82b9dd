// Exact values and bounds of a rotary embedding. Equation numbers refer to docs/bounds_rope.md.
#include "verify/bounds/rope.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "verify/compare.hpp"

namespace attest::bounds {
namespace {

/// Cosines and sines of one pair in one row, and what is unsure about them.
struct PairTable {
  double c1, c2, s1, s2;
  double largest;             // of their sizes
  double error = 0;           // certified, of each
  double angle_slack = 0;     // the device's angle may be this far off
  double declared_angle = 0;  // the part of it that the contract declares
  double declared_each = 0;   // what it declares of cosine and sine. Equation (12b)
};

PairTable table_of(const RopeSpec& spec, const RopeSource& source, const RopeArithmetic& arithmetic,
                   Index row, Index k, std::size_t candidate) {
  if (source.has_table()) {
    const Index at = source.table_rows[row];
    const bool is_full = source.cos.extent(1) == spec.rotary_dim;
    const Index i = is_full ? spec.first(k) : k, j = is_full ? spec.second(k) : k;
    PairTable t{source.cos(at, i), source.cos(at, j), source.sin(at, i), source.sin(at, j), 0};
    t.largest = std::max({std::abs(t.c1), std::abs(t.c2), std::abs(t.s1), std::abs(t.s2)});
    return t;
  }
  const Turn t = turn(source.frequencies[k], source.rule, source.positions[row], candidate);
  const double m = source.attention_factor, c = m * t.cos, s = m * t.sin, size = std::abs(m);
  const double declared =
      arithmetic.angle_error * std::abs(source.positions[row] * source.frequencies[k].exact.hi);
  return {c,
          c,
          s,
          s,
          size,
          size * (t.error + (m == 1 ? 0 : 0x1p-52)),
          t.angle_slack + declared,
          declared,
          size * arithmetic.sincos_error};
}

/// A kernel that computes in this format may lose a result, or read an operand as 0, below this.
double flush_threshold(DType compute) {
  const double smallest_normal = std::ldexp(1.0, format_of(compute).emin);
  // float16 units and double keep subnormals; those of float32 and bfloat16 may be told not to.
  const bool keeps_subnormals = compute == DType::float16 || compute == DType::float64;
  return keeps_subnormals ? ulp(0, compute) : smallest_normal;
}

bool loses_bits(DType from, DType to) {
  return format_of(from).precision > format_of(to).precision;
}

/// What the arithmetic of a kernel costs, whatever the row.
struct Costs {
  double u;      // unit roundoff
  double slack;  // relative error of a product before the sum: cosine or sine, operands, product
  double flush;  // absolute error of tiny results

  Costs(const RopeArithmetic& arithmetic, const RopeSource& source)
      : u(unit_roundoff(arithmetic.compute)), slack(u), flush(flush_threshold(arithmetic.compute)) {
    if (loses_bits(arithmetic.operand, arithmetic.compute)) grow(u);
    if (source.has_table()) {
      if (loses_bits(arithmetic.cos_table, arithmetic.compute) ||
          loses_bits(arithmetic.sin_table, arithmetic.compute))
        grow(u);
    } else {
      // Cosines and sines are off by 2 ulp, and by two roundings where they are scaled. Equation (12).
      const double u_angle = source.rule == AngleRule::float32 ? unit_roundoff(DType::float32) : 0;
      grow((source.attention_factor == 1 ? 4 : 6.001) * std::max(u, u_angle));
    }
  }

 private:
  /// (1 + slack) (1 + e) - 1, which must not pass through 1 + 2^-53 = 1.
  void grow(double e) { slack += e + slack * e; }
};

/// a c + b s, with `other` its derivative by the angle. Equations (12a) to (16).
ElementBound dot_bound(const Costs& costs, const PairTable& t, double a, double c, double b, double s,
                       double other, DType output) {
  const double ac = a * c, bs = b * s;
  const DoubleDouble exact = two_product(a, c) + two_product(b, s);
  const double value = exact.hi, sizes = std::abs(a) + std::abs(b), products = std::abs(ac) + std::abs(bs);
  const double delta = t.angle_slack;

  const auto turned = [&](double by) { return std::abs(other) * by + by * by / 2 * std::abs(value); };
  const double angle = turned(delta) + t.declared_each * sizes;
  const double products_there =
      products + (delta * t.largest + t.declared_each) * sizes;  // with the device's cosine and sine
  const double before_sum = angle + costs.slack * products_there;
  const double worst =
      before_sum + costs.u * (std::abs(value) + before_sum) + costs.flush * (4 + 2 * t.largest);

  // Three independent roundings never reach lambda sigma: the probable bound is the rigorous one.
  // What is declared is one error for all heads of a row, so that it counts in full.
  const double sigma =
      std::hypot(costs.u * std::sqrt(mean_square_rounding * (ac * ac + bs * bs + value * value)),
                 turned(t.declared_angle) + t.declared_each * sizes);
  ElementBound bound = element_bound(value, worst, worst, sigma, 0, 0, output);
  bound.value_error += t.error * sizes + 0x1p-100 * products;
  return bound;
}

/// A copied column: exact, up to the rounding of a narrower output. Equation (17).
ElementBound copy_bound(double x, DType compute, DType output) {
  const double flush = std::abs(x) < std::ldexp(1.0, format_of(compute).emin) ? std::abs(x) : 0;
  if (flush == 0 && round_to(x, output) == x) return {x, 0, 0, 0, 0, 0};
  return element_bound(x, flush, flush, 0, 0, 0, output);
}

/// One tensor on its way to an Expected.
class Filling {
 public:
  Filling(const RopeSpec& spec, const RopeSource& source, const RopeArithmetic& arithmetic, bool backward,
          const RopeShape& shape, const std::vector<double>& input, Expected& expected)
      : spec_(spec),
        source_(source),
        costs_(arithmetic, source),
        arithmetic_(arithmetic),
        backward_(backward),
        shape_(shape),
        input_(input),
        expected_(expected) {}

  Index rows() const { return shape_.sizes.b * shape_.sizes.s; }

  /// Pair k of a row, in all heads. Returns how many elements the device has beyond their bounds.
  Index fill_pair(Index row, Index k, std::size_t candidate) const {
    const View<const double, 3> in = batch_of(row);
    const PairTable t = table_of(spec_, source_, arithmetic_, row, k, candidate);
    const double sin_of_b = backward_ ? t.s2 : -t.s1, sin_of_a = backward_ ? -t.s1 : t.s2;
    const Index s = row % shape_.sizes.s;
    Index beyond = 0;
    for (Index h = 0; h < shape_.sizes.h; ++h) {
      const Index i = &in(h, s, spec_.first(k)) - input_.data(),
                  j = &in(h, s, spec_.second(k)) - input_.data();
      const double a = input_[i], b = input_[j];
      // The derivative by the angle of either output is the other one, up to its sign.
      const double y1 = a * t.c1 + b * sin_of_b, y2 = b * t.c2 + a * sin_of_a;
      expected_.set(i, dot_bound(costs_, t, a, t.c1, b, sin_of_b, y2, expected_.dtype));
      expected_.set(j, dot_bound(costs_, t, b, t.c2, a, sin_of_a, y1, expected_.dtype));
      beyond += !within_bound(expected_, i, expected_.dumped->values[i]);
      beyond += !within_bound(expected_, j, expected_.dumped->values[j]);
    }
    return beyond;
  }

  void fill_copies(Index row) const {
    const View<const double, 3> in = batch_of(row);
    for (Index h = 0; h < shape_.sizes.h; ++h) {
      for (Index d = spec_.rotary_dim; d < shape_.sizes.width; ++d) {
        const Index at = &in(h, row % shape_.sizes.s, d) - input_.data();
        expected_.set(at, copy_bound(input_[at], arithmetic_.compute, expected_.dtype));
      }
    }
  }

 private:
  View<const double, 3> batch_of(Index row) const {
    return sequence_view(input_.data(), shape_.order, shape_.sizes, row / shape_.sizes.s, 0, shape_.sizes.s);
  }

  const RopeSpec& spec_;
  const RopeSource& source_;
  const Costs costs_;
  const RopeArithmetic& arithmetic_;
  const bool backward_;
  const RopeShape& shape_;
  const std::vector<double>& input_;
  Expected& expected_;
};

/// The candidate that fits best, if the nearest one leaves elements beyond their bounds in these rows. The
/// device's own candidate has none anywhere, so that it is among those with none in a sample of the rows.
std::size_t fit(const Filling& filling, Index k, std::size_t candidates, const std::vector<Index>& failing) {
  constexpr std::size_t sample_size = 64;
  std::vector<Index> sample;
  const std::size_t wanted = std::min(sample_size, failing.size());
  for (std::size_t n = 0; n < wanted; ++n) sample.push_back(failing[n * failing.size() / wanted]);

  std::size_t best = 0;
  std::pair fewest{std::numeric_limits<Index>::max(), Index{0}};  // in the sample, in the tensor
  for (std::size_t candidate = 0; candidate < candidates; ++candidate) {
    std::pair beyond{Index{0}, Index{0}};
    for (const Index row : sample) beyond.first += filling.fill_pair(row, k, candidate);
    if (beyond.first == 0) {
      for (Index row = 0; row < filling.rows(); ++row) beyond.second += filling.fill_pair(row, k, candidate);
      if (beyond.second == 0) return candidate;
    }
    if (beyond < fewest) {
      fewest = beyond;
      best = candidate;
    }
  }
  return best;
}

}  // namespace

CandidateChoice expect_rope(const RopeSpec& spec, const RopeSource& source, const RopeArithmetic& arithmetic,
                            bool backward, const RopeShape& shape, const std::vector<double>& input,
                            Expected& expected) {
  const Filling filling(spec, source, arithmetic, backward, shape, input, expected);
  const Index rows = filling.rows(), pairs = spec.pairs();
  std::vector<unsigned char> fails(rows * pairs);
#pragma omp parallel for schedule(static)
  for (Index row = 0; row < rows; ++row) {
    for (Index k = 0; k < pairs; ++k) fails[row * pairs + k] = filling.fill_pair(row, k, 0) > 0;
    filling.fill_copies(row);
  }

  CandidateChoice choice(pairs, 0);
#pragma omp parallel for schedule(dynamic, 1)
  for (Index k = 0; k < pairs; ++k) {
    const std::size_t candidates = source.has_table() ? 1 : source.frequencies[k].candidates.size();
    std::vector<Index> failing;
    for (Index row = 0; row < rows; ++row) {
      if (fails[row * pairs + k]) failing.push_back(row);
    }
    if (failing.empty() || candidates < 2) continue;
    choice[k] = fit(filling, k, candidates, failing);
    for (Index row = 0; row < rows; ++row) filling.fill_pair(row, k, choice[k]);
  }
  return choice;
}

}  // namespace attest::bounds
