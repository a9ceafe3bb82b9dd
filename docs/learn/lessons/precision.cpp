// From rounding to a bound, and what low precision does to the forward pass.
#include <algorithm>
#include <cmath>

#include "docs/learn/lessons/lessons.hpp"
#include "ref/softmax.hpp"
#include "tests/support/random.hpp"
#include "tiled/emulated.hpp"
#include "verify/bounds/attention_forward.hpp"

namespace attest::lessons {
namespace {

constexpr Accumulator plain_sum{DType::float32, 0, 0};
constexpr Accumulator ampere{DType::float32, 8, 1};

const char* name(DType dtype) {
  return format_of(dtype).name.data();
}

/// Random inputs of one head, rounded to the element type; v begins at `lowest`.
struct Inputs {
  Array<double, 3> q, k, v;

  Inputs(Index queries, Index keys, Index d, Index e, DType element, double lowest = -2)
      : q({1, queries, d}), k({1, keys, d}), v({1, keys, e}) {
    std::uint64_t seed = 0;
    for (Array<double, 3>* x : {&q, &k, &v}) {
      test::Random numbers(++seed);
      const double low = x == &v ? lowest : -2;
      for (Index n = 0; n < x->size(); ++n) {
        x->data()[n] = round_to(low + (2 - low) * (numbers.symmetric() + 1) / 2, element);
      }
    }
  }
  AttentionInputs views() const { return {q.view(), k.view(), v.view(), {}, {}, {}, {}}; }
};

/// Exact o and the bounds of a kernel that keeps the contract and stores o in `element`.
struct Bounded {
  Tensor dumped;
  Expected o;

