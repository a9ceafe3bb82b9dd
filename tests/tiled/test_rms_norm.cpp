// tiled's RMSNorm against ref, at every instruction set level that the machine has.
//
// How far may it be off? To first order, with the rest covered by the factor `slack` as in
// attention_rounding.cpp; u is the unit roundoff of Real and v = 2^-53 that of double, in which the
// reciprocal root and the factor of dx are computed. No result is subnormal. A sum of n terms, each rounded k
// times, is off by (k + a) u sum |term|, where a is how many additions one term goes through:
//   a = n / (8 lanes) + 8 + 7 + lanes    its chain, what is left of the row, the other chains, the lanes
//
//  rstd     the mean square is off by (1 + a) u, the root halves that:
//             E = rstd ((1 + a) u / 2 + u + 4v)
//  y        rstd as above, weight + weight_offset and two products:     E = |y| ((1 + a) u / 2 + 4u + 4v)
//  dx       rstd as given; with g = (weight + weight_offset) dy and m = mean |g x| rstd^2, whose terms are
//           rounded three times and whose sum becomes a rounded factor:
//             E = rstd (4u |g| + |x| m ((3 + a) u + 4u + 4v))
//  dweight  R rows in any order:                                        E = (2 + R) u sum |dy x rstd|
//
// ref obeys the same bounds with u = v and a = N.
#include "tiled/rms_norm.hpp"

#include <omp.h>

#include "core/array.hpp"
#include "ref/norm.hpp"
#include "tests/catch.hpp"
#include "tests/tiled/guarded.hpp"

namespace {

using namespace attest;
using namespace attest::test;

constexpr double slack = 1 + 1.0 / 64;

template <class Real>
struct Problem {
  NormSpec spec;
  Guarded<Real> x, dy, weight;
  bool has_weight;

  Problem(Index rows, Index width, bool is_weighted, RowLayout layout, std::uint64_t seed)
      : spec{false, 0x1p-10, is_weighted ? 0.5 : 0, {}},
        x(rows, width, layout),
        dy(rows, width, layout),
        weight(1, width, layout),
        has_weight(is_weighted) {
    Random random(seed);
    for (Guarded<Real>* tensor : {&x, &dy, &weight}) tensor->fill(random);
  }
  tiled::RmsNormInputs<Real> inputs() {
    return {x.view(), has_weight ? weight.view().slice(0) : View<Real, 1>{}};
  }
};

template <class Real>
struct Results {
  Guarded<Real> y, rstd, dx, dweight;

  Results(Index rows, Index width, RowLayout layout)
      : y(rows, width, layout), rstd(1, rows, layout), dx(rows, width, layout), dweight(1, width, layout) {}
  bool gaps_are_untouched() const {
    return y.gaps_are_untouched() && rstd.gaps_are_untouched() && dx.gaps_are_untouched() &&
           dweight.gaps_are_untouched();
  }
  bool has_bits_of(Results& other) {
    return y.has_bits_of(other.y) && rstd.has_bits_of(other.rstd) && dx.has_bits_of(other.dx) &&
           dweight.has_bits_of(other.dweight);
  }
};

template <class Real>
Results<Real> run(Problem<Real>& problem, tiled::Level level, RowLayout layout) {
  const tiled::RmsNormInputs<Real> in = problem.inputs();
  Results<Real> out(in.x.extent(0), in.x.extent(1), layout);
  const View<Real, 1> rstd = out.rstd.view().slice(0);
  tiled::rms_norm_forward<Real>(problem.spec, in, {out.y.view(), rstd}, level);
  tiled::rms_norm_backward<Real>(problem.spec, in, problem.dy.view(), rstd,
                                 {out.dx.view(), out.dweight.view().slice(0)}, level);
  return out;
}

template <class Real, int Rank>
Array<double, Rank> widened(View<Real, Rank> x) {
  typename View<double, Rank>::Extents extents;
  for (int r = 0; r < Rank; ++r) extents[r] = x.extent(r);
  Array<double, Rank> result(extents);
  for (Index i = 0; i < x.extent(0); ++i) {
    if constexpr (Rank == 1) {
      result(i) = x(i);
    } else {
      for (Index j = 0; j < x.extent(1); ++j) result(i, j) = x(i, j);
    }
  }
  return result;
}

/// Of tiled in arithmetic of unit roundoff u, and of ref.
struct Roundoff {
  double u, additions, width;

