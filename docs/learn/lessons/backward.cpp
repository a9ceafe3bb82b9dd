// The backward pass of a small attention, step by step, and what recomputation saves.
#include <cmath>

#include "docs/learn/lessons/lessons.hpp"
#include "ref/attention.hpp"
#include "tiled/attention.hpp"

namespace attest::lessons {
namespace {

/// The loss of the example: sum of d_o * o.
double loss(const AttentionSpec& spec, const Example& x) {
  Array<double, 3> o({1, 4, 2});
  ref::attention_forward(spec, x.inputs(), {o.view(), {}, {}, {}, {}, {}});
  double sum = 0;
  for (Index n = 0; n < o.size(); ++n) sum += x.d_o.data()[n] * o.data()[n];
  return sum;
}

/// A central difference of the loss by one number of the example.
double difference(const AttentionSpec& spec, Example& x, double& number) {
  constexpr double step = 0x1p-17;
  const double before = number;
  number = before + step;
  const double above = loss(spec, x);
  number = before - step;
  const double below = loss(spec, x);
  number = before;
  return (above - below) / (2 * step);
}

}  // namespace

void backward(Numbers& numbers) {
  Example x;
  const AttentionSpec spec = plain(Causal::top_left, 0.5);
  const AttentionInputs in = x.inputs();
  Array<double, 3> p({1, 4, 4}), dp = p, ds = p, o({1, 4, 2}), dq = o, dk = o, dv = o;
  Array<double, 2> lse({1, 4}), delta = lse, weighted = lse;
  ref::attention_forward(spec, in, {o.view(), lse.view(), {}, {}, {}, p.view()});
  const ref::AttentionSaved saved{o.view(), lse.view(), x.d_o.view()};
  ref::attention_backward(spec, in, saved, {dq.view(), dk.view(), dv.view(), ds.view(), {}});
  for (Index i = 0; i < 4; ++i) {
    for (Index e = 0; e < 2; ++e) delta(0, i) += x.d_o(0, i, e) * o(0, i, e);
    for (Index j = 0; j <= i; ++j) {
      for (Index e = 0; e < 2; ++e) dp(0, i, j) += x.d_o(0, i, e) * x.v(0, j, e);
      weighted(0, i) += p(0, i, j) * dp(0, i, j);
    }
  }
  std::string& text = numbers["backward.example"];
  print_matrix(text, "P", p.view().slice(0));
  print_matrix(text, "dP = dO V^T", dp.view().slice(0));
  print_row(text, "delta", delta.view().slice(0));
  print_row(text, "sum_j P dP", weighted.view().slice(0));
  print_matrix(text, "dS", ds.view().slice(0));
  print_matrix(text, "dQ", dq.view().slice(0));
  print_matrix(text, "dK", dk.view().slice(0));
  print_matrix(text, "dV", dv.view().slice(0));

  std::string& check = numbers["backward.differences"];
  print(check, "                      gradient   (L(x + h) - L(x - h)) / 2h\n");
  print(check, "dQ of row 2, column 0   %8.5f   %8.5f\n", dq(0, 2, 0), difference(spec, x, x.q(0, 2, 0)));
  print(check, "dK of row 1, column 1   %8.5f   %8.5f\n", dk(0, 1, 1), difference(spec, x, x.k(0, 1, 1)));
  print(check, "dV of row 0, column 0   %8.5f   %8.5f\n", dv(0, 0, 0), difference(spec, x, x.v(0, 0, 0)));

  const tiled::Saved<double> same{o.view(), lse.view(), x.d_o.view()};
  Array<double, 3> tiled_dq = o;
  const tiled::Gradients<double> gradients{tiled_dq.view(), {}, {}, {}, {}};
  tiled::attention_backward<double>(spec, {&in, 1}, {&same, 1}, {&gradients, 1});
  print_matrix(numbers["backward.engine"], "dQ, by tiles", tiled_dq.view().slice(0));

  std::string& sums = numbers["backward.exercise_rows"];
  print(sums, "row sums of dS:");
  for (Index i = 0; i < 4; ++i) {
    double sum = 0;
    for (Index j = 0; j < 4; ++j) sum += ds(0, i, j);
    print(sums, " %8.5f", std::abs(sum) < 1e-12 ? 0.0 : sum);
  }
  print(sums, "\n");

  std::string& memory = numbers["backward.memory"];
  constexpr double mib = 1048576;
  print(memory, "32 heads, float16 weights or float32 lse kept for the backward pass\n");
  for (const Index n : {1024, 4096, 16384}) {
    const double heads = 32, length = static_cast<double>(n);
    print(memory, "N = %5td: P %8.0f MiB   lse %6.3f MiB\n", n, heads * length * length * 2 / mib,
          heads * length * 4 / mib);
  }
  std::string& flops = numbers["backward.exercise_flops"];
  constexpr double n = 4096, d = 64;
  print(flops,
        "N = 4096, D = 64, one head, in Gflop\nforward    4 N^2 D = %5.2f\nbackward  10 N^2 D = %5.2f, %.1f "
        "times as much\n",
        4 * n * n * d / 1e9, 10 * n * n * d / 1e9, 10.0 / 4);
  print(flops, "P read     8 N^2 D = %5.2f, and %.0f MiB more to read\n", 8 * n * n * d / 1e9,
        n * n * 2 / mib);
  // A row of lse = m + ln l in float16 moves every weight of the row by the same factor.
  std::string& shift = numbers["backward.exercise_lse"];
  for (const double error : {1e-3, 1e-2}) {
    print(shift, "lse too large by %g: every p of the row times %.5f\n", error, std::exp(-error));
  }
}

}  // namespace attest::lessons
