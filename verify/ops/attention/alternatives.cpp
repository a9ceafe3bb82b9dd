// What attention kernels get wrong in either pass, as answers that a failed dump can be held against.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "verify/ops/attention/explanations.hpp"
#include "verify/ops/attention/misreadings.hpp"
#include "verify/ops/attention/problem.hpp"
#include "verify/ops/attention/rearranged.hpp"

namespace attest {
namespace {

/// `keys` keys of [H, S, D] from `first` on, which may lie outside.
View<const double, 3> keys_from(View<const double, 3> x, Index first, Index keys) {
  return {x.data_handle() + first * x.stride(1),
          {x.extent(0), keys, x.extent(2)},
          {x.stride(0), x.stride(1), x.stride(2)}};
}
View<const double, 3> first_keys(View<const double, 3> x, Index keys) {
  return keys_from(x, 0, keys);
}

}  // namespace

std::vector<Decoy> AttentionProblem::alternatives(std::span<const Expected> expected) const {
  std::vector<Decoy> all = rearranged_outputs(attention_, expected);
  const AttentionSpec& right = attention_.spec;
  const AttentionInputs& in = attention_.sequences.front().in;
  const auto take = [&](std::vector<Decoy> answers) {
    for (Decoy& answer : answers) all.push_back(std::move(answer));
  };
  const auto with_spec = [&](const std::string& name, auto change) {
    AttentionSpec wrong = right;
    change(wrong);
    take(sampled_answers(name, wrong));
  };
  const auto with_inputs = [&](const std::string& name, const Misreading& misread) {
    take(sampled_answers(name, right, misread));
  };
  take(in_other_layouts());
  // The diagonal of every mode is that of top_left with another past.
  const auto with_diagonal = [&](const std::string& name, AttentionSpec wrong, Index shift,
                                 const Misreading& misread) {
    const bool is_limited = right.causal != Causal::none;
    wrong.causal = Causal::top_left;
    if (!is_limited) wrong.causal = Causal::none;
    take(sampled_answers(name, wrong, [&, shift](AttentionInputs& x) {
      const Index offset = diagonal(right, x, 0) - (x.row ? x.row(0) : 0) + shift;
      misread(x);
      x.past = offset;
    }));
  };

  // Those of bottom_right are as far from the top left corner as a sequence is longer than its rows.
  if (right.causal == Causal::bottom_right && !in.key && !in.row) {
    const auto with_offset = [&](const std::string& name, Index offset) {
      AttentionSpec seen = right;
      seen.causal = Causal::top_left;
      take(sampled_answers(name, seen, [offset](AttentionInputs& x) { x.past = offset; }));
    };
    if (case_.input("kv_lengths"))
      with_offset("a diagonal that ends at the padded length, not at in/kv_lengths",
                  attention_.padded_keys() - in.queries());
    if (case_.input("cu_seqlens_k")) {
      Index most_rows = 0, most_keys = 0;
      for (const Sequence& s : attention_.sequences)
        most_rows = std::max(most_rows, s.queries), most_keys = std::max(most_keys, s.keys);
      with_offset("the diagonal of the longest sequence in all of them", most_keys - most_rows);
    }
  }
  if (right.causal != Causal::none) {
    with_diagonal("a causal diagonal one key too far", right, 1, [](AttentionInputs&) {});
    with_diagonal("a causal diagonal one key short", right, -1, [](AttentionInputs&) {});
    // The window begins where it should.
    for (const Index shift : {1, -1}) {
      AttentionSpec seen = right;
      seen.window_left += shift;
      if (right.window_left < 0 || seen.window_left < 0) continue;
      with_diagonal(std::string("a causal diagonal one key ") + (shift > 0 ? "too far" : "short") +
                        ", with the right window",
                    seen, shift, [](AttentionInputs&) {});
    }
    if (right.window_left >= 0) {
      with_spec("causal mask and window ignored",
                [](AttentionSpec& s) { s.causal = Causal::none, s.window_left = s.window_right = -1; });
    }
  }
  if (right.window_left >= 0) {
    with_spec("window_left one key too wide", [](AttentionSpec& s) { ++s.window_left; });
    if (right.window_left > 0)
      with_spec("window_left one key short", [](AttentionSpec& s) { --s.window_left; });
    with_spec("window_left ignored", [](AttentionSpec& s) { s.window_left = -1; });
  }
  if (right.window_right >= 0) {
    with_spec("window_right one key too wide", [](AttentionSpec& s) { ++s.window_right; });
    if (right.window_right > 0)
      with_spec("window_right one key short", [](AttentionSpec& s) { --s.window_right; });
    with_spec("window_right ignored", [](AttentionSpec& s) { s.window_right = -1; });
  }
  if (right.softcap > 0) with_spec("softcap ignored", [](AttentionSpec& s) { s.softcap = 0; });

  const double width = static_cast<double>(in.qk_width());
  for (const auto& [name, scale] :
       {std::pair{"no scale", 1.0}, std::pair{"scale = 1/sqrt(D)", 1 / std::sqrt(width)},
        std::pair{"scale = 1/D", 1 / width}, std::pair{"the scale applied twice", right.scale * right.scale},
        std::pair{"the square root of the scale", std::sqrt(std::abs(right.scale))},
        std::pair{"exp for exp2: a scale log2(e) too large", right.scale * std::numbers::log2e},
        std::pair{"exp2 for exp: a scale ln(2) too small", right.scale * std::numbers::ln2},
        std::pair{"a scale 0.1 % too large", right.scale * 1.001},
        std::pair{"a scale of the other sign", -right.scale}}) {
    if (std::abs(scale - right.scale) > 1e-9 * std::abs(right.scale))
      with_spec(name, [s = scale](AttentionSpec& spec) { spec.scale = s; });
  }

  const std::vector<Sequence>& entries = attention_.sequences;
  const auto number_of = [&entries](const AttentionInputs& x) {
    // Sequences without rows, or without keys, begin where the next one does.
    const auto is_of = [&x](const AttentionInputs& s) {
      return x.q.data_handle() == s.q.data_handle() && x.queries() == s.queries() &&
             x.k.data_handle() == s.k.data_handle();
    };
    auto own =
        std::ranges::find_if(entries, [&](const Sequence& s) { return is_of(s.in) || is_of(s.in_backward); });
    if (own == entries.end()) own = entries.begin();  // callers have whole ones
    return own - entries.begin();
  };
  for (const Index shift : {1, -1}) {
    if (attention_.sequences.size() < 2) break;
    with_inputs(std::string("in/q of another sequence: the one ") + (shift > 0 ? "after" : "before"),
                [&, shift](AttentionInputs& x) {
                  const Index other = number_of(x) + shift;
                  if (other < 0 || other >= std::ssize(entries)) return;
                  if (entries[other].in.queries() >= x.queries())
                    x.q = entries[other].in.q.narrowed(1, 0, x.queries());
                });
  }
  if (case_.input("kv_lengths") && !in.mask && !in.bias && case_.key.empty() && in.past == 0) {
    with_inputs("in/kv_lengths ignored", [padded = attention_.padded_keys()](AttentionInputs& x) {
      x.k = first_keys(x.k, padded), x.v = first_keys(x.v, padded);
    });
    const auto with_length = [&](const std::string& name, auto length) {
      with_inputs(name, [&, length](AttentionInputs& x) {
        const Index keys = std::clamp<Index>(length(x), 0, attention_.padded_keys());
        x.k = first_keys(x.k, keys), x.v = first_keys(x.v, keys);
      });
    };
    with_length("in/kv_lengths one key too long", [](const AttentionInputs& x) { return x.keys() + 1; });
    with_length("in/kv_lengths one key short", [](const AttentionInputs& x) { return x.keys() - 1; });
    for (const Index tile : {16, 32, 64, 128}) {
      with_length("in/kv_lengths rounded up to tiles of " + std::to_string(tile),
                  [tile](const AttentionInputs& x) { return (x.keys() + tile - 1) / tile * tile; });
    }
    const Index count = std::ssize(entries);
    for (const Index shift : {Index{1}, count - 1}) {
      if (count < 2) break;
      with_length(
          std::string("in/kv_lengths of another batch entry: the one ") + (shift == 1 ? "after" : "before"),
          [&](const AttentionInputs& x) { return entries[(number_of(x) + shift) % count].in.keys(); });
    }
  }
  if (case_.input("cu_seqlens_k") && attention_.sequences.size() > 1) {
    AttentionSpec joined = right;
    if (right.causal != Causal::none) joined.causal = Causal::top_left;
    take(sampled_answers("packed sequences not kept apart: keys of the others take weight", joined,
                         [&](AttentionInputs& x) {
                           const Index first = entries[number_of(x)].first_k;
                           x.past = first + diagonal(right, x, 0);
                           x.k = keys_from(x.k, -first, entries.back().first_k + entries.back().keys);
                           x.v = keys_from(x.v, -first, entries.back().first_k + entries.back().keys);
                         }));
  }
  if (case_.input("cu_seqlens_k") && !in.mask && !in.bias && case_.key.empty()) {
    const auto read = [](AttentionInputs& x, Index first, Index keys) {
      x.k = keys_from(x.k, first, keys), x.v = keys_from(x.v, first, keys);
    };
    for (const Index shift : {1, -1}) {
      with_diagonal(std::string("keys of packed sequences begin one too ") + (shift > 0 ? "late" : "early"),
                    right, right.causal == Causal::bottom_right ? -shift : 0,  // that corner stays
                    [&](AttentionInputs& x) {
                      const bool is_inside = x.keys() > shift && entries[number_of(x)].first_k + shift >= 0;
                      if (is_inside) read(x, shift, x.keys() - shift);
                    });
      with_inputs(std::string("keys of packed sequences end one too ") + (shift > 0 ? "late" : "early"),
                  [&](AttentionInputs& x) {
                    const Sequence& last = entries.back();
                    const Index keys = x.keys() + shift;
                    const bool is_inside = entries[number_of(x)].first_k + keys <= last.first_k + last.keys;
                    if (keys >= 0 && is_inside) read(x, 0, keys);
                  });
      with_inputs(std::string("keys of another packed sequence: the one ") + (shift > 0 ? "after" : "before"),
                  [&](AttentionInputs& x) {
                    const Index own = number_of(x), other = own + shift;
                    if (other < 0 || other >= std::ssize(entries)) return;
                    read(x, entries[other].first_k - entries[own].first_k, entries[other].keys);
                  });
    }
  }
  if (in.mask) with_inputs("in/mask ignored", [](AttentionInputs& x) { x.mask = {}; });
  if (in.bias) with_inputs("in/bias ignored", [](AttentionInputs& x) { x.bias = {}; });
  if (in.sink) with_inputs("in/sink ignored", [](AttentionInputs& x) { x.sink = {}; });
  if (in.alibi_slopes) {
    with_inputs("ALiBi ignored", [](AttentionInputs& x) { x.alibi_slopes = {}; });
    const bool by_distance = right.alibi == Alibi::distance;
    with_spec(
        by_distance ? "ALiBi by position: slope j, not -slope |diagonal - j| (alibi = position)"
                    : "ALiBi by distance: -slope |diagonal - j|, not slope j (alibi = distance)",
        [by_distance](AttentionSpec& spec) { spec.alibi = by_distance ? Alibi::position : Alibi::distance; });
  }
  for (const NamedMisreading& misreading : misreadings(right, in)) {
    AttentionSpec seen = right;
    if (misreading.needs_no_mask) {
      seen.causal = Causal::none;
      seen.window_left = seen.window_right = -1;
    }
    std::vector<Decoy> answers = sampled_answers(misreading.name, seen, [&](AttentionInputs& x) {
      misreading.apply(x);
      if (misreading.needs_no_mask && misreading.name.starts_with("softcap")) x.mask = {};
    });
    for (Decoy& answer : answers) answer.is_of_whole_call = misreading.is_of_whole_call;
    take(std::move(answers));
  }
  for (const Index tile : {1, 16, 32, 64, 128}) {
    if (in.keys() <= tile) continue;
    with_diagonal(
        tile == 1 ? "the last key missing" : "the last tile of " + std::to_string(tile) + " keys missing",
        right, 0, [tile](AttentionInputs& x) {
          const Index rest = x.keys() % tile, keys = std::max<Index>(x.keys() - (rest == 0 ? tile : rest), 0);
          x.k = first_keys(x.k, keys), x.v = first_keys(x.v, keys);
        });
  }

  take(gradient_alternatives(expected));

  bool has_empty_row = false;
  std::vector<Decoy> other_lse_empty =
      sampled_lse(attention_.lse_empty < 0 ? "+inf in a row that may attend to no key: lse_empty = +inf"
                                           : "-inf in a row that may attend to no key: lse_empty = -inf",
                  [&](double m, double l) {
                    const bool is_empty = m == -std::numeric_limits<double>::infinity();
                    has_empty_row |= is_empty;
                    return is_empty ? -attention_.lse_empty : (m + std::log(l)) * attention_.lse_unit;
                  });
  if (has_empty_row) {
    take(std::move(other_lse_empty));
    for (const auto& [name, empty_row] :
         {std::pair{"o = 0 in a row that may attend to no key: empty_row = zero", EmptyRow::zero},
          std::pair{"NaN in a row that may attend to no key: empty_row = nan", EmptyRow::nan},
          std::pair{"the mean of V in a row that may attend to no key: empty_row = mean_v",
                    EmptyRow::mean_v}}) {
      if (empty_row == right.empty_row) continue;
      AttentionSpec wrong = right;
      wrong.empty_row = empty_row;
      std::vector<Decoy> answers = sampled_answers(name, wrong);
      std::erase_if(answers, [](const Decoy& x) { return x.output == "lse"; });  // which it says nothing of
      take(std::move(answers));
    }
  }

  const bool is_natural = attention_.lse_unit == 1;
  take(sampled_lse(
      is_natural ? "lse in base 2" : "lse in base e",
      is_natural ? [](double m, double l) { return (m + std::log(l)) * std::numbers::log2e; }
                 : [](double m, double l) { return m + std::log(l); }));
  take(sampled_lse("m + l in place of lse: the logarithm of the row sum missing",
                   [unit = attention_.lse_unit](double m, double l) { return m * unit + l; }));
  if (is_natural) {
    take(sampled_lse("lse with its maximum in base 2",
                     [](double m, double l) { return m * std::numbers::log2e + std::log(l); }));
  } else {
    take(sampled_lse("lse with its row sum in base e",
                     [](double m, double l) { return m * std::numbers::log2e + std::log(l); }));
  }
  take(sampled_lse("lse without the maximum", [](double, double l) { return std::log(l); }));
  const double unit = attention_.lse_unit;
  if (right.scale != 0 && right.scale != 1) {
    take(sampled_lse("lse with an unscaled maximum", [unit, scale = right.scale](double m, double l) {
      return (m / scale + std::log(l)) * unit;
    }));
  }
  take(sampled_lse("lse with its row sum in base 2", [](double m, double l) { return m + std::log2(l); }));
  take(sampled_lse("the maximum in place of lse", [](double m, double) { return m; }));
  take(sampled_lse("lse of the other sign", [](double m, double l) { return -m - std::log(l); }));
  if (case_.output("m") || case_.output("l")) {
    using Stats = ref::SoftmaxStats;
    take(sampled_statistics("m at least 0: the running maximum starts there", [](const Stats& x) {
      const double m = std::max(x.m, 0.0);
      return Stats{m, x.l * std::exp(x.m - m), x.lse};
    }));
    take(sampled_statistics("m in base 2", [](const Stats& x) {
      return Stats{x.m * std::numbers::log2e, x.l, x.lse};
    }));
    take(sampled_statistics("lse in place of m", [](const Stats& x) { return Stats{x.lse, x.l, x.lse}; }));
    take(sampled_statistics("lse in base 2 in place of m: out/lse with lse_base = 2", [](const Stats& x) {
      return Stats{x.lse * std::numbers::log2e, x.l, x.lse};
    }));
    take(sampled_statistics("the logarithm of l in place of l", [](const Stats& x) {
      return Stats{x.m, std::log(x.l), x.lse};
    }));
    take(sampled_statistics("1 / l in place of l", [](const Stats& x) {
      return Stats{x.m, 1 / x.l, x.lse};
    }));
    take(sampled_statistics("m is 0: l without a maximum", [](const Stats& x) {
      return Stats{0, std::exp(x.lse), x.lse};
    }));
    if (right.scale != 0) {
      take(sampled_statistics("m without the scale", [scale = right.scale](const Stats& x) {
        return Stats{x.m / scale, x.l, x.lse};
      }));
    }
  }
  return all;
}

std::vector<DiagnosisEntry> AttentionProblem::explanations(std::span<const Expected> expected) const {
  return explain_attention(attention_, saved_, weight_store_, contract_, *case_.in.at("q").dtype, expected);
}

}  // namespace attest
