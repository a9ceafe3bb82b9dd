// ref's gradients against central differences of the oracle's forward pass, and what the backward pass
// promises.
#include <limits>
#include <string>

#include "ref/attention.hpp"
#include "tests/catch.hpp"
#include "tests/ref/attention_rounding.hpp"

namespace {

using namespace attest;
using namespace attest::test;
using oracle::Real;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// sum(o * d_o), what the gradients are gradients of, and the sum of the magnitudes of its terms.
struct Loss {
  Real value = 0, magnitude = 0;
};

Loss loss(const AttentionProblem& problem) {
  const oracle::Attention exact = oracle::attention(problem.spec, problem.inputs());
  Loss x;
  for (Index n = 0; n < exact.o.size(); ++n) {
    const Real term = exact.o.data()[n] * Real{problem.d_o.data()[n]};
    x.value += term;
    x.magnitude += std::abs(term);
  }
  return x;
}

struct Difference {
  Real value, error;
};

/// d loss / d x for an x of magnitude at most 2. h = 2^-16 changes x exactly, as x is a multiple of 2^-20.
/// D(h) = f' + c h^2 + O(h^4) gives |D(h) - f'| = |D(2h) - D(h)| / 3 up to terms in h^4 = 2^-64. Rounding
/// moves each of the two losses by 2^-64 |terms| for every rounding between the scores and the loss, fewer
/// than 2^10 of them: tens in a score and in its weight, and a sum of Hq Sq E < 100 terms. Divided by 2h,
/// that also covers the h^4 terms.
Difference central_difference(AttentionProblem& problem, double& x) {
  constexpr double h = 0x1p-16;
  const double at = x;
  const auto slope = [&](double step, Real& magnitude) {
    x = at + step;
    const Loss above = loss(problem);
    x = at - step;
    const Loss below = loss(problem);
    x = at;
    magnitude = above.magnitude + below.magnitude;
    return (above.value - below.value) / (2 * Real{step});
  };
  Real magnitude = 0;
  const Real wide = slope(2 * h, magnitude), narrow = slope(h, magnitude);
  return {narrow, std::abs(wide - narrow) + 0x1p10L * 0x1p-64L * (magnitude + 1) / h};
}

template <int Rank>
std::string first_wrong_slope(const char* name, AttentionProblem& problem, Array<double, Rank>& input,
                              const Array<double, Rank>& gradient, const Array<double, Rank>& bound) {
  for (Index n = 0; n < input.size(); ++n) {
    double& x = input.data()[n];
    if (x == -infinity) {
      if (gradient.data()[n] == 0) continue;
      return std::string(name) + " is not 0 where the bias is -inf: element " + std::to_string(n);
    }
    const Difference want = central_difference(problem, x);
    if (!agrees(gradient.data()[n], want.value, want.error + bound.data()[n])) {
      return std::string(name) + " element " + std::to_string(n) + " is " +
             std::to_string(gradient.data()[n]) + ", the loss has slope " + std::to_string(want.value) +
             " (" + problem.name() + ")";
    }
  }
  return {};
}

bool all_zero(View<const double, 1> x) {
  for (Index n = 0; n < x.extent(0); ++n) {
    if (x(n) != 0) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("the gradients of q, k, v, bias and sink are the slopes of the loss") {
  const AttentionSpec specs[] = {{Causal::none, 0.5, -1, -1, 0, EmptyRow::zero},
                                 {Causal::bottom_right, 0.75, 1, -1, 1.5, EmptyRow::zero},
                                 {Causal::top_left, -0.5, 2, 0, 0, EmptyRow::mean_v},
                                 {Causal::none, 1, 0, 1, 2, EmptyRow::mean_v}};
  std::uint64_t seed = 200;
  for (const AttentionSpec& spec : specs) {
    for (const bool sink : {false, true}) {
      AttentionProblem problem = random_problem(
          {4, 2, 4, 3, 2, 3}, spec, {.alibi = true, .bias = true, .mask = true, .sink = sink}, 1, ++seed);
      const AttentionTensors x = run_ref(problem), bound = rounding_bounds(problem, run_oracle(problem));
      CHECK(first_wrong_slope("dq", problem, problem.q, x.dq, bound.dq) == "");
      CHECK(first_wrong_slope("dk", problem, problem.k, x.dk, bound.dk) == "");
      CHECK(first_wrong_slope("dv", problem, problem.v, x.dv, bound.dv) == "");
      CHECK(first_wrong_slope("ds", problem, problem.bias, x.ds, bound.ds) == "");
      CHECK(first_wrong_slope("dsink", problem, problem.sink, x.dsink, bound.dsink) == "");
    }
  }
}

TEST_CASE("the backward pass takes lse and o as they are given") {
  AttentionProblem problem = random_problem({2, 1, 3, 4, 2, 1}, plain_spec(Causal::none, 0.5), {}, 0, 210);
  for (Array<double, 3>* ones : {&problem.v, &problem.d_o}) {
    for (Index n = 0; n < ones->size(); ++n) ones->data()[n] = 1;
  }
  const AttentionTensors right = run_ref(problem), bound = rounding_bounds(problem, run_oracle(problem));
  AttentionTensors x = right;
  const Array<double, 3> no_output({2, 3, 1});
  const auto backward = [&](double lse_shift) {
    for (Index n = 0; n < x.lse.size(); ++n) x.lse.data()[n] = right.lse.data()[n] + lse_shift;
    const Array<double, 2>& lse = x.lse;
    ref::attention_backward(problem.spec, problem.inputs(),
                            {no_output.view(), lse.view(), problem.d_o.view()},
                            {x.dq.view(), x.dk.view(), x.dv.view(), x.ds.view(), {}});
  };
  backward(0);  // o = 0 makes delta = 0, so that ds = p (do . v) = p
  for (Index n = 0; n < x.ds.size(); ++n) {
    REQUIRE(agrees(x.ds.data()[n], right.p.data()[n], 2 * bound.p.data()[n]));
  }
  const Array<double, 3> dv = x.dv;
  backward(1);  // lse + 1 rounds by 2^-52 as |lse + 1| < 4, which moves p / e by that much more
  for (Index n = 0; n < dv.size(); ++n) {
    REQUIRE(agrees(x.dv.data()[n] * std::exp(Real{1}), dv.data()[n],
                   4 * bound.dv.data()[n] + 0x1p-52 * dv.data()[n]));
  }
}

TEST_CASE("an empty row sends nothing to q and k, and to v what its convention says") {
  for (const EmptyRow empty_row : {EmptyRow::zero, EmptyRow::nan, EmptyRow::mean_v}) {
    AttentionSpec spec = plain_spec(Causal::bottom_right, 0.5);
    spec.empty_row = empty_row;
    const AttentionProblem problem =
        random_problem({1, 1, 4, 2, 2, 2}, spec, {}, 0, 211);  // rows 0 and 1 are empty
    const AttentionTensors x = run_ref(problem);
    if (empty_row == EmptyRow::nan) {
      REQUIRE(std::isnan(x.dq(0, 0, 0)));
      REQUIRE(std::isnan(x.dk(0, 1, 0)));
      REQUIRE(std::isnan(x.dv(0, 1, 0)));
    } else {
      REQUIRE(all_zero(View<const double, 1>(x.dq.view().slice(0).slice(0))));
      REQUIRE(all_zero(View<const double, 1>(x.ds.view().slice(0).slice(1))));
      const double share = empty_row == EmptyRow::mean_v ? 0.5 : 0;
      for (Index c = 0; c < 2;
           ++c) {  // row 2 sees only key 0, so key 1 has the two empty rows and its share of row 3
        const double rest = x.p(0, 3, 1) * problem.d_o(0, 3, c);
        const double want = share * (problem.d_o(0, 0, c) + problem.d_o(0, 1, c)) + rest;
        REQUIRE(agrees(x.dv(0, 1, c), want, 2 * rounding_bounds(problem, run_oracle(problem)).dv(0, 1, c)));
      }
    }
  }
}

TEST_CASE(
    "keys that no row may see can hold NaN or infinity: no bit of the results changes, and their dk, dv are "
    "0") {
  enum class Hidden { by_mask, by_causality, by_window };
  for (const Hidden hidden : {Hidden::by_mask, Hidden::by_causality, Hidden::by_window}) {
    AttentionSpec spec = plain_spec(hidden == Hidden::by_causality ? Causal::top_left : Causal::none, 0.5);
    spec.softcap = 2;
    if (hidden == Hidden::by_window)
      spec.window_left = 0;  // from key 2 on: the diagonal of row i is key i + 2
    const Index first = hidden == Hidden::by_window ? 0 : 4;  // the hidden keys are `first` and `first` + 1
    AttentionProblem problem =
        random_problem({2, 1, 4, 6, 2, 2}, spec, {.alibi = true, .sink = true}, 0, 212);
    if (hidden == Hidden::by_mask) {
      problem.mask = Array<double, 3>({2, 4, 6}, 1);
      for (Index h = 0; h < 2; ++h) {
        for (Index i = 0; i < 4; ++i) problem.mask(h, i, 4) = problem.mask(h, i, 5) = 0;
      }
    }
    const AttentionTensors clean = run_ref(problem);
    for (const double poison : {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity}) {
      for (Index j = first; j < first + 2; ++j) {
        for (Index d = 0; d < 2; ++d) problem.k(0, j, d) = problem.v(0, j, d) = poison;
      }
      const AttentionTensors x = run_ref(problem);
      REQUIRE(same(x, clean));
      for (Index j = first; j < first + 2; ++j) {
        REQUIRE(all_zero(x.dk.view().slice(0).slice(j)));
        REQUIRE(all_zero(x.dv.view().slice(0).slice(j)));
      }
    }
  }
}

TEST_CASE("a value behind a bias of minus infinity can hold NaN or infinity: no bit of the results changes") {
  AttentionProblem problem =
      random_problem({2, 1, 3, 5, 2, 2}, plain_spec(Causal::none, 0.5), {.bias = true}, 0, 213);
  for (Index h = 0; h < 2; ++h) {
    for (Index i = 0; i < 3; ++i) problem.bias(h, i, 3) = -infinity;
  }
  const AttentionTensors clean = run_ref(problem);
  for (const double poison : {std::numeric_limits<double>::quiet_NaN(), infinity}) {
    problem.v(0, 3, 0) = problem.v(0, 3, 1) = poison;
    REQUIRE(same(run_ref(problem), clean));
  }
}

TEST_CASE("a NaN in one query makes that row of o, lse and dq NaN and touches no other row") {
  for (const bool sink : {false, true}) {
    AttentionProblem problem =
        random_problem({2, 1, 4, 4, 2, 2}, plain_spec(Causal::bottom_right, 0.5), {.sink = sink}, 0, 214);
    const AttentionTensors clean = run_ref(problem);
    problem.q(1, 2, 0) = not_a_number;
    const AttentionTensors x = run_ref(problem);
    for (Index h = 0; h < 2; ++h) {
      for (Index i = 0; i < 4; ++i) {
        const bool hit = h == 1 && i == 2;
        CHECK(agrees(x.lse(h, i), hit ? not_a_number : clean.lse(h, i), 0));
        for (Index c = 0; c < 2; ++c) CHECK(agrees(x.o(h, i, c), hit ? not_a_number : clean.o(h, i, c), 0));
        for (Index d = 0; d < 2; ++d) CHECK(agrees(x.dq(h, i, d), hit ? not_a_number : clean.dq(h, i, d), 0));
      }
    }
  }
}

TEST_CASE("an empty row gives a sink of minus infinity no gradient") {
  for (const EmptyRow empty_row : {EmptyRow::zero, EmptyRow::mean_v}) {
    AttentionSpec spec = plain_spec(Causal::bottom_right, 0.5);
    spec.empty_row = empty_row;
    AttentionProblem problem = random_problem({1, 1, 3, 2, 2, 2}, spec, {.sink = true}, 0, 215);
    problem.sink(0) = -infinity;
    CHECK(run_ref(problem).dsink(0) == 0);
  }
}

TEST_CASE("each output of the backward pass may be asked for alone") {
  const AttentionProblem problem =
      random_problem({2, 1, 3, 4, 2, 3}, plain_spec(Causal::bottom_right, 0.5), {.sink = true}, 0, 216);
  const AttentionTensors all = run_ref(problem);
  AttentionTensors x(problem.inputs());
  const auto backward = [&](const ref::AttentionGradients& out) {
    ref::attention_backward(problem.spec, problem.inputs(),
                            {all.o.view(), all.lse.view(), problem.d_o.view()}, out);
  };
  backward({x.dq.view(), {}, {}, {}, {}});
  backward({{}, x.dk.view(), {}, {}, {}});
  backward({{}, {}, x.dv.view(), {}, {}});
  backward({{}, {}, {}, x.ds.view(), {}});
  backward({{}, {}, {}, {}, x.dsink.view()});
  REQUIRE(same(x.dq, all.dq));
  REQUIRE(same(x.dk, all.dk));
  REQUIRE(same(x.dv, all.dv));
  REQUIRE(same(x.ds, all.ds));
  REQUIRE(same(x.dsink, all.dsink));
}
