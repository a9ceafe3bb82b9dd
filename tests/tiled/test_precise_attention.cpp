// Double-double attention against 113-bit arithmetic: no error exceeds what is certified, at every level.
#include "tiled/precise_attention.hpp"

#include <omp.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/catch.hpp"
#include "tests/oracle/attention_problem.hpp"
#include "tests/support/random.hpp"
#include "tests/tiled/quad_attention.hpp"

namespace {

using namespace attest;
using namespace attest::test;

constexpr double infinity = std::numeric_limits<double>::infinity();

template <int Rank>
struct Wide {
  Array<double, Rank> hi, lo;

  explicit Wide(typename Array<double, Rank>::Extents extents) : hi(extents), lo(extents) {}
  tiled::WideView<Rank> view() { return {hi.view(), lo.view()}; }
  Quad at(Index n) const { return Quad(hi.data()[n]) + lo.data()[n]; }
};

struct Forward {
  Wide<3> o;
  Wide<2> lse, m, l;
  Array<double, 3> o_error;
  Array<double, 2> row_error;

  Forward(const AttentionProblem& problem, tiled::Level level)
      : o({problem.q.extent(0), problem.q.extent(1), problem.v.extent(2)}),
        lse({problem.q.extent(0), problem.q.extent(1)}),
        m(lse),
        l(lse),
        o_error(o.hi),
        row_error(lse.hi) {
    const AttentionInputs in = problem.inputs();
    const tiled::PreciseOutputs out{o.view(), lse.view(),     m.view(),
                                    l.view(), o_error.view(), row_error.view()};
    tiled::precise_attention_forward(problem.spec, {&in, 1}, {&out, 1}, level);
  }
};

struct Backward {
  Wide<3> dq, dk, dv, ds;
  Wide<1> dsink;
  Array<double, 3> dq_error, dk_error, dv_error, ds_error;
  Array<double, 1> dsink_error;

