// The record of `attention`, and the exact values and bounds of its outputs.
#include <algorithm>
#include <cmath>
#include <limits>

#include "verify/bounds/attention_forward.hpp"
#include "verify/contract/keys.hpp"
#include "verify/inputs/make_inputs.hpp"
#include "verify/ops/attention/delta.hpp"
#include "verify/ops/attention/keys.hpp"
#include "verify/ops/attention/precise.hpp"
#include "verify/ops/attention/problem.hpp"
#include "verify/ops/attention/replay.hpp"
#include "verify/ops/ops.hpp"
#include "verify/statistics/replay_statistics.hpp"

namespace attest {
namespace {

using bounds::ExpectedView;

constexpr double infinity = std::numeric_limits<double>::infinity();

Expected* find(std::vector<Expected>& all, std::string_view output) {
  const auto it = std::find_if(all.begin(), all.end(), [&](const Expected& e) { return e.output == output; });
  return it == all.end() ? nullptr : &*it;
}

/// Gradients that are summed over rows and sequences, on their way to an Expected.
struct GradientTotals {
  std::vector<double> value, magnitude, worst, systematic, variance;

  explicit GradientTotals(std::size_t n) : value(n), magnitude(n), worst(n), systematic(n), variance(n) {}

  template <int Rank, class ViewOf>
  bounds::GradientSums<Rank> views(ViewOf view_of) {
    return {view_of(value.data()), view_of(magnitude.data()), view_of(worst.data()),
            view_of(systematic.data()), view_of(variance.data())};
  }

