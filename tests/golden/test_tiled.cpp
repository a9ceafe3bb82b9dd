// tiled's attention against the golden files: each result within the bound of its own arithmetic.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "tests/catch.hpp"
#include "tests/golden/golden_values.hpp"
#include "tests/tiled/attention_rounding.hpp"
#include "tests/tiled/backward_rounding.hpp"
#include "verify/op.hpp"
#include "verify/ops/attention/case.hpp"

using namespace attest;
using test::ForwardTensors;
using test::GradientTensors;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <int Rank>
Array<double, Rank> copy_of(View<const double, Rank> x) {
  typename View<double, Rank>::Extents extents;
  for (int r = 0; r < Rank; ++r) extents[r] = x.extent(r);
  Array<double, Rank> result(extents);
  for (Index i = 0; x && i < x.extent(0); ++i) {
    if constexpr (Rank == 1) {
      result(i) = x(i);
    } else {
      const Array<double, Rank - 1> part = copy_of<Rank - 1>(x.slice(i));
      std::copy(part.data(), part.data() + part.size(), result.data() + i * part.size());
    }
  }
  return result;
}

test::AttentionProblem problem_of(const AttentionCase& attention, const Sequence& s) {
  test::AttentionProblem x;
  x.spec = attention.spec;
  x.q = copy_of(s.in.q);
  x.k = copy_of(s.in.k);
  x.v = copy_of(s.in.v);
  x.mask = copy_of(s.in.mask);
  x.bias = copy_of(s.in.bias);
  x.alibi_slopes = copy_of(s.in.alibi_slopes);
  x.sink = copy_of(s.in.sink);
  x.past = s.in.past;
  return x;
}

bool is_exact_in_float(const Case& c) {
  for (const auto& [name, tensor] : c.in) {
    if (tensor.dtype == DType::float64) return false;
  }
  return true;
}

/// The golden values of a sequence, as [Hq, Sq, E] and [Hq, Sq].
Array<double, 3> golden_o(const Case& c, const AttentionCase& attention, const Sequence& s) {
  const std::vector<double> values = test::all_golden_values(c, "o");
  return copy_of<3>(attention.like_o(values.data(), s));
}
Array<double, 2> golden_rows(const Case& c, const AttentionCase& attention, const Sequence& s,
                             const std::string& output) {
  const std::vector<double> values = test::all_golden_values(c, output);
  const Array<double, 3> copies =
      copy_of<3>(attention.like_rows(values.data(), attention.rows_tensor(DType::float64), s));
  Array<double, 2> rows({copies.extent(0), copies.extent(1)});
  std::copy(copies.data(), copies.data() + copies.size(), rows.data());
  return rows;
}

/// Wherever the case has no golden values, `got` itself.
ForwardTensors golden_forward(const Case& c, const AttentionCase& attention, const Sequence& s,
                              const ForwardTensors& got) {
  ForwardTensors want = got;
  want.o = golden_o(c, attention, s);
  if (test::has_values(c, "m")) want.m = golden_rows(c, attention, s, "m");
  if (test::has_values(c, "l")) want.l = golden_rows(c, attention, s, "l");
  if (attention.lse_unit != 1) return want;
  want.lse = golden_rows(c, attention, s, "lse");
  for (Index n = 0; n < want.lse.size(); ++n) {
    if (std::isinf(want.lse.data()[n])) want.lse.data()[n] = -infinity;  // whatever lse_empty says
  }
  return want;
}

template <int Rank>
void add_golden_error(Array<double, Rank>& bound, const Array<double, Rank>& golden) {
  for (Index n = 0; n < bound.size(); ++n) bound.data()[n] += test::golden_error(golden.data()[n]);
}

/// reference_forward counts ref's error beside tiled's: the same again in double, which is taken off.
void check_forward(const Case& c, const AttentionCase& attention, const Sequence& s) {
  const test::AttentionProblem problem = problem_of(attention, s);
  const test::ReferenceForward reference = reference_forward(problem);
  const auto check = [&](const ForwardTensors& got, ForwardTensors bound) {
    const ForwardTensors want = golden_forward(c, attention, s, got);
    const auto finish = [&](auto& of, const auto& twice, const auto& golden) {
      for (Index n = 0; n < of.size(); ++n) of.data()[n] -= twice.data()[n] / 2;
      add_golden_error(of, golden);
    };
    finish(bound.o, reference.bound_double.o, want.o);
    finish(bound.m, reference.bound_double.m, want.m);
    finish(bound.l, reference.bound_double.l, want.l);
    finish(bound.lse, reference.bound_double.lse, want.lse);
    CHECK(first_disagreement(got, want, bound) == "");
  };
  for (const tiled::Level level : tiled::available_levels()) {
    INFO(c.object("") << ", " << tiled::name_of(level));
    check(test::run_tiled<double>(problem, level), reference.bound_double);
    if (is_exact_in_float(c)) check(test::run_tiled<float>(problem, level), reference.bound_float);
  }
}

