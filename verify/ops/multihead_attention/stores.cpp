// What would explain a multi-head attention that failed: q, k, v or o stored in a narrower type, and
// projections in tf32.
#include <cmath>
#include <functional>
#include <utility>

#include "verify/ops/multihead_attention/problem.hpp"
#include "verify/ops/stages.hpp"

namespace attest {
namespace {

using Round = std::function<double(double)>;

/// Significand bits of tf32, the hidden one included; its range is that of float32.
constexpr int tf32_precision = 11;

double to_tf32(double x, bool cuts_off) {
  int exponent;
  const double digits = std::ldexp(std::frexp(x, &exponent), tf32_precision);
  return std::ldexp(cuts_off ? std::trunc(digits) : std::nearbyint(digits), exponent - tf32_precision);
}

void round_all(Array<double, 2>& x, const Round& round) {
  for (Index n = 0; n < x.size(); ++n) x.data()[n] = round(x.data()[n]);
}

/// Copies of operands that views point to.
Array<double, 2> rounded(View<const double, 2> x, const Round& round) {
  Array<double, 2> y({x.extent(0), x.extent(1)});
  for (Index r = 0; r < x.extent(0); ++r)
    for (Index j = 0; j < x.extent(1); ++j) y(r, j) = round(x(r, j));
  return y;
}

}  // namespace

std::vector<Decoy> MultiheadProblem::other_stores(Index b, const ref::Projected& exact,
                                                  const std::vector<Index>& rows) const {
  const ref::MultiheadInputs in = multihead_.entry(b);
  const AttentionSpec& spec = multihead_.spec;
  const DType own = contract_.intermediate;
  std::vector<Decoy> all;
  const auto add = [&](std::vector<Decoy> answers) {
    for (Decoy& answer : answers) {
      answer.is_of_whole_call = true;
      all.push_back(std::move(answer));
    }
  };
  const auto with_o = [&](const std::string& name, const ref::Projected& x, const ref::MultiheadInputs& of,
                          const Round& round) {
    const AttentionInputs attention = attention_inputs(x, of);
    std::vector<double> s(attention.keys()), p(attention.keys());
    const Index n = attention.keys();
    if (!case_.out.contains("y")) return;
    add({joined(name, b, rows, of, [&](Index h, Index i, View<double, 1> o) {
      ref::attention_forward_row(spec, attention, h, i, {s.data(), {n}}, {p.data(), {n}}, o);
      for (Index e = 0; e < o.extent(0); ++e) o(e) = round(o(e));
    })});
  };

  struct Store {
    const char* name;
    bool q, k, v, o;
  };
  constexpr Store stores[] = {
      {"q", true, false, false, false},        {"k", false, true, false, false},
      {"v", false, false, true, false},        {"o of the heads", false, false, false, true},
      {"q and k", true, true, false, false},   {"k and v", false, true, true, false},
      {"q, k and v", true, true, true, false}, {"q, k, v and o", true, true, true, true}};
  for (const DType narrow : narrow_formats(own)) {
    for (const bool is_second : {false, true}) {
      // A number that is rounded twice is not always the nearest: 16 bits hold the halves of fewer bits.
      if (is_second && format_of(own).bits > 16) continue;
      const Round round = [=](double x) { return round_to(is_second ? round_to(x, own) : x, narrow); };
      const std::string in_type =
          (is_second ? " stored in " + std::string(format_of(own).name) + ", then" : " stored") +
          in_format(narrow);
      for (const Store& store : stores) {
        const bool is_all = store.q && store.v && store.o;
        const std::string name =
            store.name + in_type + (is_all && !is_second ? ": contract key intermediate_dtype" : "");
        ref::Projected x = exact;
        if (store.q) round_all(x.q, round);
        if (store.k) round_all(x.k, round);
        if (store.v) round_all(x.v, round);
        if (store.o)
          with_o(name, x, in, round);
        else
          add(sampled(name, b, spec, attention_inputs(x, in), in, rows));
      }
    }
  }
  const bool takes_tf32 =
      contract_.in_projection.tf32 == Tf32::one || contract_.out_projection.tf32 == Tf32::one;
  if (format_of(own).precision <= tf32_precision || takes_tf32) return all;
  for (const bool cuts_off : {false, true}) {
    const Round round = [=](double x) { return to_tf32(x, cuts_off); };
    const std::string in_tf32 = std::string(" in tf32") + (cuts_off ? ", cut off" : "");
    const Array<double, 2> in_weight = rounded(in.in_weight, round),
                           out_weight = rounded(in.out_weight, round), query = rounded(in.query, round),
                           key = rounded(in.key, round), value = rounded(in.value, round);
    ref::MultiheadInputs of_in = in, of_out = in, of_both = in;
    for (ref::MultiheadInputs* wrong : {&of_in, &of_both}) {
      wrong->in_weight = in_weight.view();
      wrong->query = query.view(), wrong->key = key.view(), wrong->value = value.view();
    }
    const ref::Projected narrow = ref::project(of_in);
    add(sampled("the input projection" + in_tf32, b, spec, attention_inputs(narrow, of_in), of_in, rows));
    of_out.out_weight = of_both.out_weight = out_weight.view();
    with_o("the output projection" + in_tf32, exact, of_out, round);
    with_o("the projections" + in_tf32, narrow, of_both, round);
  }
  return all;
}

}  // namespace attest