  /// `terms` values were added up in the format of the accumulator.
  void write(Expected& expected, Index terms, const Contract& contract, double share) const {
    const Index n = static_cast<Index>(value.size());
    const double lambda = bounds::confidence_multiplier(n);
    const double sum = bounds::sum_error(contract.pv, terms).worst;
    for (Index at = 0; at < n; ++at) {
      const ElementBound b = bounds::element_bound(value[at], worst[at] * (1 + sum) + sum * magnitude[at],
                                                   systematic[at] + sum * magnitude[at],
                                                   std::sqrt(variance[at]), lambda, share, expected.dtype);
      expected.set(at, b);
    }
  }
};

}  // namespace

SavedForBackward::SavedForBackward(const Sequence& s)
    : d_o({s.in.q_heads(), s.queries, s.in.v_width()}),
      o(d_o),
      o_worst(d_o),
      o_systematic(d_o),
      o_sigma(d_o),
      lse({s.in.q_heads(), s.queries}),
      lse_worst(lse),
      lse_systematic(lse),
      delta_shift({s.in.q_heads(), s.queries}, std::numeric_limits<double>::quiet_NaN()) {}

bounds::BackwardInputs SavedForBackward::for_bounds() const {
  return {d_o.view(), o.view(),         o_worst.view(),        o_systematic.view(), o_sigma.view(),
          lse.view(), lse_worst.view(), lse_systematic.view(), delta_shift.view()};
}

AttentionProblem::AttentionProblem(const Case& c)
    : Problem(c), case_(c), attention_(c), contract_(read_contract(contract_keys_, *c.in.at("q").dtype)) {
  attention_.scale_operands(contract_);
}

std::string AttentionProblem::contract() const {
  return contract_text(contract_, contract_keys_);
}

bool AttentionProblem::has_gradients() const {
  return std::any_of(case_.out.begin(), case_.out.end(),
                     [](const auto& out) { return out.first.front() == 'd'; });
}

bounds::ForwardOutputs AttentionProblem::forward_outputs(const Sequence& s,
                                                         std::vector<Expected>& all) const {
  bounds::ForwardOutputs out{};
  out.lse_unit = attention_.lse_unit;
  out.lse_empty = attention_.lse_empty;
  for (Expected& e : all) {
    double* data = e.value.data();
    const auto rows = [&] { return attention_.like_rows(data, *e.dumped, s); };
    if (e.output == "o") out.o = {e, attention_.like_o(data, s)};
    if (e.output == "lse") out.lse = {e, rows()};
    if (e.output == "m") out.m = {e, rows()};
    if (e.output == "l") out.l = {e, rows()};
    if (e.output == "s") out.s = {e, attention_.like_scores(data, s)};
    if (e.output == "p") out.p = {e, attention_.like_scores(data, s)};
  }
  return out;
}

std::vector<Expected> AttentionProblem::expect(const ProgressFunction& progress) {
  std::vector<Expected> all;
  for (const Port& port : attention_op().outputs) {
    if (const Tensor* tensor = case_.output(std::string(port.name)))
      all.emplace_back(std::string(port.name), *tensor);
  }

  // Gradients depend on o and lse; where the dump has neither, their exact values and bounds stand in.
  std::vector<Expected> unwritten;
  if (has_gradients()) {
    const Tensor& d_o = case_.in.at("do");
    unwritten_ = {d_o, attention_.rows_tensor(contract_.softmax_dtype)};
    if (!case_.output("o")) all.emplace_back("o", unwritten_[0]);
    if (!case_.output("lse")) all.emplace_back("lse", unwritten_[1]);
  }
  // Absent keys have no weight.
  if (Expected* s = find(all, "s")) std::fill(s->value.begin(), s->value.end(), -infinity);

  if (Expected* o = find(all, "o")) o->expect_rest(), o->joint.assign(o->value.size(), 1);
  const double forward_share = has_gradients() ? 0.3 : 1.0;
  for (std::size_t n = 0; n < attention_.sequences.size(); ++n) {
    const Sequence& s = attention_.sequences[n];
    bounds::attention_forward(attention_.spec, s.in, contract_, forward_outputs(s, all));
    progress(forward_share * static_cast<double>(n + 1) / static_cast<double>(attention_.sequences.size()));
  }
  const bool is_precise = needs_precise_values(attention_, contract_);
  if (is_precise) sharpen_forward(attention_, all);
  if (case_.output("o")) weight_store_ = replay_weights(attention_, contract_, *find(all, "o"));
  if (has_gradients()) {
    collect_saved(all);
    if (case_.output("o")) find_deltas(attention_, contract_, *find(all, "o"), case_.output("dq"), saved_);
    expect_gradients(all, progress);
    if (is_precise) sharpen_gradients(attention_, saved_, all);
    std::erase_if(all, [&](const Expected& e) { return !case_.output(e.output); });
  }
  return all;
}

void AttentionProblem::collect_saved(std::vector<Expected>& all) {
  const Expected& o = *find(all, "o");
  const Expected& lse = *find(all, "lse");
  const Tensor* device_o = case_.output("o");
  const Tensor* device_lse = case_.output("lse");
  const double lambda = bounds::confidence_multiplier(static_cast<Index>(o.value.size()));
  const Tensor& d_o = case_.in.at("do");
  for (const Sequence& s : attention_.sequences) {
    SavedForBackward& saved = saved_.emplace_back(s);
    const View<const double, 3> o_at = attention_.like_o(o.value.data(), s);
    const View<const double, 3> lse_at = attention_.like_rows(lse.value.data(), *lse.dumped, s);
    const View<const double, 3> d_o_at = attention_.like_o(d_o.values.data(), s);
    for (Index h = 0; h < s.in.q_heads(); ++h) {
      for (Index i = 0; i < s.queries; ++i) {
        for (Index e = 0; e < s.in.v_width(); ++e) {
          const Index at = &o_at(h, i, e) - o.value.data();
          saved.d_o(h, i, e) = d_o_at(h, i, e);
          if (device_o && std::isfinite(device_o->values[at])) {
            const double spacing = ulp(device_o->values[at], o.dtype);
            saved.o(h, i, e) = device_o->values[at];
            saved.o_worst(h, i, e) = spacing / 2;
            saved.o_sigma(h, i, e) = spacing / std::sqrt(12.0);
            continue;
          }
          saved.o(h, i, e) = o.value[at];
          saved.o_worst(h, i, e) = o.rigorous[at];
          saved.o_sigma(h, i, e) = o.sigma[at];
          saved.o_systematic(h, i, e) = std::max(0.0, o.probable[at] - lambda * o.sigma[at]);
        }
        const Index at = &lse_at(h, i, 0) - lse.value.data();
        const double exact = lse.value[at] == attention_.lse_empty ? -infinity : lse.value[at];
        // An lse that is itself wrong would only hide whether the gradient is.
        const bool usable =
            device_lse && std::isfinite(exact) && std::abs(device_lse->values[at] - exact) <= lse.bound(at);
        const double read = usable ? device_lse->values[at] : exact;
        saved.lse(h, i) = read / attention_.lse_unit;
        if (!std::isfinite(exact)) continue;
        // The backward pass may have read the lse before it was stored.
        const double store = ulp(read, lse.dtype) / 2;
        saved.lse_worst(h, i) = (usable ? store : lse.rigorous[at]) / attention_.lse_unit;
        saved.lse_systematic(h, i) = (usable ? store : lse.probable[at]) / attention_.lse_unit;
      }
    }
  }
}

// In the order of Factor::predicted.
void AttentionProblem::expect_replays(std::vector<Expected>& all) const {
  if (!bounds::Arithmetic(contract_).p_is_rounded) return;
  const bool stores_weights = weight_store_ && find(all, "o")->not_replayed.upper() < most_not_replayed;
  for (Expected& e : all) {
    std::vector<std::string> ways;
    if (e.output == "dv") ways = {"P rounded"};
    if (e.output == "dq" || e.output == "dk") {
      ways = {"dS rounded", "dS rounded after the scale", "dS from stored P",
              "dS from stored P, after the scale"};
    }
    if (ways.empty()) continue;
    e.expect_rest();
    // Without these, the error of delta is unknown and common to all keys.
    e.has_all_replays = case_.output("o") && case_.output("dq");
    e.must_replay = e.has_all_replays && stores_weights;
    for (std::string& way : ways) {
      const int variant = static_cast<int>(e.replays.size());
      e.replays.push_back({std::move(way), variant, std::vector<double>(e.value.size())});
    }
  }
}

void AttentionProblem::expect_gradients(std::vector<Expected>& all, const ProgressFunction& progress) {
  Expected* dbias = find(all, "dbias");
  Expected* dsink = find(all, "dsink");
  GradientTotals bias_totals(dbias ? dbias->value.size() : 0), sink_totals(dsink ? dsink->value.size() : 0);
  expect_replays(all);
  Index queries = 0, score_count = 0, keys = 1;
  for (std::size_t n = 0; n < attention_.sequences.size(); ++n) {
    const Sequence& s = attention_.sequences[n];
    bounds::BackwardOutputs out{};
    for (Expected& e : all) {
      double* data = e.value.data();
      if (e.output == "dq") out.dq = {e, attention_.like_q(data, s)};
      if (e.output == "dk") out.dk = {e, attention_.like_k(data, s)};
      if (e.output == "dv") out.dv = {e, attention_.like_v(data, s)};
    }
    if (dbias) out.dbias = bias_totals.views<3>([&](double* data) { return attention_.like_bias(data, s); });
    if (dsink)
      out.dsink = sink_totals.views<1>([&](double* data) { return View<double, 1>{data, {s.in.q_heads()}}; });
    bounds::attention_backward(attention_.spec, s.in_backward, saved_[n].for_bounds(), contract_, out);
    queries += s.queries;
    keys = std::max(keys, s.in.keys());
    score_count += s.in.q_heads() * s.queries * s.in.keys();
    progress(0.3 + 0.7 * static_cast<double>(n + 1) / static_cast<double>(attention_.sequences.size()));
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (Expected& e : all) {
    if (e.output != "o") choose_replay(e);
  }
  const Index width = case_.in.at("q").shape.back();
  const double share = bounds::Arithmetic(contract_).reference_share(width, keys);
  if (dbias)
    bias_totals.write(*dbias, score_count / std::max(Index{1}, dbias->dumped->size()), contract_, share);
  if (dsink) sink_totals.write(*dsink, queries, contract_, share);
}

Op attention_op() {
  using enum PortType;
  return {
      "attention",
      "Scaled dot-product attention, forward and backward: softmax(scale q k^T + ...) v.",
      {
          {"q", "B Hq Sq D", floating, true, "queries"},
          {"k", "B Hkv Sk D", floating, true, "keys; query head h reads head h / (Hq / Hkv)"},
          {"v", "B Hkv Sk E", floating, true, "values"},
          {"mask", "~ B Hq Sq Sp+Sk", boolean, false, "true = may attend"},
          {"bias", "~ B Hq Sq Sp+Sk", floating, false, "added to the scaled scores; -inf masks"},
          {"alibi_slopes", "Hq or B Hq", floating, false, "score -= slope |diagonal - j|, or as alibi says"},
          {"sink", "Hq", floating, false, "a score that takes weight and carries no value"},
          {"past_k", "B Hkv Sp D", floating, false, "keys that stand before k; given with past_v"},
          {"past_v", "B Hkv Sp E", floating, false, "values that stand before v"},
          {"kv_lengths", "B", integer, false, "keys from this index on are absent, past keys counted in"},
          {"cu_seqlens_q", "B+1", integer, false, "layout thd: where the packed sequences begin"},
          {"cu_seqlens_k", "B+1", integer, false, "the same for the keys"},
          {"do", "B Hq Sq E", floating, false, "gradient of o: needed by all gradients"},
      },
      {
          {"o", "B Hq Sq E", floating, false, "output"},
          {"lse", "B Hq Sq", floating, false, "log of the row sum of exp(score)"},
          {"m", "B Hq Sq (R)", floating, false, "row maximum of the scores; each of R copies is judged"},
          {"l", "B Hq Sq (R)", floating, false, "row sum of exp(score - m), likewise"},
          {"s", "B Hq Sq Sp+Sk", floating, false,
           "scores after scale, softcap, ALiBi, bias and mask: -inf where masked"},
          {"p", "B Hq Sq Sp+Sk", floating, false, "weights"},
          {"dq", "B Hq Sq D", floating, false, "gradient of q"},
          {"dk", "B Hkv Sk D", floating, false, "gradient of k, not of past_k"},
          {"dv", "B Hkv Sk E", floating, false, "gradient of v, not of past_v"},
          {"dbias", "~ B Hq Sq Sp+Sk", floating, false,
           "gradient of bias, shaped like it: summed over what broadcasts"},
          {"dsink", "Hq", floating, false, "gradient of sink, summed over batch and rows"},
      },
      {
          {"causal", "none, top_left, bottom_right", "", "which diagonal a row may not look beyond, if any"},
          {"scale", "number", "", "factor of q.k"},
          {"layout", "bhsd, bshd, sbhd, bsm, sbm, thd", "bhsd",
           "order of the axes; bsm and sbm merge the heads into the last, thd packs sequences"},
          {"heads_q", "integer", "-", "query heads; needed by bsm and sbm, and unknown to the others"},
          {"heads_kv", "integer", "-", "key/value heads, likewise"},
          {"window_left", "integer", "-1", "keys visible before the diagonal; -1 = all"},
          {"window_right", "integer", "-1", "keys visible after the diagonal; -1 = all"},
          {"softcap", "number", "0", "score = softcap tanh(score / softcap), before bias and mask; 0 = off"},
          {"alibi", "distance, position", "distance",
           "with alibi_slopes: score -= slope |diagonal - j|, or score += slope j: FlashAttention's, causal"},
          {"empty_row", "zero, nan, mean_v", "zero", "output of a row that may attend to no key"},
          {"lse_base", "e, 2", "e", "base of the logarithm in lse"},
          {"lse_empty", "-inf, +inf", "-inf", "lse of a row that may attend to no key"},
      },
      attention_contract_keys(),
      [](const Case& c) -> std::unique_ptr<Problem> { return std::make_unique<AttentionProblem>(c); },
      attention_inputs(),
      true,
      [](const Case& c) { return attention_keys(c); },
  };
}

}  // namespace attest