  Backward(const AttentionProblem& problem, const tiled::PreciseSaved& saved, tiled::Level level)
      : dq({problem.q.extent(0), problem.q.extent(1), problem.q.extent(2)}),
        dk({problem.k.extent(0), problem.k.extent(1), problem.k.extent(2)}),
        dv({problem.v.extent(0), problem.v.extent(1), problem.v.extent(2)}),
        ds({problem.q.extent(0), problem.q.extent(1), problem.k.extent(1)}),
        dsink({problem.q.extent(0)}),
        dq_error(dq.hi),
        dk_error(dk.hi),
        dv_error(dv.hi),
        ds_error(ds.hi),
        dsink_error(dsink.hi) {
    const AttentionInputs in = problem.inputs();
    const tiled::PreciseGradients out{dq.view(),       dk.view(),         dv.view(),       ds.view(),
                                      dsink.view(),    dq_error.view(),   dk_error.view(), dv_error.view(),
                                      ds_error.view(), dsink_error.view()};
    tiled::precise_attention_backward(problem.spec, {&in, 1}, {&saved, 1}, {&out, 1}, level);
  }
};

template <int Rank>
bool same_bits(const Wide<Rank>& a, const Wide<Rank>& b) {
  const auto bytes = static_cast<std::size_t>(a.hi.size()) * sizeof(double);
  return std::memcmp(a.hi.data(), b.hi.data(), bytes) == 0 &&
         std::memcmp(a.lo.data(), b.lo.data(), bytes) == 0;
}

/// The largest |got - want| / error; infinite where there is no number. The 113-bit sums have errors of
/// their own, 2^-9 of what is certified.
template <int Rank>
double worst(const Wide<Rank>& got, const Array<Quad, Rank>& want, const Array<double, Rank>& error) {
  double result = 0;
  for (Index n = 0; n < got.hi.size(); ++n) {
    const double off = static_cast<double>(absolute(got.at(n) - want.data()[n]));
    const double share = off == 0 ? 0 : off / error.data()[n];
    result = share <= result ? result : std::isnan(share) ? infinity : share;
  }
  return result;
}

/// Errors of lse, m and l in row_error, where a row sees a key.
double worst_row(const Forward& got, const QuadAttention& want) {
  double result = 0;
  for (Index n = 0; n < got.lse.hi.size(); ++n) {
    const Quad l = want.l.data()[n];
    if (l == 0) {
      const bool is_empty = got.lse.hi.data()[n] == -infinity && got.m.hi.data()[n] == -infinity &&
                            got.l.hi.data()[n] == 0 && got.l.lo.data()[n] == 0;
      result = is_empty ? result : infinity;
      continue;
    }
    const Quad off[] = {absolute(got.lse.at(n) - want.lse.data()[n]),
                        absolute(got.m.at(n) - want.m.data()[n]), absolute(got.l.at(n) - l) / (2 * l)};
    for (const Quad x : off) {
      const double share = static_cast<double>(x) / got.row_error.data()[n];
      result = share <= result ? result : std::isnan(share) ? infinity : share;
    }
  }
  return result;
}

void check_forward(const AttentionProblem& problem) {
  const QuadAttention want = quad_attention(problem.spec, problem.inputs());
  for (const tiled::Level level : tiled::available_levels()) {
    INFO(tiled::name_of(level) << ", " << problem.name());
    const Forward got(problem, level);
    CHECK(worst(got.o, want.o, got.o_error) <= 1);
    CHECK(worst_row(got, want) <= 1);
  }
}

void check_backward(const AttentionProblem& problem) {
  const QuadAttention forward = quad_attention(problem.spec, problem.inputs());
  const QuadGradients want =
      quad_gradients(problem.spec, problem.inputs(), forward.o, forward.lse, problem.d_o.view());
  Wide<3> o({problem.q.extent(0), problem.q.extent(1), problem.v.extent(2)});
  Wide<2> lse({problem.q.extent(0), problem.q.extent(1)});
  const auto split = [](Quad x, double& hi, double& lo) {
    hi = static_cast<double>(x);
    lo = static_cast<double>(x - hi);
  };
  for (Index n = 0; n < o.hi.size(); ++n) split(forward.o.data()[n], o.hi.data()[n], o.lo.data()[n]);
  for (Index n = 0; n < lse.hi.size(); ++n) split(forward.lse.data()[n], lse.hi.data()[n], lse.lo.data()[n]);
  for (const tiled::Level level : tiled::available_levels()) {
    INFO(tiled::name_of(level) << ", " << problem.name());
    const Backward got(problem, {o.hi.view(), o.lo.view(), lse.hi.view(), lse.lo.view(), problem.d_o.view()},
                       level);
    CHECK(worst(got.dq, want.dq, got.dq_error) <= 1);
    CHECK(worst(got.dk, want.dk, got.dk_error) <= 1);
    CHECK(worst(got.dv, want.dv, got.dv_error) <= 1);
    CHECK(worst(got.ds, want.ds, got.ds_error) <= 1);
    CHECK(worst(got.dsink, want.dsink, got.dsink_error) <= 1);
  }
}

/// All 53 digits, where the generator of problems gives 21.
void fill_all_digits(AttentionProblem& problem) {
  Random random(problem.seed + 1);
  for (Array<double, 3>* x : {&problem.q, &problem.k, &problem.v, &problem.d_o}) {
    for (Index n = 0; n < x->size(); ++n) {
      x->data()[n] *= 1 + 0x1p-20 * random.symmetric() + 0x1p-40 * random.symmetric();
    }
  }
}

}  // namespace