  Bounded(const AttentionSpec& spec, const AttentionInputs& in, const Contract& contract, DType element)
      : dumped{"", element, {in.queries(), in.v_width()}, {}}, o("o", dumped) {
    const View<double, 3> view(o.value.data(), {1, in.queries(), in.v_width()});
    bounds::ForwardOutputs outputs;
    outputs.o = bounds::ExpectedView<3>(o, view);
    bounds::attention_forward(spec, in, contract, outputs);
  }
};

std::vector<double> emulated(const AttentionSpec& spec, const AttentionInputs& in, const Contract& contract,
                             DType element) {
  Array<double, 3> o({1, in.queries(), in.v_width()});
  tiled::attention_forward_emulated(spec, contract, {}, in, {o.view(), {}, {}, {}});
  std::vector<double> stored(o.data(), o.data() + o.size());
  for (double& x : stored) x = round_to(x, element);
  return stored;
}

void two_keys(std::string& text) {
  const Array<double, 3> q = head_of({{1}}), k = head_of({{0}, {1}}), v = head_of({{1}, {0}});
  const AttentionInputs in{q.view(), k.view(), v.view(), {}, {}, {}, {}};
  const Contract contract{DType::float16, DType::float32, ampere, ampere};
  const Bounded exact(plain(Causal::none, 1), in, contract, DType::float16);
  const double o = exact.o.value[0], u_p = unit_roundoff(DType::float16), bound = exact.o.bound(0);
  const double p_stored = u_p * o, o_stored = ulp(o, DType::float16) / 2;
  print(text, "exact o                                   %.9f\n", o);
  print(text, "p_0 stored in float16: u_p p_0            %.4g\n", p_stored);
  print(text, "o stored in float16: half an ulp          %.4g\n", o_stored);
  print(text, "everything in float32: the rest           %.4g\n", bound - p_stored - o_stored);
  print(text, "bound                                     %.4g\n\n", bound);
  for (const DType p_dtype : {DType::float16, DType::bfloat16}) {
    const double p = round_to(std::exp(-1.0), p_dtype);
    const double got = round_to(p / (1 + std::exp(-1.0)), DType::float16);
    print(text, "e^-1 in %-8s = %.6f  o = %.6f  |error| = %.1e = %.2f bounds  %s\n", name(p_dtype), p, got,
          std::abs(got - o), std::abs(got - o) / bound, std::abs(got - o) <= bound ? "pass" : "fail");
  }
}

void errors_by_length(std::string& text) {
  print(text, "#  emulated kernel against its bounds: 16 rows, D = 32, E = 8\n");
  print(text, "#  inputs and o in the type, u is its; figures relative to the largest |o|\n");
  print(text, "#type         N      u   worst-error   rms-error  its-bound  rigorous\n");
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    const Accumulator sums = element == DType::float32 ? plain_sum : ampere;
    const Contract contract{element, DType::float32, sums, sums};
    for (const Index keys : {16, 64, 256, 1024, 4096}) {
      const Inputs x(16, keys, 32, 8, element);
      const AttentionSpec spec = plain(Causal::none, 1 / std::sqrt(32.0));
      const Bounded exact(spec, x.views(), contract, element);
      const std::vector<double> got = emulated(spec, x.views(), contract, element);
      double largest = 0, worst = -1, squares = 0;
      std::size_t at = 0;
      for (std::size_t n = 0; n < got.size(); ++n) {
        const double error = std::abs(got[n] - exact.o.value[n]);
        largest = std::max(largest, std::abs(exact.o.value[n]));
        squares += error * error;
        if (error > worst) worst = error, at = n;
      }
      print(text, "%-9s %5td %.0e   %11.1e %11.1e %10.1e %9.1e\n", name(element), keys,
            unit_roundoff(element), worst / largest,
            std::sqrt(squares / static_cast<double>(got.size())) / largest,
            exact.o.bound(static_cast<Index>(at)) / largest, exact.o.rigorous[at] / largest);
    }
  }
}

/// Rounding of the weights only, in two conventions, for a row of N keys of which one leads by `lead`.
void stored_weights(std::string& text) {
  print(text,
        "relative rounding error of a weight when it is stored: one of N equal keys,\nand one that is e^-12 "
        "of the largest\n");
  print(text, "%-14s %8s %12s %12s %12s\n", "format of P", "N", "p = 1/N", "p / p_max=1", "e^-12");
  for (const DType dtype : {DType::float16, DType::bfloat16, DType::float8_e4m3fn}) {
    for (const double n : {100.0, 100000.0}) {
      const auto relative = [&](double p) { return std::abs(round_to(p, dtype) - p) / p; };
      print(text, "%-14s %8g %12.1e %12.1e %12.1e\n", name(dtype), n, relative(1 / n), relative(1),
            relative(std::exp(-12)));
    }
  }
}

void truncation(std::string& text) {
  struct Sums {
    const char* what;
    Accumulator pv;
  };
  constexpr Accumulator exact_sum{DType::float64, 0, 0};
  constexpr Sums all[] = {{"rounds every addition", plain_sum},
                          {"blocks of 4, 0 extra bits", {DType::float32, 4, 0}},
                          {"blocks of 8, 1 extra bit", {DType::float32, 8, 1}},
                          {"blocks of 16, 2 extra bits", {DType::float32, 16, 2}},
                          {"blocks of 32, 13 bits kept", {DType::float32, 32, -10}}};
  print(text, "P V with v in [1, 2): mean error of o by accumulation, relative, in 2^-24\n");
  print(text, "%-28s", "accumulator");
  for (const Index keys : {256, 1024, 4096}) print(text, "   N = %4td", keys);
  text += "\n";
  for (const Sums& sums : all) {
    print(text, "%-28s", sums.what);
    for (const Index keys : {256, 1024, 4096}) {
      const Inputs x(64, keys, 16, 8, DType::float16, 1);
      const AttentionSpec spec = plain(Causal::none, 0.25);
      const auto o_of = [&](const Accumulator& pv) {
        return emulated(spec, x.views(), {DType::float16, DType::float32, plain_sum, pv}, DType::float64);
      };
      const std::vector<double> got = o_of(sums.pv), want = o_of(exact_sum);
      double mean = 0;
      for (std::size_t n = 0; n < got.size(); ++n) {
        mean += (got[n] - want[n]) / want[n] / static_cast<double>(got.size());
      }
      print(text, " %10.1f", mean * 0x1p24);
    }
    text += "\n";
  }
}

void without_maximum(std::string& text) {
  print(text, "float32, 64 keys, largest score m; weights relative to no maximum\n");
  for (const double m : {10.0, 80.0, 85.0, 90.0}) {
    double l = 0;
    for (int j = 0; j < 64; ++j) {
      const double e = round_to(std::exp(m - 0.01 * j), DType::float32);
      l = round_to(l + e, DType::float32);
    }
    const double p = round_to(round_to(std::exp(m), DType::float32) / l, DType::float32);
    const std::string weight = std::isnan(p) ? "nan" : std::to_string(p);
    print(text, "m = %2g: l = %-12.5g  p_0 = %s\n", m, l, weight.c_str());
  }
  const ref::NaiveRange range = ref::range_without_maximum(DType::float32, 64);
  print(text, "safe up to %.3f, overflow from %.3f\n", range.highest, range.overflow);
}

}  // namespace

