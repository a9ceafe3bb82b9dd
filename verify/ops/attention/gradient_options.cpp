// Options that the backward pass alone misreads: masks, windows and their tiles, softcap, biases, padding.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "verify/ops/attention/gradient_terms.hpp"

namespace attest {
namespace {

constexpr Index tiles[] = {64, 128, 32, 16};  // usual ones first: of names that say the same, the first

Index rounded_up(Index x, Index tile) {
  return x <= 0 ? -(-x / tile) * tile : (x + tile - 1) / tile * tile;
}
Index rounded_down(Index x, Index tile) {
  return -rounded_up(-x, tile);
}

class Options {
 public:
  explicit Options(const BackwardPass& pass) : pass_(pass), b_(&pass_), spec_(pass.spec()) {}
  std::vector<GradientFault> all;

  void of_masks();
  void of_diagonals();
  void of_tiles();
  void of_key_loops();
  void of_row_loops();
  void of_padding();
  void of_scores();
  void of_softcap();
  /// The simplest fault of all, in part of the terms.
  void of_sums() {
    loses("terms of the sum missing", [](const GradientTerm&, Index) { return true; });
  }

 private:
  template <class Change>
  void add(const std::string& name, Change change) {
    all.push_back({name, std::move(change)});
  }
  /// sees(term, diagonal, position): what stands for the diagonal and the windows.
  template <class Sees>
  void reach(const std::string& name, Sees sees) {
    add(name, [b = b_, sees](GradientTerm& t) {
      t.is_visible = t.key.j < b->keys(t.row.n) && b->is_in_mask(t.row, t.key.j) &&
                     sees(t, b->diagonal_of(t.row.n, t.row.i), b->in(t.row.n).key_position(t.key.j));
    });
  }
  template <class Change>
  void with_spec(const std::string& name, Change change) {
    AttentionSpec seen = spec_;
    change(seen);
    reach(name, [seen](const GradientTerm&, Index diagonal, Index position) {
      return BackwardPass::is_in_reach(seen, diagonal, position);
    });
  }
  /// Rows or keys that a loop leaves out, of those that the options leave.
  template <class Loses>
  void loses(const std::string& name, Loses lost) {
    add(name, [lost, b = b_](GradientTerm& t) {
      if (t.is_visible && lost(t, b->diagonal_of(t.row.n, 0))) t.is_visible = false;
    });
  }
  bool is_causal() const { return spec_.causal != Causal::none; }
  bool has_left() const { return spec_.window_left >= 0; }
  bool has_right() const { return spec_.window_right >= 0; }