  static constexpr double v = 0x1p-53;
  double rstd() const { return slack * ((1 + additions) * u / 2 + u + 4 * v + (1 + width) * v / 2 + 5 * v); }
  double y() const { return rstd() + slack * 3 * (u + v); }
  double dx_of_g() const { return slack * 4 * (u + v); }
  double dx_of_mean() const { return slack * ((7 + additions) * u + 4 * v + (11 + width) * v); }
  double dweight(double rows) const { return slack * (2 + rows) * (u + v); }
};

bool is_within(double got, double want, double bound) {
  return got == want || std::abs(got - want) <= bound;
}

/// The first result that is not within its bound of ref; empty if there is none.
template <class Real>
std::string first_disagreement(Problem<Real>& problem, Results<Real>& got, int lanes) {
  const Array<double, 2> x = widened(problem.x.view()), dy = widened(problem.dy.view());
  const Array<double, 1> weight = widened(problem.inputs().weight);
  const NormInputs in{x.view(), problem.has_weight ? weight.view() : View<const double, 1>{}, {}};
  const Index rows = in.rows(), width = in.width();
  Array<double, 1> mean({rows}), rstd({rows});
  Array<double, 2> y({rows, width}), dx(y);
  Array<double, 1> want_rstd({rows});
  ref::norm(problem.spec, in, {}, {y.view(), {}, want_rstd.view(), {}, {}, {}});
  const double n = static_cast<double>(width);
  const Roundoff e{std::numeric_limits<Real>::epsilon() / 2, n / (8 * lanes) + 15 + lanes, n};
  const auto at = [](const char* name, Index i, Index j) {
    return name + std::string(" of row ") + std::to_string(i) + ", column " + std::to_string(j);
  };
  for (Index i = 0; i < rows; ++i) {
    rstd(i) = got.rstd.view()(0, i);
    if (!is_within(rstd(i), want_rstd(i), e.rstd() * want_rstd(i))) return at("rstd", i, 0);
    ref::norm_backward_row(problem.spec, in, dy.view(), {0, rstd(i)}, i, dx.view().slice(i));
    const auto g = [&](Index j) {
      return (in.weight ? weight(j) + problem.spec.weight_offset : 1) * dy(i, j);
    };
    double m = 0;
    for (Index j = 0; j < width; ++j) m += std::abs(g(j) * x(i, j)) * rstd(i) * rstd(i) / n;
    for (Index j = 0; j < width; ++j) {
      if (!is_within(got.y.view()(i, j), y(i, j), e.y() * std::abs(y(i, j)))) return at("y", i, j);
      const double bound = rstd(i) * (e.dx_of_g() * std::abs(g(j)) + e.dx_of_mean() * m * std::abs(x(i, j)));
      if (!is_within(got.dx.view()(i, j), dx(i, j), bound)) return at("dx", i, j);
    }
  }
  for (Index j = 0; j < width; ++j) {
    double magnitude = 0;
    for (Index i = 0; i < rows; ++i) magnitude += std::abs(dy(i, j) * x(i, j) * rstd(i));
    const double want = ref::norm_backward_column(in, dy.view(), mean.view(), rstd.view(), j).dweight;
    if (!is_within(got.dweight.view()(0, j), want, e.dweight(static_cast<double>(rows)) * magnitude))
      return at("dweight", 0, j);
  }
  return {};
}

template <class Real>
int lanes_of(tiled::Level level) {
  return (level == tiled::Level::v2   ? 16
          : level == tiled::Level::v3 ? 32
                                      : 64) /
         static_cast<int>(sizeof(Real));
}

template <class Real>
void check_shapes() {
  std::uint64_t seed = 0;
  for (const tiled::Level level : tiled::available_levels()) {
    const Index w = lanes_of<Real>(level);
    for (const Index width : {Index{1}, w - 1, w, w + 1, 8 * w - 1, 8 * w, 9 * w + 1, Index{1000}}) {
      for (const Index rows : {0, 1, 2, 7, 140}) {
        ++seed;
        Problem<Real> problem(rows, width, seed % 3 != 0, RowLayout::tight, seed);
        INFO(tiled::name_of(level) << ", " << rows << " x " << width << ", seed " << seed);
        Results<Real> tight = run(problem, level, RowLayout::tight);
        CHECK(first_disagreement(problem, tight, static_cast<int>(w)) == "");
        Results<Real> aligned = run(problem, level, RowLayout::aligned);
        CHECK(tight.has_bits_of(aligned));
        CHECK((tight.gaps_are_untouched() && aligned.gaps_are_untouched()));
      }
    }
  }
}

template <class Real>
void check_past_caches() {
  for (const tiled::Level level : tiled::available_levels()) {
    const tiled::RowKernels<Real>& kernels = tiled::row_kernels_for<Real>(level);
    for (const RowLayout layout : {RowLayout::aligned, RowLayout::tight}) {
      for (const Index width : {1, 64, 1000}) {
        INFO(tiled::name_of(level) << ", width " << width);
        Problem<Real> problem(9, width, false, RowLayout::tight, 1);
        Results<Real> want = run(problem, level, RowLayout::tight), got(9, width, layout);
        const std::vector<Real> gain(static_cast<std::size_t>(width), Real{1});
        const tiled::RowMajor<const Real> x{problem.x.data(), problem.x.stride()},
            dy{problem.dy.data(), problem.dy.stride()};
        kernels.rms_norm_forward({9,
                                  width,
                                  problem.spec.eps,
                                  gain.data(),
                                  x,
                                  {got.y.data(), got.y.stride()},
                                  {got.rstd.data(), 1},
                                  true},
                                 0, 9);
        kernels.rms_norm_backward(
            {9, width, gain.data(), x, dy, {got.rstd.data(), 1}, {got.dx.data(), got.dx.stride()}, true}, 0,
            9, got.dweight.data());
        CHECK(got.has_bits_of(want));
        CHECK(got.gaps_are_untouched());
      }
    }
  }
}

template <class Real>
void check_threads() {
  Problem<Real> problem(1000, 331, true, RowLayout::tight, 1);
  const int threads_before = omp_get_max_threads();
  for (const tiled::Level level : tiled::available_levels()) {
    omp_set_num_threads(1);
    Results<Real> one = run(problem, level, RowLayout::tight);
    CHECK(first_disagreement(problem, one, lanes_of<Real>(level)) == "");
    for (const int threads : {2, 3}) {
      omp_set_num_threads(threads);
      CHECK(run(problem, level, RowLayout::tight).has_bits_of(one));
    }
  }
  omp_set_num_threads(threads_before);
}

}  // namespace