void error_model(Numbers& numbers) {
  two_keys(numbers["error_model.example"]);
  errors_by_length(numbers["error_model.lengths"]);

  std::string& gamma = numbers["error_model.exercise_gamma"];
  for (const DType dtype : {DType::float32, DType::float16}) {
    for (const double n : {64.0, 1024.0, 4096.0}) {
      const double u = unit_roundoff(dtype);
      if (n * u < 1) {
        print(gamma, "%s, n = %4g: gamma = %.2e, sqrt(n) u = %.2e\n", name(dtype), n, std::pow(1 - u, -n) - 1,
              std::sqrt(n) * u);
      } else {
        print(gamma, "%s, n = %4g: n u = %g, no bound\n", name(dtype), n, n * u);
      }
    }
  }
  std::string& lambda = numbers["error_model.exercise_lambda"];
  for (const double n : {1.0, 524288.0, 1e9}) {
    print(lambda, "%10.0f elements: lambda = %.2f\n", n, std::sqrt(2 * std::log(2 * n / 1e-9)));
  }
  std::string& spread = numbers["error_model.exercise_shift"];
  const Row row;
  print(spread, "scores off by (d, d, d, d): o unchanged; off by (0, 0, 0, d), d = 0.001:\n");
  double l = 0, o = 0, l_off = 0, o_off = 0;
  for (int j = 0; j < 4; ++j) {
    const double p = std::exp(row.x[j]), p_off = std::exp(row.x[j] + (j == 3 ? 1e-3 : 0));
    l += p, o += p * row.v[j], l_off += p_off, o_off += p_off * row.v[j];
  }
  const double p_3 = std::exp(row.x[3]) / l;
  print(spread, "o moves by %.6f; p_3 (v_3 - o) d = %.6f\n", o_off / l_off - o / l,
        p_3 * (row.v[3] - o / l) * 1e-3);
}

void low_precision(Numbers& numbers) {
  stored_weights(numbers["low_precision.weights"]);
  truncation(numbers["low_precision.truncation"]);
  without_maximum(numbers["low_precision.without_maximum"]);

  std::string& row_sum = numbers["low_precision.exercise_row_sum"];
  for (const DType dtype : {DType::float16, DType::bfloat16, DType::float8_e4m3fn}) {
    const double p = std::exp(-1.0), stored = round_to(p, dtype);
    print(row_sum, "weights 1, e^-1; the sum adds e^-1 in %-14s lse off by %.1e\n",
          (std::string(name(dtype)) + ":").c_str(), std::abs(std::log(1 + stored) - std::log(1 + p)));
  }
  std::string& verdict = numbers["low_precision.exercise_verdict"];
  const Inputs x(64, 4096, 16, 8, DType::float16, 1);
  const AttentionSpec spec = plain(Causal::none, 0.25);
  const Contract promised{DType::float16, DType::float32, ampere, ampere};
  const Bounded exact(spec, x.views(), promised, DType::float16);
  for (const Accumulator& sums :
       {ampere, Accumulator{DType::float32, 16, 2}, Accumulator{DType::float32, 32, -10}}) {
    const std::vector<double> got =
        emulated(spec, x.views(), {DType::float16, DType::float32, ampere, sums}, DType::float16);
    double worst = 0;
    for (std::size_t n = 0; n < got.size(); ++n) {
      worst = std::max(worst, std::abs(got[n] - exact.o.value[n]) / exact.o.bound(static_cast<Index>(n)));
    }
    print(verdict, "blocks of %2d, %3d extra bits: worst |error| / bound = %.2f\n", sums.block,
          sums.extra_bits, worst);
  }
  std::string& absorbed = numbers["low_precision.exercise_absorbed"];
  for (const DType dtype : {DType::float16, DType::bfloat16}) {
    double l = 0;
    for (int j = 0; j < 5000; ++j) l = round_to(l + 1, dtype);
    print(absorbed, "5000 weights of 1 added up in %-9s %g\n", (std::string(name(dtype)) + ":").c_str(), l);
  }
}

}  // namespace attest::lessons