void check_backward(const Case& c, const AttentionCase& attention, const Sequence& s, bool is_single) {
  test::AttentionProblem problem = problem_of(attention, s);
  problem.d_o = copy_of<3>(attention.like_o(c.in.at("do").values.data(), s));
  const test::SavedTensors saved(golden_o(c, attention, s), golden_rows(c, attention, s, "lse"));
  GradientTensors bound(problem.inputs());
  // o and lse are rounded to double, and to float once more.
  if (is_single) {
    add_bounds(problem, saved, 0x1p-24, 0x1p-149, 0x1p-126, bound, 0x1p-24 + 0x1p-52);
  } else {
    add_bounds(problem, saved, 0x1p-53, 0x1p-1074, 0x1p-1022, bound, 0x1p-53);
  }
  const auto all = [&](const std::string& name) { return test::all_golden_values(c, name); };
  const std::vector<double> dq = all("dq"), dk = all("dk"), dv = all("dv");
  for (const tiled::Level level : tiled::available_levels()) {
    INFO(c.object("") << ", " << tiled::name_of(level) << (is_single ? ", float" : ", double"));
    const GradientTensors got = is_single ? test::run_tiled_backward<float>(problem, saved, level)
                                          : test::run_tiled_backward<double>(problem, saved, level);
    GradientTensors want = got, allowed = bound;
    const auto take = [](Array<double, 3>& to, View<const double, 3> from, Index first) {
      for (Index a = 0; a < from.extent(0); ++a) {
        for (Index b = 0; b < from.extent(1); ++b) {
          for (Index d = 0; d < from.extent(2); ++d) to(a, first + b, d) = from(a, b, d);
        }
      }
    };
    take(want.dq, attention.like_q(dq.data(), s), 0);
    take(want.dk, attention.like_k(dk.data(), s), s.in.past);  // the past has no golden gradients
    take(want.dv, attention.like_v(dv.data(), s), s.in.past);
    if (c.output("dbias") && c.input("bias")->size() == want.ds.size()) {
      const std::vector<double> dbias = all("dbias");
      take(want.ds, attention.like_bias(dbias.data(), s), 0);
    }
    if (c.output("dsink")) {
      const std::vector<double> dsink = all("dsink");
      for (Index h = 0; h < want.dsink.size(); ++h) {
        want.dsink(h) = dsink[h];
        if (is_single) allowed.dsink(h) += 0x1p-24 * std::abs(dsink[h]);  // the last rounding
      }
      add_golden_error(allowed.dsink, want.dsink);
    }
    add_golden_error(allowed.dq, want.dq);
    add_golden_error(allowed.dk, want.dk);
    add_golden_error(allowed.dv, want.dv);
    add_golden_error(allowed.ds, want.ds);
    CHECK(disagreement(got, want, allowed) == "");
  }
}

/// Gradients of verify are those of o and lse rounded to double, golden ones of the exact o and lse.
void check_double_double(const Case& c, const AttentionCase& attention, const Sequence& s) {
  const std::vector<Expected> expected = find_op(c).read(c)->expect([](double) {});
  test::AttentionProblem problem = problem_of(attention, s);
  problem.d_o = copy_of<3>(attention.like_o(c.in.at("do").values.data(), s));
  const test::SavedTensors saved(golden_o(c, attention, s), golden_rows(c, attention, s, "lse"));
  GradientTensors bound(problem.inputs());
  add_bounds(problem, saved, 0, 0, 0, bound, 0x1p-53);
  const auto check = [&](const std::string& name, const Array<double, 3>& by_rounding, Index first,
                         auto like) {
    const Expected& e = *std::ranges::find(expected, name, &Expected::output);
    REQUIRE(!e.double_error.empty());
    const std::vector<double> golden = test::all_golden_values(c, name);
    const View<const double, 3> want = like(golden.data());
    Index wrong = 0;
    for (Index h = 0; h < want.extent(0); ++h) {
      for (Index row = 0; row < want.extent(1); ++row) {
        for (Index d = 0; d < want.extent(2); ++d) {
          const Index at = &want(h, row, d) - golden.data();
          const double error =
              e.value_error[at] + test::golden_error(golden[at]) + by_rounding(h, first + row, d);
          wrong += !(std::abs(e.value[at] - golden[at]) <= error);
        }
      }
    }
    INFO(c.object("out/" + name));
    CHECK(wrong == 0);
  };
  check("dq", bound.dq, 0, [&](const double* data) { return attention.like_q(data, s); });
  check("dk", bound.dk, s.in.past, [&](const double* data) { return attention.like_k(data, s); });
  check("dv", bound.dv, s.in.past, [&](const double* data) { return attention.like_v(data, s); });
}

/// Checks every case, and returns the names of those whose scores are so large that the derivation of the
/// bounds does not hold.
template <class Check>
std::set<std::string> check_all(bool backward, Check check) {
  std::set<std::string> refused;
  for (const Case& c : test::golden_cases()) {
    if (c.op != "attention" || !test::has_values(c, "o")) continue;
    if ((c.input("do") != nullptr) != backward) continue;
    const AttentionCase attention(c);
    for (const Sequence& s : attention.sequences) {
      if (s.queries == 0) continue;
      try {
        check(c, attention, s);
      } catch (const std::logic_error&) {
        refused.insert(c.name);
      }
    }
  }
  return refused;
}

}  // namespace

TEST_CASE("tiled attention is within its rounding errors of the goldens") {
  // Scores of thousands have no bounds in float.
  CHECK(check_all(false, check_forward) ==
        std::set<std::string>{"naive_overflow", "scores_overflow_float16"});
}

TEST_CASE("tiled gradients are within their rounding errors of the goldens") {
  const auto check = [](const Case& c, const AttentionCase& attention, const Sequence& s) {
    check_backward(c, attention, s, false);
    if (is_exact_in_float(c)) check_backward(c, attention, s, true);
  };
  CHECK(check_all(true, check) == std::set<std::string>{});
}

TEST_CASE(
    "double-double gradients are off the goldens by what rounding o and lse does, and their own error") {
  Index checked = 0;
  const auto check = [&](const Case& c, const AttentionCase& attention, const Sequence& s) {
    if (is_exact_in_float(c)) return;
    check_double_double(c, attention, s);
    ++checked;
  };
  CHECK(check_all(true, check) == std::set<std::string>{});
  CHECK(checked > 0);
}
