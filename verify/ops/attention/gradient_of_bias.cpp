// What a gradient of a bias may be in place of itself.
#include "verify/ops/attention/gradient_of_bias.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numbers>
#include <string>
#include <utility>

#include "verify/compare.hpp"
#include "verify/ops/attention/gradient_terms.hpp"
#include "verify/ops/sample.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {
namespace {

constexpr Index most_elements = 96;
constexpr double same_factor = 0.005;  // factors no further apart are called by one name
constexpr std::size_t elements_to_screen = 6;
constexpr double most_terms = 1 << 21;

/// The terms of a sample of the wrong elements: dS of every row, head and batch entry that shares them.
struct Element {
  Index at;
  std::vector<GradientTerm> terms;
};

double ds(const BackwardPass& pass, const GradientTerm& t) {
  const double p = pass.p(t);
  return p > 0 ? p * (t.dp - t.delta) : 0;
}

class WrongElements {
 public:
  WrongElements(const AttentionCase& attention, const BackwardPass& pass, const Expected& dbias)
      : pass_(pass), dbias_(dbias) {
    std::vector<Index> wrong;
    for (Index at = 0; at < dbias.dumped->size(); ++at)
      if (!within_bound(dbias, at, dbias.dumped->values[at])) wrong.push_back(at);
    double scores = 0;
    for (std::size_t n = 0; n < pass.sequences(); ++n)
      scores += static_cast<double>(pass.in(n).q_heads() * pass.in(n).queries() * pass.keys(n));
    const double terms = scores / static_cast<double>(std::max<std::size_t>(dbias.value.size(), 1));
    const auto most = static_cast<Index>(std::min<double>(most_elements, most_terms / std::max(terms, 1.0)));
    if (most == 0) return;
    std::vector<Index> sample;
    for (const Index n : evenly_spread(std::ssize(wrong), most)) sample.push_back(wrong[n]);
    for (const Index at : sample) elements_.push_back({at, {}});
    for (std::size_t n = 0; n < pass.sequences() && !sample.empty(); ++n) {
      const View<const double, 3> place = attention.like_bias(dbias.value.data(), attention.sequences[n]);
      for (Index h = 0; h < pass.in(n).q_heads(); ++h) {
        for (Index i = 0; i < pass.in(n).queries(); ++i) {
          for (Index j = 0; j < pass.keys(n); ++j) {
            const auto found = std::ranges::lower_bound(sample, &place(h, i, j) - dbias.value.data());
            if (found == sample.end() || *found != &place(h, i, j) - dbias.value.data()) continue;
            elements_[found - sample.begin()].terms.push_back(pass.term({n, h, i}, j));
          }
        }
      }
    }
  }

  bool is_empty() const { return elements_.empty(); }
  const std::vector<Element>& elements() const { return elements_; }

  /// Of term(t), a share of the sum; none if it is no nearer to the dump than the right values.
  template <class OfTerm>
  std::vector<Decoy> answer(const std::string& name, const OfTerm& of_term) const {
    Decoy answer{name, "dbias", {}, {}, false, false};
    double off = 0, was_off = 0;
    for (const Element& element : elements_) {
      double sum = 0;
      for (const GradientTerm& t : element.terms) sum += of_term(t);
      answer.at.push_back(element.at);
      answer.value.push_back(sum);
      const double got = dbias_.dumped->values[element.at], sigma = dbias_.bound(element.at);
      off += std::min(std::abs(got - sum) / sigma, 1e6);
      was_off += std::min(std::abs(got - dbias_.value[element.at]) / sigma, 1e6);
      if (answer.at.size() == elements_to_screen && !(2 * off < was_off)) return {};
    }
    if (!(2 * off < was_off)) return {};
    return {std::move(answer)};
  }

 private:
  const BackwardPass& pass_;
  const Expected& dbias_;
  std::vector<Element> elements_;
};

}  // namespace