TEST_CASE("tiled RMSNorm is within its rounding errors of ref for every shape and writes nothing else") {
  check_shapes<float>();
  check_shapes<double>();
}

TEST_CASE("tiled RMSNorm writes past the caches what it would write into them") {
  check_past_caches<float>();
  check_past_caches<double>();
}

TEST_CASE("tiled RMSNorm of many parts is near ref, in bits that do not depend on the number of threads") {
  check_threads<float>();
  check_threads<double>();
}

TEST_CASE("tiled RMSNorm computes each result without the others") {
  Problem<float> problem(40, 50, true, RowLayout::tight, 1);
  const tiled::RmsNormInputs<float> in = problem.inputs();
  Results<float> all = run(problem, tiled::fastest_level(), RowLayout::tight), one(40, 50, RowLayout::tight);
  const View<float, 1> rstd = one.rstd.view().slice(0);
  tiled::rms_norm_forward<float>(problem.spec, in, {{}, rstd});
  tiled::rms_norm_forward<float>(problem.spec, in, {one.y.view(), {}});
  tiled::rms_norm_backward<float>(problem.spec, in, problem.dy.view(), rstd, {one.dx.view(), {}});
  tiled::rms_norm_backward<float>(problem.spec, in, problem.dy.view(), rstd,
                                  {{}, one.dweight.view().slice(0)});
  CHECK(one.has_bits_of(all));
}

TEST_CASE("a NaN in a row of tiled RMSNorm stays in its row") {
  for (const tiled::Level level : tiled::available_levels()) {
    Problem<float> problem(3, 100, false, RowLayout::tight, 1);
    problem.x.view()(1, 57) = std::numeric_limits<float>::quiet_NaN();
    Results<float> out = run(problem, level, RowLayout::tight);
    for (Index i = 0; i < 3; ++i) {
      for (Index j = 0; j < 100; ++j) {
        CHECK(std::isnan(out.y.view()(i, j)) == (i == 1));
        CHECK(std::isnan(out.dx.view()(i, j)) == (i == 1));
      }
    }
  }
}
