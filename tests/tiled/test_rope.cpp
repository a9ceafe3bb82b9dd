// tiled's rotary embedding against ref, at every instruction set level that the machine has. Each result is
// a c - b s or a c + b s: two products and a sum, or one of the products fused with it, so that it is off by
// gamma(2, u) (|a c| + |b s|) from the exact value, and ref by the same with u = 2^-53. gamma(n, u) is
// n u / (1 - n u). Nothing is subnormal, and copies are exact.
#include "tiled/rope.hpp"

#include <omp.h>

#include "core/array.hpp"
#include "ref/rope.hpp"
#include "tests/catch.hpp"
#include "tests/tiled/guarded.hpp"

namespace {

using namespace attest;
using namespace attest::test;

double gamma(double n, double u) {
  return n * u / (1 - n * u);
}

struct Shape {
  Index heads, rows, rotary_dim, columns;
};

template <class Real>
struct Problem {
  Shape shape;
  RopeSpec spec;
  Guarded<Real> x, cos, sin;

  Problem(const Shape& of, RopeStyle style, std::uint64_t seed)
      : shape(of),
        spec{style, of.rotary_dim},
        x(of.heads * of.rows, of.columns, RowLayout::tight),
        cos(of.rows, of.rotary_dim / 2, RowLayout::tight),
        sin(of.rows, of.rotary_dim / 2, RowLayout::tight) {
    Random random(seed);
    for (Guarded<Real>* tensor : {&x, &cos, &sin}) tensor->fill(random);
  }
  View<Real, 3> heads(Guarded<Real>& tensor) const {
    if (shape.heads == 0) return {tensor.data(), {0, shape.rows, shape.columns}};
    return tensor.heads(shape.heads);
  }
};

template <class Real>
Guarded<Real> run(Problem<Real>& problem, bool is_backward, tiled::Level level, RowLayout layout) {
  Guarded<Real> y(problem.shape.heads * problem.shape.rows, problem.shape.columns, layout);
  const auto turn = is_backward ? tiled::rope_backward<Real> : tiled::rope_forward<Real>;
  turn(problem.spec, problem.heads(problem.x), problem.cos.view(), problem.sin.view(), problem.heads(y),
       level);
  return y;
}

template <class Real>
bool is_near_ref(Problem<Real>& problem, bool is_backward, Guarded<Real>& got) {
  const Shape& shape = problem.shape;
  Array<double, 3> x({shape.heads, shape.rows, shape.columns}), y(x);
  Array<double, 2> cos({shape.rows, problem.spec.pairs()}), sin(cos);
  const View<Real, 3> source = problem.heads(problem.x), result = problem.heads(got);
  for (Index h = 0; h < shape.heads; ++h) {
    for (Index i = 0; i < shape.rows; ++i) {
      for (Index d = 0; d < shape.columns; ++d) x(h, i, d) = source(h, i, d);
      for (Index k = 0; k < problem.spec.pairs(); ++k) {
        cos(i, k) = problem.cos.view()(i, k);
        sin(i, k) = problem.sin.view()(i, k);
      }
    }
  }
  (is_backward ? ref::rope_backward : ref::rope_forward)(problem.spec, x.view(), cos.view(), sin.view(),
                                                         y.view());
  const double e = gamma(2, std::numeric_limits<Real>::epsilon() / 2) + gamma(2, 0x1p-53);
  const auto is_within = [&](Index h, Index i, Index d, double bound) {
    return result(h, i, d) == y(h, i, d) || std::abs(result(h, i, d) - y(h, i, d)) <= bound;
  };
  for (Index h = 0; h < shape.heads; ++h) {
    for (Index i = 0; i < shape.rows; ++i) {
      for (Index k = 0; k < problem.spec.pairs(); ++k) {
        const Index first = problem.spec.first(k), second = problem.spec.second(k);
        const double a = std::abs(x(h, i, first)), b = std::abs(x(h, i, second));
        const double c = std::abs(cos(i, k)), s = std::abs(sin(i, k));
        if (!is_within(h, i, first, e * (a * c + b * s))) return false;
        if (!is_within(h, i, second, e * (b * c + a * s))) return false;
      }
      for (Index d = shape.rotary_dim; d < shape.columns; ++d) {
        if (!is_within(h, i, d, 0)) return false;
      }
    }
  }
  return true;
}

/// The same with large outputs, which the table of kernels takes a flag for.
template <class Real>
Guarded<Real> run_past_caches(Problem<Real>& problem, tiled::Level level, RowLayout layout) {
  const Shape& shape = problem.shape;
  Guarded<Real> y(shape.heads * shape.rows, shape.columns, layout);
  tiled::row_kernels_for<Real>(level).rope(
      {problem.spec,
       shape.columns,
       1,
       {problem.x.data(), shape.rows * problem.x.stride(), problem.x.stride()},
       {problem.cos.data(), problem.cos.stride()},
       {problem.sin.data(), problem.sin.stride()},
       {y.data(), shape.rows * y.stride(), y.stride()},
       true},
      0, shape.heads, 0, shape.rows);
  return y;
}

template <class Real>
void check_shapes() {
  std::uint64_t seed = 0;
  for (const tiled::Level level : tiled::available_levels()) {
    const Index w = (level == tiled::Level::v2   ? 16
                     : level == tiled::Level::v3 ? 32
                                                 : 64) /
                    static_cast<Index>(sizeof(Real));
    for (const Index pairs : {Index{0}, Index{1}, w - 1, w, w + 1, 2 * w, 5 * w + 3}) {
      for (const Index copied : {Index{0}, Index{1}, w, 2 * w + 1}) {
        for (const auto& [heads, rows] : {std::pair<Index, Index>{1, 1}, {0, 3}, {3, 0}, {2, 7}, {33, 3}}) {
          for (const RopeStyle style : {RopeStyle::half, RopeStyle::interleaved}) {
            Problem<Real> problem({heads, rows, 2 * pairs, 2 * pairs + copied}, style, ++seed);
            INFO(tiled::name_of(level) << ", " << heads << " x " << rows << ", " << pairs << " pairs, "
                                       << copied << " columns more, seed " << seed);
            for (const bool is_backward : {false, true}) {
              Guarded<Real> tight = run(problem, is_backward, level, RowLayout::tight);
              CHECK(is_near_ref(problem, is_backward, tight));
              Guarded<Real> aligned = run(problem, is_backward, level, RowLayout::aligned);
              CHECK(tight.has_bits_of(aligned));
              CHECK((tight.gaps_are_untouched() && aligned.gaps_are_untouched()));
              for (const RowLayout layout : {RowLayout::tight, RowLayout::aligned}) {
                if (is_backward) continue;
                Guarded<Real> large = run_past_caches(problem, level, layout);
                CHECK(large.has_bits_of(tight));
                CHECK(large.gaps_are_untouched());
              }
            }
          }
        }
      }
    }
  }
}

template <class Real>
void check_threads() {
  const int threads_before = omp_get_max_threads();
  for (const RopeStyle style : {RopeStyle::half, RopeStyle::interleaved}) {
    Problem<Real> problem({70, 90, 38, 41}, style, 1);
    for (const tiled::Level level : tiled::available_levels()) {
      omp_set_num_threads(1);
      Guarded<Real> one = run(problem, false, level, RowLayout::tight);
      CHECK(is_near_ref(problem, false, one));
      for (const int threads : {2, 3}) {
        omp_set_num_threads(threads);
        CHECK(run(problem, false, level, RowLayout::tight).has_bits_of(one));
      }
    }
  }
  omp_set_num_threads(threads_before);
}

}  // namespace

TEST_CASE("tiled RoPE is within its rounding errors of ref for every shape and writes nothing else") {
  check_shapes<float>();
  check_shapes<double>();
}

TEST_CASE("the bits of tiled RoPE do not depend on the number of threads") {
  check_threads<float>();
  check_threads<double>();
}