TEST_CASE("double-double attention is within its certified error for every shape, diagonal and window") {
  // On both sides of panels (4 to 16) and tiles (64).
  const AttentionShape shapes[] = {{1, 1, 1, 1, 1, 1},   {2, 1, 15, 63, 16, 5}, {1, 1, 16, 64, 64, 64},
                                   {4, 2, 17, 65, 7, 5}, {1, 1, 33, 130, 8, 9}, {3, 3, 5, 0, 4, 3},
                                   {1, 1, 40, 7, 3, 2}};
  std::uint64_t seed = 5000;
  for (const AttentionShape& shape : shapes) {
    for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
      for (const auto& [left, right] : {std::pair<Index, Index>{-1, -1}, {20, -1}, {0, 5}}) {
        Random random(++seed);
        const EmptyRow empty_row = random.one_in(2) ? EmptyRow::zero : EmptyRow::mean_v;
        const AttentionSpec spec{causal,
                                 random.one_in(2) ? 0.3 : -0.7,
                                 left,
                                 right,
                                 random.one_in(3) ? 1.3 : 0,
                                 empty_row,
                                 seed % 2 == 0 ? Alibi::distance : Alibi::position};
        const AttentionExtras extras{random.one_in(4), random.one_in(4), random.one_in(4), random.one_in(4)};
        AttentionProblem problem = random_problem(shape, spec, extras, random.below(shape.sk + 1), seed);
        fill_all_digits(problem);
        check_forward(problem);
      }
    }
  }
}

TEST_CASE("double-double attention is within its certified error for every combination of options") {
  std::uint64_t seed = 6000;
  for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
    for (int options = 0; options < 32; ++options) {
      const AttentionSpec spec{causal, 0.3, -1, -1, options & 16 ? 1.3 : 0, EmptyRow::zero};
      const AttentionExtras extras{(options & 1) != 0, (options & 2) != 0, (options & 4) != 0,
                                   (options & 8) != 0};
      AttentionProblem problem = random_problem({4, 2, 9, 70, 6, 5}, spec, extras, options % 3, ++seed);
      fill_all_digits(problem);
      check_forward(problem);
    }
  }
}

TEST_CASE("double-double gradients are within their certified errors") {
  std::uint64_t seed = 7000;
  for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
    for (int options = 0; options < 16; ++options) {
      const AttentionSpec spec{causal, 0.3, options & 1 ? 30 : -1, -1, options & 8 ? 1.3 : 0, EmptyRow::zero};
      const AttentionExtras extras{(options & 2) != 0, (options & 4) != 0, false, true};
      AttentionProblem problem = random_problem({4, 2, 19, 70, 6, 5}, spec, extras, 20, ++seed);
      fill_all_digits(problem);
      check_backward(problem);
    }
  }
}

TEST_CASE("sums that cancel keep what is certified, relative to their terms and not to their sum") {
  AttentionProblem problem = random_problem({1, 1, 9, 70, 32, 8}, plain_spec(Causal::none, 1), {}, 0, 8000);
  fill_all_digits(problem);
  // q.k: pairs of terms of 2^60 that cancel, and a rest of about 1; values of alternating sign.
  for (Index d = 0; d < 32; d += 2) {
    for (Index i = 0; i < 9; ++i) {
      const double small = problem.q(0, i, d) * 0x1p-32;
      problem.q(0, i, d) = 0x1p30 * problem.q(0, i, d);
      problem.q(0, i, d + 1) = -problem.q(0, i, d) + small;
    }
    for (Index j = 0; j < 70; ++j) {
      problem.k(0, j, d) *= 0x1p30;
      problem.k(0, j, d + 1) = problem.k(0, j, d);
    }
  }
  for (Index j = 0; j < 70; ++j) {
    for (Index e = 0; e < 8; ++e) problem.v(0, j, e) = (j % 2 ? -1 : 1) * (0x1p40 + problem.v(0, j, e));
  }
  check_forward(problem);
  check_backward(problem);
  const Forward x(problem, tiled::fastest_level());
  for (Index n = 0; n < x.row_error.size(); ++n) CHECK(x.row_error.data()[n] < 0x1p-26);  // 2^-104 2^66 400
}