std::vector<Decoy> wrong_dbias(const AttentionCase& attention, std::span<const SavedForBackward> saved,
                               std::span<const Expected> expected) {
  const auto dbias = std::ranges::find(expected, "dbias", &Expected::output);
  if (dbias == expected.end() || saved.empty() || !has_wrong_elements(*dbias)) return {};
  const BackwardPass pass(attention, saved, "dq");
  const WrongElements wrong(attention, pass, *dbias);
  if (wrong.is_empty()) return {};
  std::vector<Decoy> all;
  const auto add = [&](const std::string& name, auto of_term) {
    std::ranges::move(wrong.answer(name, of_term), std::back_inserter(all));
  };

  const View<const double, 3> first = attention.like_bias(dbias->value.data(), attention.sequences.front());
  const View<const double, 3> last = attention.like_bias(dbias->value.data(), attention.sequences.back());
  const auto shares = [&](const std::string& what, Index count, auto number_of,
                          const std::string& of_each = "") {
    for (Index x = 0; x < count; ++x) {
      const std::string name = what + " " + std::to_string(x) + of_each;
      add("dbias without " + name,
          [&](const GradientTerm& t) { return number_of(t) == x ? 0 : ds(pass, t); });
      add("dbias with " + name + " counted twice",
          [&](const GradientTerm& t) { return (number_of(t) == x ? 2 : 1) * ds(pass, t); });
      if (x + 1 == count) break;  // the last only: overwritten_dbias
      add("dbias of " + name + " only",
          [&](const GradientTerm& t) { return number_of(t) == x ? ds(pass, t) : 0; });
    }
  };
  const AttentionInputs& in = pass.in(0);
  if (first.stride(0) == 0 && in.q_heads() > 1) {
    shares("head", in.q_heads(), [](const GradientTerm& t) { return t.row.h; });
    if (in.group() > 1) {
      shares("the heads of key/value head", in.kv_heads(), [](const GradientTerm& t) { return t.key.g; });
      shares(
          "head", in.group(), [group = in.group()](const GradientTerm& t) { return t.row.h % group; },
          " of each group");
    }
  }
  if (pass.sequences() > 1 && first.data_handle() == last.data_handle()) {
    shares("batch entry", static_cast<Index>(pass.sequences()),
           [](const GradientTerm& t) { return static_cast<Index>(t.row.n); });
  }
  if (first.stride(1) == 0 && in.queries() > 1) {
    for (const Index tile : {64, 128, 32, 16}) {
      add("dbias without the last tile of " + std::to_string(tile) + " rows", [&](const GradientTerm& t) {
        const Index rows = pass.in(t.row.n).queries();
        return t.row.i >= (rows - 1) / tile * tile ? 0 : ds(pass, t);
      });
      add("dbias of the first tile of " + std::to_string(tile) + " rows only",
          [&](const GradientTerm& t) { return t.row.i < tile ? ds(pass, t) : 0; });
    }
  }

  const double scale = pass.spec().scale, cap = pass.spec().softcap;
  if (cap > 0) {
    add("dbias multiplied by the derivative of the softcap", [&](const GradientTerm& t) {
      return ds(pass, t) * (1 - std::pow(std::tanh(scale * t.product / cap), 2));
    });
  }
  add("dbias of P, not dS", [&](const GradientTerm& t) { return pass.p(t); });
  add("dbias of dP - delta without P",
      [](const GradientTerm& t) { return t.is_visible ? t.dp - t.delta : 0; });
  const std::pair<const char*, double> known_factors[] = {{"the scale", scale},
                                                          {"1 / scale", 1 / scale},
                                                          {"log2(e)", std::numbers::log2e},
                                                          {"ln(2)", std::numbers::ln2}};
  for (const auto& [name, factor] : known_factors) {
    if (std::isfinite(factor) && factor != 1)
      add("dbias multiplied by " + std::string(name),
          [&, f = factor](const GradientTerm& t) { return f * ds(pass, t); });
  }
  // A factor that is none of these: the median of what the elements say.
  std::vector<double> ratios;
  for (const Element& element : wrong.elements()) {
    const double ratio = dbias->dumped->values[element.at] / dbias->value[element.at];
    if (std::isfinite(ratio)) ratios.push_back(ratio);
  }
  if (!ratios.empty()) {
    const auto middle = ratios.begin() + std::ssize(ratios) / 2;
    std::ranges::nth_element(ratios, middle);
    const double f = *middle;
    const bool is_known = std::ranges::any_of(
        known_factors, [f](const auto& x) { return std::abs(f / x.second - 1) < same_factor; });
    if (f != 0 && !is_known) {
      add("dbias multiplied by " + factor_text(f), [&](const GradientTerm& t) { return f * ds(pass, t); });
    }
  }

  std::vector<GradientFault> faults = wrong_reads_of_gradients(pass);
  std::ranges::move(wrong_stages_of_gradients(pass), std::back_inserter(faults));
  std::ranges::move(wrong_options_of_gradients(pass), std::back_inserter(faults));
  std::vector<std::vector<Decoy>> answers(faults.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t n = 0; n < faults.size(); ++n) {
    answers[n] = wrong.answer("backward: " + faults[n].name, [&](GradientTerm t) {
      faults[n].change(t);
      return ds(pass, t);
    });
  }
  for (std::vector<Decoy>& some : answers) std::ranges::move(some, std::back_inserter(all));
  return all;
}

}  // namespace attest