  const BackwardPass& pass_;
  const BackwardPass* const b_;
  const AttentionSpec spec_;
};

void Options::of_masks() {
  if (pass_.in(0).mask) {
    add("in/mask ignored", [b = b_](GradientTerm& t) {
      t.is_visible =
          t.key.j < b->keys(t.row.n) && BackwardPass::is_in_reach(b->spec(), b->diagonal_of(t.row.n, t.row.i),
                                                                  b->in(t.row.n).key_position(t.key.j));
    });
    add("in/mask the other way round", [b = b_](GradientTerm& t) {
      t.is_visible = t.key.j < b->keys(t.row.n) && !b->is_in_mask(t.row, t.key.j) &&
                     BackwardPass::is_in_reach(b->spec(), b->diagonal_of(t.row.n, t.row.i),
                                               b->in(t.row.n).key_position(t.key.j));
    });
  }
  if (is_causal()) with_spec("causal mask ignored", [](AttentionSpec& s) { s.causal = Causal::none; });
  if (has_left()) with_spec("window_left ignored", [](AttentionSpec& s) { s.window_left = -1; });
  if (has_right()) with_spec("window_right ignored", [](AttentionSpec& s) { s.window_right = -1; });
  if (is_causal() + has_left() + has_right() > 1) {
    with_spec("causal mask and windows ignored",
              [](AttentionSpec& s) { s.causal = Causal::none, s.window_left = s.window_right = -1; });
  }
  for (const Index by : {1, -1}) {
    const std::string key = by > 0 ? " one key too wide" : " one key short";
    if (has_left()) with_spec("window_left" + key, [by](AttentionSpec& s) { s.window_left += by; });
    if (has_right()) with_spec("window_right" + key, [by](AttentionSpec& s) { s.window_right += by; });
  }
  const bool has_lengths = [&] {
    for (std::size_t n = 0; n < pass_.sequences(); ++n)
      if (pass_.keys(n) < pass_.in(n).keys()) return true;
    return false;
  }();
  if (!has_lengths) return;
  // What only the rounding up to tiles makes visible is told by where it is wrong.
  add("in/kv_lengths ignored: absent keys take part", [b = b_](GradientTerm& t) {
    t.is_visible |= t.key.j >= b->keys(t.row.n) &&
                    BackwardPass::is_in_reach(b->spec(), b->diagonal_of(t.row.n, t.row.i), t.key.j);
  });
  add("in/kv_lengths ignored: absent keys take part, and the diagonal begins where all keys end",
      [b = b_](GradientTerm& t) {
        const Index more = b->in(t.row.n).keys() - b->keys(t.row.n);
        t.is_visible = b->is_in_mask(t.row, t.key.j) &&
                       BackwardPass::is_in_reach(b->spec(), b->diagonal_of(t.row.n, t.row.i) + more, t.key.j);
      });
  if (is_causal()) {
    add("in/kv_lengths ignored: absent keys take part, beyond the diagonal, too",
        [b = b_](GradientTerm& t) { t.is_visible |= t.key.j >= b->keys(t.row.n); });
  }
}

void Options::of_diagonals() {
  if (!is_causal() && !has_left() && !has_right()) return;
  const auto shifted = [&](const std::string& name, auto shift, bool of_causal, bool of_windows) {
    reach(name, [=, spec = spec_](const GradientTerm& t, Index diagonal, Index position) {
      AttentionSpec causal = spec, windows = spec;
      causal.window_left = causal.window_right = -1;
      windows.causal = Causal::none;
      const Index by = shift(t);
      return BackwardPass::is_in_reach(causal, diagonal + (of_causal ? by : 0), position) &&
             BackwardPass::is_in_reach(windows, diagonal + (of_windows ? by : 0), position);
    });
  };
  const auto all_of = [&](const std::string& name, auto shift) {
    const bool has_windows = has_left() || has_right();
    if (is_causal() && has_windows) {
      shifted("diagonal and window " + name, shift, true, true);
    }
    if (is_causal()) shifted("a causal diagonal " + name, shift, true, false);
    if (has_windows) shifted("a window " + name, shift, false, true);
  };
  all_of("one key too far", [](const GradientTerm&) { return Index{1}; });
  all_of("one key short", [](const GradientTerm&) { return Index{-1}; });
  const auto to_top = [b = b_](const GradientTerm& t) { return -b->diagonal_of(t.row.n, 0); };
  const auto to_bottom = [b = b_](const GradientTerm& t) {
    return b->keys(t.row.n) - b->in(t.row.n).queries() - b->diagonal_of(t.row.n, 0);
  };
  all_of("from the top left corner", to_top);
  all_of("from the bottom right corner", to_bottom);
}

/// Masks that do not hold within the tiles that they cross, or lose these tiles.
void Options::of_tiles() {
  for (const Index rows : tiles) {
    for (const Index keys : tiles) {
      const std::string of = std::to_string(rows) + " rows and " + std::to_string(keys) + " keys";
      const auto touches = [=, b = b_](const GradientTerm& t, const AttentionSpec& spec, Index position) {
        const Index first = t.row.i / rows * rows;
        const Index last = std::min(first + rows, b->in(t.row.n).queries()) - 1;
        const Index first_key = position / keys * keys, last_key = first_key + keys - 1;
        const Index from = b->diagonal_of(t.row.n, first), to = b->diagonal_of(t.row.n, last);
        return (spec.causal == Causal::none || first_key <= to) &&
               (spec.window_left < 0 || last_key >= from - spec.window_left) &&
               (spec.window_right < 0 || first_key <= to + spec.window_right);
      };
      const auto within = [&](const std::string& name, bool of_causal, bool of_windows) {
        AttentionSpec exact = spec_, loose = spec_;
        if (of_causal) exact.causal = Causal::none;
        if (of_windows) exact.window_left = exact.window_right = -1;
        if (!of_causal) loose.causal = Causal::none;
        if (!of_windows) loose.window_left = loose.window_right = -1;
        reach(name + " not applied within tiles of " + of,
              [=](const GradientTerm& t, Index diagonal, Index position) {
                return BackwardPass::is_in_reach(exact, diagonal, position) && touches(t, loose, position);
              });
      };
      if (is_causal()) {
        reach("a causal diagonal from the top left corner, in the tiles of " + of + " that take part",
              [=, spec = spec_](const GradientTerm& t, Index diagonal, Index position) {
                AttentionSpec windows = spec;
                windows.causal = Causal::none;
                return position <= t.row.i && BackwardPass::is_in_reach(windows, diagonal, position) &&
                       touches(t, spec, position);
              });
      }
      const bool has_windows = has_left() || has_right();
      if (is_causal()) within("the causal mask", true, false);
      if (has_windows) within("the window", false, true);
      if (is_causal() && has_windows) within("causal mask and window", true, true);
      if (is_causal()) {
        loses("keys of the tile on the diagonal lost, in tiles of " + of,
              [=, b = b_](const GradientTerm& t, Index) {
                const Index first = t.row.i / rows * rows;
                return t.key.j >= rounded_down(b->diagonal_of(t.row.n, first), keys);
              });
      }
    }
  }
  if (is_causal()) {
    reach("the diagonal itself left out",
          [spec = spec_](const GradientTerm&, Index diagonal, Index position) {
            return position != diagonal && BackwardPass::is_in_reach(spec, diagonal, position);
          });
  }
}

/// Loops over tiles of keys that begin late or end early.
void Options::of_key_loops() {
  for (const Index keys : tiles) {
    for (const Index rows : {64, 128, 32, 16, 1}) {
      const std::string of =
          " lost, in tiles of " + std::to_string(rows) + " rows and " + std::to_string(keys) + " keys";
      if (has_left()) {
        loses("keys of the leftmost tile of the window" + of,
              [=, left = spec_.window_left](const GradientTerm& t, Index offset) {
                return t.key.j < rounded_up(offset + t.row.i / rows * rows - left, keys);
              });
      }
      if (is_causal()) {
        loses("keys of the rightmost tile" + of, [=](const GradientTerm& t, Index offset) {
          return t.key.j >= rounded_down(offset + t.row.i / rows * rows + rows, keys);
        });
        loses("keys beyond the tile on the top left diagonal" + of, [=](const GradientTerm& t, Index) {
          return t.key.j >= rounded_up(t.row.i / rows * rows + rows, keys);
        });
      }
    }
  }
}

/// The same of rows.
void Options::of_row_loops() {
  for (const Index rows : {64, 128, 32, 16, 1}) {
    for (const Index keys : {64, 128, 32, 16, 1}) {
      const std::string of =
          " lost, in tiles of " + std::to_string(rows) + " rows and " + std::to_string(keys) + " keys";
      for (const bool up : {true, false}) {
        if (rows == 1 && !up) continue;
        const auto rounded = [=](Index x) { return up ? rounded_up(x, rows) : rounded_down(x, rows); };
        for (const Index more : {0, 1}) {
          if (!has_left()) continue;
          // The last row that sees a tile of keys is that whose window begins with its last key.
          loses("rows at the end of the window, beyond that of the first key of a tile," + of,
                [=, left = spec_.window_left](const GradientTerm& t, Index offset) {
                  return t.row.i >= rounded(t.key.j / keys * keys + left - offset + more);
                });
          if (up) continue;
          loses("rows of the last partial tile at the end of the window" + of,
                [=, left = spec_.window_left](const GradientTerm& t, Index offset) {
                  return t.row.i >= rounded(t.key.j / keys * keys + keys - 1 + left - offset + more);
                });
        }
        if (!is_causal()) continue;
        loses("rows of the first tile on the diagonal" + of, [=](const GradientTerm& t, Index offset) {
          return t.row.i < rounded(t.key.j / keys * keys - offset + (up ? 0 : rows));
        });
        loses("rows before the tile on the top left diagonal" + of,
              [=](const GradientTerm& t, Index) { return t.row.i < rounded(t.key.j / keys * keys); });
      }
    }
  }
}

/// Rows and keys that padding repeats.
void Options::of_padding() {
  for (const Index tile : tiles) {
    add("rows beyond the last, up to tiles of " + std::to_string(tile) + ", read it again and are counted",
        [=, b = b_](GradientTerm& t) {
          const Index rows = b->in(t.row.n).queries();
          if (t.row.i != rows - 1 || t.key.j >= b->keys(t.row.n)) return;
          double count = t.is_visible ? 1 : 0;
          for (Index i = rows; i < rounded_up(rows, tile); ++i)
            count += BackwardPass::is_in_reach(b->spec(), b->diagonal_of(t.row.n, i),
                                               b->in(t.row.n).key_position(t.key.j)) &&
                     b->is_in_mask(t.row, t.key.j);
          t.is_visible = count > 0, t.count = count;
        });
    add("keys beyond the last, up to tiles of " + std::to_string(tile) + ", read it again and are counted",
        [=, b = b_](GradientTerm& t) {
          const Index keys = b->keys(t.row.n);
          if (t.key.j == keys - 1) t.count = static_cast<double>(rounded_up(keys, tile) - keys + 1);
        });
  }
}

/// The scores that P is computed of again.
void Options::of_scores() {
  const double scale = spec_.scale;
  for (const auto& [name, factor] : {std::pair{"no scale in the scores", 1 / scale},
                                     std::pair{"the scale applied twice to the scores", scale}}) {
    if (scale != 0 && factor != 1) add(name, [f = factor](GradientTerm& t) { t.product *= f; });
  }
  if (pass_.in(0).bias) {
    for (const auto& [name, factor] :
         {std::pair{"in/bias ignored", 0.0}, std::pair{"in/bias multiplied by the scale", scale},
          std::pair{"in/bias without log2(e), in base 2", std::numbers::ln2},
          std::pair{"in/bias times log2(e), in base e", std::numbers::log2e},
          std::pair{"in/bias of the other sign", -1.0}, std::pair{"in/bias added twice", 2.0}}) {
      add(name, [f = factor](GradientTerm& t) {
        if (std::isfinite(t.bias)) t.bias *= f;
      });
    }
  }
  if (!pass_.in(0).alibi_slopes) return;
  for (const auto& [name, factor] :
       {std::pair{"ALiBi ignored", 0.0}, std::pair{"ALiBi multiplied by the scale", scale},
        std::pair{"ALiBi without log2(e), in base 2", std::numbers::ln2},
        std::pair{"ALiBi times log2(e), in base e", std::numbers::log2e},
        std::pair{"ALiBi of the other sign", -1.0}, std::pair{"ALiBi added twice", 2.0}})
    add(name, [f = factor](GradientTerm& t) { t.alibi *= f; });
  add("ALiBi's distance |i - j|: offset of the diagonal forgotten",
      [b = b_](GradientTerm& t) { t.alibi = b->alibi(t.row, t.key.j, t.row.i); });
  add("ALiBi's distance from the bottom right diagonal", [b = b_](GradientTerm& t) {
    t.alibi = b->alibi(t.row, t.key.j, b->keys(t.row.n) - b->in(t.row.n).queries() + t.row.i);
  });
}

void Options::of_softcap() {
  const double cap = spec_.softcap, scale = spec_.scale;
  if (cap <= 0) return;
  const auto slope = [&](const std::string& name, auto f) {
    if (pass_.output() == "dv") return;
    add("the derivative of the softcap " + name, [=](GradientTerm& t) {
      const double x = scale * t.product / cap;
      t.slope = f(t, x, std::tanh(x));
    });
  };
  using Term = const GradientTerm&;
  slope("missing", [](Term, double, double) { return 1.0; });
  slope("without a square: 1 - t", [](Term, double, double t) { return 1 - t; });
  slope("without a square: 1 - |t|", [](Term, double, double t) { return 1 - std::abs(t); });
  slope("squared: applied twice", [](Term, double, double t) { return (1 - t * t) * (1 - t * t); });
  slope("taken at the capped score", [](Term, double, double t) { return 1 - std::pow(std::tanh(t), 2); });
  slope("taken at the unscaled score",
        [scale](Term, double x, double) { return 1 - std::pow(std::tanh(x / scale), 2); });
  slope("of the capped score not divided by the cap",
        [cap](Term, double, double t) { return 1 - cap * cap * t * t; });
  if (pass_.in(0).bias || pass_.in(0).alibi_slopes) {
    slope("taken at the score with bias", [cap](Term term, double x, double) {
      return 1 - std::pow(std::tanh(x + (term.bias + term.alibi) / cap), 2);
    });
    slope("of the capped score with bias",
          [cap](Term term, double, double t) { return 1 - std::pow(t + (term.bias + term.alibi) / cap, 2); });
  }
  add("softcap ignored", [](GradientTerm& t) { t.is_capped = false; });
  add("softcap ignored in the scores, but not its derivative", [=](GradientTerm& t) {
    t.is_capped = false, t.slope = 1 - std::pow(std::tanh(scale * t.product / cap), 2);
  });
}

}  // namespace

std::vector<GradientFault> wrong_options_of_gradients(const BackwardPass& pass) {
  Options options(pass);
  options.of_softcap();
  options.of_scores();
  options.of_masks();
  options.of_diagonals();
  options.of_padding();
  const bool sums_keys = pass.output() == "dq";
  if (sums_keys) options.of_key_loops();
  options.of_row_loops();
  if (!sums_keys) options.of_key_loops();
  options.of_tiles();
  options.of_sums();
  return std::move(options.all);
}

}  // namespace attest