TEST_CASE("a wide range of sizes within one sum keeps what is certified relative to its terms") {
  AttentionProblem problem = random_problem({1, 1, 5, 70, 16, 4}, plain_spec(Causal::none, 1), {}, 0, 8100);
  fill_all_digits(problem);
  for (Index d = 0; d < 16; ++d) {  // |q| and |k| of 2^+-80, their products of about 1
    for (Index i = 0; i < 5; ++i) problem.q(0, i, d) = std::ldexp(problem.q(0, i, d), d % 2 ? 80 : -80);
    for (Index j = 0; j < 70; ++j) problem.k(0, j, d) = std::ldexp(problem.k(0, j, d), d % 2 ? -80 : 80);
  }
  for (Index j = 0; j < 70; ++j) problem.v(0, j, 1) = std::ldexp(problem.v(0, j, 1), static_cast<int>(j) * 4);
  check_forward(problem);
  check_backward(problem);
}

TEST_CASE("certified errors of scores of about 1 are below 2^-90, and errors below a 32nd of that") {
  AttentionProblem problem =
      random_problem({1, 1, 40, 500, 64, 4}, plain_spec(Causal::none, 0.125), {}, 0, 8200);
  fill_all_digits(problem);
  const QuadAttention want = quad_attention(problem.spec, problem.inputs());
  for (const tiled::Level level : tiled::available_levels()) {
    const Forward x(problem, level);
    for (Index n = 0; n < x.row_error.size(); ++n) CHECK(x.row_error.data()[n] < 0x1p-90);
    for (Index n = 0; n < x.o_error.size(); ++n) CHECK(x.o_error.data()[n] < 0x1p-90);
    CHECK(worst(x.o, want.o, x.o_error) <= 1.0 / 32);
    CHECK(worst_row(x, want) <= 1.0 / 32);
  }
}

TEST_CASE("scores of several hundreds, and biases that hide keys with huge numbers, keep the row's sum") {
  AttentionProblem problem =
      random_problem({2, 1, 9, 140, 16, 4}, plain_spec(Causal::none, 40), {.sink = true}, 0, 8300);
  fill_all_digits(problem);
  check_forward(problem);
  check_backward(problem);

  problem = random_problem({1, 1, 6, 140, 8, 4}, plain_spec(Causal::none, 0.5), {.bias = true}, 0, 8301);
  fill_all_digits(problem);
  const double huge[] = {-1e9, -1e30, -std::numeric_limits<double>::max(), 1e9};
  for (Index i = 0; i < 4; ++i) {
    for (Index j = 0; j < 140; ++j) problem.bias(0, i, j) = huge[i];
  }
  for (Index j = 0; j < 140; ++j) problem.bias(0, 4, j) = j % 3 ? 0 : -1e9;
  check_forward(problem);
  for (const tiled::Level level : tiled::available_levels()) {  // the scores' low parts still differ
    const Forward x(problem, level);
    CHECK((x.l.hi(0, 2) >= 1 && x.l.hi(0, 2) <= 140));
    CHECK(x.m.hi(0, 2) == -std::numeric_limits<double>::max());
  }
}

