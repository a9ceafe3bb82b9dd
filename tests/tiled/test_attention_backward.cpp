// tiled's backward pass against ref, both on the same o and lse, at every instruction set level.
#include <omp.h>

#include <cmath>
#include <limits>

#include "tests/catch.hpp"
#include "tests/support/random.hpp"
#include "tests/tiled/gradient_rounding.hpp"
#include "tiled/attention.hpp"

namespace {

using namespace attest;
using namespace attest::test;

/// o and lse, exact in float, so that float and double start from the same.
SavedTensors saved_in_float(const AttentionProblem& problem) {
  const ReferenceForward forward = reference_forward(problem);
  SavedTensors saved{forward.value.o, forward.value.lse};
  for (Index n = 0; n < saved.o.size(); ++n) saved.o.data()[n] = static_cast<float>(saved.o.data()[n]);
  for (Index n = 0; n < saved.lse.size(); ++n) saved.lse.data()[n] = static_cast<float>(saved.lse.data()[n]);
  return saved;
}

template <class Real>
struct Converted {
  Array<Real, 3> q, k, v, mask, bias, o, d_o;
  Array<Real, 1> slopes, sink;
  Array<Real, 2> lse;

  template <int Rank>
  static Array<Real, Rank> of(const Array<double, Rank>& x) {
    typename View<Real, Rank>::Extents extents;
    for (int r = 0; r < Rank; ++r) extents[r] = x.extent(r);
    Array<Real, Rank> result(extents);
    for (Index n = 0; n < x.size(); ++n) result.data()[n] = static_cast<Real>(x.data()[n]);
    return result;
  }
};

template <class Real>
GradientTensors run_tiled_backward(const AttentionProblem& problem, const SavedTensors& saved,
                                   tiled::Level level) {
  using C = Converted<Real>;
  const C x{C::of(problem.q),    C::of(problem.k), C::of(problem.v),   C::of(problem.mask),
            C::of(problem.bias), C::of(saved.o),   C::of(problem.d_o), C::of(problem.alibi_slopes),
            C::of(problem.sink), C::of(saved.lse)};
  const tiled::Inputs<Real> in{x.q.view(),    x.k.view(),      x.v.view(),    x.mask.view(),
                               x.bias.view(), x.slopes.view(), x.sink.view(), problem.past};
  const tiled::Saved<Real> given{x.o.view(), x.lse.view(), x.d_o.view()};
  GradientTensors result(problem.inputs());
  constexpr Real unwritten = std::numeric_limits<Real>::quiet_NaN();
  const auto blank = [](const Array<double, 3>& like) {
    return Array<Real, 3>({like.extent(0), like.extent(1), like.extent(2)}, unwritten);
  };
  Array<Real, 3> dq = blank(result.dq), dk = blank(result.dk), dv = blank(result.dv), ds = blank(result.ds);
  Array<Real, 1> dsink({result.dsink.size()}, unwritten);
  const tiled::Gradients<Real> out{dq.view(), dk.view(), dv.view(), ds.view(), dsink.view()};
  tiled::attention_backward<Real>(problem.spec, {&in, 1}, {&given, 1}, {&out, 1}, level);
  const auto copy = [](auto& to, const auto& from) {
    for (Index n = 0; n < to.size(); ++n) to.data()[n] = static_cast<double>(from.data()[n]);
  };
  copy(result.dq, dq);
  copy(result.dk, dk);
  copy(result.dv, dv);
  copy(result.ds, ds);
  copy(result.dsink, dsink);
  return result;
}

void check_against_ref(const AttentionProblem& problem) {
  const SavedTensors saved = saved_in_float(problem);
  const AttentionInputs in = problem.inputs();
  const GradientTensors want = reference_backward(problem, saved);
  GradientTensors single(in), twice(in);
  add_bounds(problem, saved, 0x1p-53, 0x1p-1074, 0x1p-1022, twice);
  add_bounds(problem, saved, 0x1p-53, 0x1p-1074, 0x1p-1022, twice);
  add_bounds(problem, saved, 0x1p-24, 0x1p-149, 0x1p-126, single);
  add_bounds(problem, saved, 0x1p-53, 0x1p-1074, 0x1p-1022, single);
  for (Index h = 0; h < want.dsink.size(); ++h) single.dsink(h) += 0x1p-24 * std::abs(want.dsink(h));
  for (const tiled::Level level : tiled::available_levels()) {
    INFO(tiled::name_of(level) << ", " << problem.name());
    CHECK(disagreement(run_tiled_backward<float>(problem, saved, level), want, single) == "");
    CHECK(disagreement(run_tiled_backward<double>(problem, saved, level), want, twice) == "");
  }
}

template <int Rank>
bool same_bits(const Array<double, Rank>& a, const Array<double, Rank>& b) {
  for (Index n = 0; n < a.size(); ++n) {
    if (!(a.data()[n] == b.data()[n])) return false;
  }
  return a.size() == b.size();
}

}  // namespace

TEST_CASE("tiled gradients are within their rounding errors of ref for every shape, diagonal and window") {
  const AttentionShape shapes[] = {{1, 1, 1, 1, 1, 1},      {2, 1, 15, 95, 16, 16},  {4, 2, 17, 97, 7, 5},
                                   {1, 1, 63, 121, 8, 24},  {1, 1, 82, 217, 33, 16}, {3, 3, 5, 0, 4, 3},
                                   {2, 1, 150, 77, 16, 16}, {1, 1, 7, 3, 1, 2}};
  std::uint64_t seed = 3000;
  for (const AttentionShape& shape : shapes) {
    for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
      for (const auto& [left, right] : {std::pair<Index, Index>{-1, -1}, {20, -1}, {0, 5}, {130, 0}}) {
        Random random(++seed);
        const EmptyRow empty_row = std::array{EmptyRow::zero, EmptyRow::nan, EmptyRow::mean_v}[seed % 3];
        const AttentionSpec spec{causal, random.one_in(2) ? 0.25 : -0.3, left,
                                 right,  random.one_in(3) ? 1.5 : 0,     empty_row};
        const AttentionExtras extras{random.one_in(4), random.one_in(4), random.one_in(4), random.one_in(4)};
        check_against_ref(random_problem(shape, spec, extras, random.below(shape.sk + 1), seed));
      }
    }
  }
}

TEST_CASE(
    "the bits of tiled gradients do not depend on the number of threads, also where parts are added up") {
  // 64 or more panels of at most 5 vectors of 16 rows: several parts at every level.
  const AttentionProblem problem =
      random_problem({1, 1, 5200, 130, 8, 8}, plain_spec(Causal::none, 0.25), {}, 0, 4000);
  const SavedTensors saved = saved_in_float(problem);
  const int threads_before = omp_get_max_threads();
  for (const tiled::Level level : tiled::available_levels()) {
    omp_set_num_threads(1);
    const GradientTensors one = run_tiled_backward<float>(problem, saved, level);
    for (const int threads : {2, 3}) {
      omp_set_num_threads(threads);
      const GradientTensors many = run_tiled_backward<float>(problem, saved, level);
      CHECK(same_bits(many.dq, one.dq));
      CHECK(same_bits(many.dk, one.dk));
      CHECK(same_bits(many.dv, one.dv));
    }
  }
  omp_set_num_threads(threads_before);
  check_against_ref(problem);
}