TEST_CASE("empty rows have the outputs and gradients that the spec gives them") {
  for (const EmptyRow empty_row : {EmptyRow::zero, EmptyRow::nan, EmptyRow::mean_v}) {
    AttentionSpec spec = plain_spec(Causal::bottom_right, 0.5);
    spec.empty_row = empty_row;
    AttentionProblem problem = random_problem({1, 1, 20, 12, 4, 3}, spec, {}, 0, 8400);
    for (const tiled::Level level : tiled::available_levels()) {
      const Forward x(problem, level);
      const Backward dx(problem,
                        {x.o.hi.view(), x.o.lo.view(), x.lse.hi.view(), x.lse.lo.view(), problem.d_o.view()},
                        level);
      for (Index i = 0; i < 8; ++i) {
        Quad mean = 0;
        for (Index j = 0; j < 12; ++j) mean += Quad(problem.v(0, j, 1)) / 12;
        const double o = x.o.hi(0, i, 1);
        CHECK((empty_row == EmptyRow::zero  ? o == 0
               : empty_row == EmptyRow::nan ? std::isnan(o)
                                            : o == static_cast<double>(mean)));
        CHECK((x.lse.hi(0, i) == -infinity && x.m.hi(0, i) == -infinity && x.l.hi(0, i) == 0));
        CHECK(std::isnan(dx.dq.hi(0, i, 0)) == (empty_row == EmptyRow::nan));
        CHECK(std::isnan(dx.ds.hi(0, i, 11)) == (empty_row == EmptyRow::nan));
        if (empty_row != EmptyRow::nan) CHECK(dx.ds.hi(0, i, 11) == 0);
      }
      CHECK(x.l.hi(0, 8) > 0);
      CHECK(std::isnan(dx.dv.hi(0, 11, 0)) == (empty_row == EmptyRow::nan));
      if (empty_row != EmptyRow::mean_v) continue;
      Quad dv = 0;  // of key 11, which only the last row sees
      for (Index i = 0; i < 8; ++i) dv += Quad(problem.d_o(0, i, 2)) / 12;
      Quad weight = 0;
      for (Index d = 0; d < 4; ++d) weight += Quad(problem.q(0, 19, d)) * problem.k(0, 11, d);
      dv += quad_exp(weight * Quad(0.5) - x.lse.at(19)) * problem.d_o(0, 19, 2);
      CHECK(static_cast<double>(absolute(dx.dv.at(11 * 3 + 2) - dv)) < 0x1p-90);
    }
  }
}

TEST_CASE("the bits of double-double attention do not depend on the number of threads") {
  AttentionProblem problem = random_problem({2, 1, 150, 133, 24, 16}, plain_spec(Causal::bottom_right, 0.25),
                                            {.sink = true}, 0, 8500);
  fill_all_digits(problem);
  const int threads_before = omp_get_max_threads();
  for (const tiled::Level level : tiled::available_levels()) {
    omp_set_num_threads(1);
    const Forward one(problem, level);
    const tiled::PreciseSaved saved{one.o.hi.view(), {}, one.lse.hi.view(), {}, problem.d_o.view()};
    const Backward one_back(problem, saved, level);
    for (const int threads : {2, 3}) {
      omp_set_num_threads(threads);
      const Forward many(problem, level);
      const Backward back(problem, saved, level);
      CHECK((same_bits(many.o, one.o) && same_bits(many.lse, one.lse) && same_bits(many.l, one.l)));
      CHECK((same_bits(back.dq, one_back.dq) && same_bits(back.dk, one_back.dk)));
      CHECK((same_bits(back.dv, one_back.dv) && same_bits(back.dsink, one_back.dsink)));
    }
  }
  omp_set_num_threads(threads_before);
}

TEST_CASE("double-double attention: a NaN reaches the rows that may attend to it and no other panel") {
  AttentionProblem problem =
      random_problem({1, 1, 40, 200, 8, 8}, plain_spec(Causal::top_left, 0.25), {}, 0, 8600);
  problem.k(0, 20, 3) = std::nan("");
  problem.v(0, 20, 3) = infinity;
  for (const tiled::Level level : tiled::available_levels()) {
    const Forward x(problem, level);
    for (Index i = 20; i < 40; ++i) {
      CHECK((std::isnan(x.o.hi(0, i, 3)) && std::isnan(x.lse.hi(0, i)) && std::isnan(x.m.hi(0, i))));
    }
    for (Index i = 0; i < 16; ++i) CHECK(std::isfinite(x.o.hi(0, i, 3)));
    for (Index i = 0; i < 20; ++i) CHECK(std::isfinite(x.lse.hi(0, i)));
  }
}
