// Inputs of attention as kernels have misread them.
#include "verify/ops/attention/misreadings.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/dtype.hpp"
#include "verify/diagnosis/grid.hpp"
#include "verify/ops/attention/misreader.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

double capped(double x, double cap) {
  return cap > 0 ? cap * std::tanh(x / cap) : x;
}

double product(const AttentionInputs& in, Index h, Index i, Index j) {
  double sum = 0;
  for (Index d = 0; d < in.qk_width(); ++d) sum += in.q(h, i, d) * in.k(in.kv_head(h), j, d);
  return sum;
}

/// Press, Smith and Lewis 2022: 2^(-8 n / H) for n = 1 ... H; where H is no power of two, those of the power
/// below, then every other one of the power above.
Array<double, 1> usual_slopes(Index heads) {
  Array<double, 1> slopes({heads});
  Index power = 1;
  while (2 * power <= heads) power *= 2;
  for (Index h = 0; h < heads; ++h) {
    const double n = static_cast<double>(h < power ? 2 * (h + 1) : 2 * (h - power) + 1);
    slopes(h) = std::exp2(-4 * n / static_cast<double>(power));
  }
  return slopes;
}

bool is_visible(const AttentionSpec& spec, const AttentionInputs& in, Index h, Index i, Index j) {
  const Index at = diagonal(spec, in, i);
  return (spec.causal == Causal::none || j <= at) && (spec.window_left < 0 || j >= at - spec.window_left) &&
         (spec.window_right < 0 || j <= at + spec.window_right) && (!in.mask || in.mask(h, i, j) != 0);
}

}  // namespace

void Misreader::of_masks(const AttentionInputs& in) {
  if (!has_few_scores_) return;
  if (in.mask) {
    mask("in/mask the other way round",
         [](const AttentionInputs& x, Index h, Index i, Index j) { return x.mask(h, i, j) == 0; });
    mask("in/mask of another row: the one before", [](const AttentionInputs& x, Index h, Index i, Index j) {
      return x.mask(h, std::max<Index>(i - 1, 0), j) != 0;
    });
  }
  for (const Index tile : {16, 32, 64, 128}) {
    if (spec_.window_left < 0 || in.keys() <= tile) continue;
    mask(
        "window_left rounded to tiles of " + std::to_string(tile),
        [tile, spec = spec_](const AttentionInputs& x, Index h, Index i, Index j) {
          AttentionSpec seen = spec;
          seen.window_left = -1;
          const Index first = std::max<Index>(diagonal(spec, x, i) - spec.window_left, 0);
          return j >= first / tile * tile && is_visible(seen, x, h, i, j);
        },
        true);
  }
  if (spec_.causal == Causal::none || spec_.window_left >= 0) return;
  for (const Index tile : {16, 32, 64, 128}) {
    if (in.keys() <= tile) continue;
    mask("the tile of " + std::to_string(tile) + " keys on the diagonal missing",
         [tile, spec = spec_](const AttentionInputs& x, Index h, Index i, Index j) {
           const Index at = diagonal(spec, x, i);
           return j < at / tile * tile && is_visible(spec, x, h, i, j);
         });
    all.back().is_of_whole_call = true;  // a lost tile of keys has these rows wrong, too
    mask(
        "no causal mask within tiles of " + std::to_string(tile) + " on the diagonal",
        [tile, spec = spec_](const AttentionInputs& x, Index h, Index i, Index j) {
          const Index last_row = std::min(i / tile * tile + tile, x.queries()) - 1;
          const Index last_key = diagonal(spec, x, last_row), end = (last_key / tile + 1) * tile;
          return last_key >= 0 && j < end && (!x.mask || x.mask(h, i, j) != 0);
        },
        true);
  }
}

void Misreader::of_scores(const AttentionInputs& in) {
  if (!has_few_scores_) return;
  const double scale = spec_.scale, cap = spec_.softcap;
  if (in.mask) {
    const Kept<3> numbers([](const AttentionInputs& x) {
      return of_pairs(x, [&](Index h, Index i, Index j) {
        return (x.bias ? x.bias(h, i, j) : 0) + (x.mask(h, i, j) != 0 ? 1 : 0);
      });
    });
    add("in/mask read as a bias of 1 and 0", [numbers](AttentionInputs& x) {
      x.bias = numbers(x);
      x.mask = {};
    });
  }
  if (in.bias) {
    for (const auto& [name, factor] :
         {std::pair{"in/bias multiplied by the scale", scale},
          std::pair{"in/bias without log2(e), in base 2", std::numbers::ln2},
          std::pair{"in/bias of the other sign", -1.0}, std::pair{"in/bias added twice", 2.0}}) {
      if (factor == 1) continue;
      add_to_bias(name, [f = factor](const AttentionInputs& x, Index h, Index i, Index j) {
        const double b = x.bias(h, i, j);
        return std::isfinite(b) ? (f - 1) * b : 0;
      });
    }
    const auto read_at = [&](const std::string& name, auto place) {
      const Kept<3> bias([place](const AttentionInputs& x) {
        return of_pairs(x, [&](Index h, Index i, Index j) { return place(x, h, i, j); });
      });
      add(name, [bias](AttentionInputs& x) { x.bias = bias(x); });
    };
    if (in.q_heads() > 1) {
      read_at("in/bias of head 0 in all heads",
              [](const AttentionInputs& x, Index, Index i, Index j) { return x.bias(0, i, j); });
      read_at("in/bias of another head: the one after",
              [](const AttentionInputs& x, Index h, Index i, Index j) {
                return x.bias((h + 1) % x.q_heads(), i, j);
              });
    }
    if (in.queries() == in.keys()) {
      read_at("in/bias with rows for columns", [](const AttentionInputs& x, Index h, Index i, Index j) {
        const bool is_inside = j < x.queries() && i < x.keys();  // other entries may have fewer keys
        return is_inside ? x.bias(h, j, i) : x.bias(h, i, j);
      });
    }
    for (const DType narrow : {DType::float16, DType::bfloat16}) {
      add_to_bias("in/bias rounded to " + std::string(format_of(narrow).name),
                  [narrow](const AttentionInputs& x, Index h, Index i, Index j) {
                    const double b = x.bias(h, i, j);
                    return std::isfinite(b) ? round_to(b, narrow) - b : 0;
                  });
    }
    if (cap > 0) {
      add_to_bias("in/bias before the softcap", [=](const AttentionInputs& x, Index h, Index i, Index j) {
        const double b = x.bias(h, i, j), s = scale * product(x, h, i, j);
        return std::isfinite(b) ? capped(s + b, cap) - capped(s, cap) - b : 0;
      });
    }
  }
  if (cap <= 0) return;
  add_to_bias("softcap applied twice", [=](const AttentionInputs& x, Index h, Index i, Index j) {
    const double s = capped(scale * product(x, h, i, j), cap);
    return capped(s, cap) - s;
  });
  add_to_bias("softcap without its factor: x tanh(x / c)",
              [=](const AttentionInputs& x, Index h, Index i, Index j) {
                const double s = scale * product(x, h, i, j);
                return s * std::tanh(s / cap) - capped(s, cap);
              });
  add_to_bias("softcap without its outer factor: tanh(x / c)",
              [=](const AttentionInputs& x, Index h, Index i, Index j) {
                const double s = scale * product(x, h, i, j);
                return std::tanh(s / cap) - capped(s, cap);
              });
  add_to_bias("softcap without its inner factor: c tanh(x)",
              [=](const AttentionInputs& x, Index h, Index i, Index j) {
                const double s = scale * product(x, h, i, j);
                return cap * std::tanh(s) - capped(s, cap);
              });
  add_to_bias("softcap applied again to scores in base 2",
              [=](const AttentionInputs& x, Index h, Index i, Index j) {
                const double s = capped(scale * product(x, h, i, j), cap);
                return capped(std::numbers::log2e * s, cap) * std::numbers::ln2 - s;
              });
  for (const auto& [name, factor] :
       {std::pair{"exp2 for exp: capped scores ln(2) too small", std::numbers::ln2},
        {"exp for exp2: capped scores log2(e) too large", std::numbers::log2e}}) {
    add_to_bias(name, [=, f = factor](const AttentionInputs& x, Index h, Index i, Index j) {
      return (f - 1) * capped(scale * product(x, h, i, j), cap);
    });
  }
  if (scale != 1) {
    add_to_bias("softcap before the scale", [=](const AttentionInputs& x, Index h, Index i, Index j) {
      const double s = product(x, h, i, j);
      return scale * capped(s, cap) - capped(scale * s, cap);
    });
  }
  add_to_bias(
      "softcap of masked keys: it came after the mask",
      [=, spec = spec_](const AttentionInputs& x, Index h, Index i, Index j) {
        return is_visible(spec, x, h, i, j) ? 0 : -cap - capped(scale * product(x, h, i, j), cap);
      },
      true);
}

void Misreader::of_slopes_and_sinks(const AttentionInputs& in) {
  const auto changed = [](View<const double, 1> x, auto f) {
    Array<double, 1> copy({x.extent(0)});
    for (Index h = 0; h < x.extent(0); ++h) copy(h) = f(x, h);
    return copy;
  };
  const auto scaled = [&](double factor) {
    return [=](View<const double, 1> x, Index h) { return factor * x(h); };
  };
  const auto reversed = [](View<const double, 1> x, Index h) { return x(x.extent(0) - 1 - h); };
  const auto slopes = [&](const std::string& name, auto f) {
    const Kept<1> kept([=](const AttentionInputs& x) { return changed(x.alibi_slopes, f); });
    add(name, [kept](AttentionInputs& x) { x.alibi_slopes = kept(x); });
    all.back().is_of_whole_call = true;  // heads that it has wrong are wrong
  };
  const auto sinks = [&](const std::string& name, auto f) {
    const Kept<1> kept([=](const AttentionInputs& x) { return changed(x.sink, f); });
    add(name, [kept](AttentionInputs& x) { x.sink = kept(x); });
    all.back().is_of_whole_call = true;
  };
  if (in.alibi_slopes) {
    slopes("ALiBi of the other sign", scaled(-1));
    slopes("ALiBi without log2(e), in base 2", scaled(std::numbers::ln2));
    const double heads = static_cast<double>(in.q_heads()), step = std::exp2(8 / heads);
    if (in.q_heads() > 1) {
      slopes("ALiBi slopes of the head before",
             [](View<const double, 1> x, Index h) { return x(std::max<Index>(h - 1, 0)); });
      slopes("ALiBi slopes of the head after",
             [](View<const double, 1> x, Index h) { return x(std::min(h + 1, x.extent(0) - 1)); });
      slopes("ALiBi slopes in the reverse order of heads", reversed);
      slopes("ALiBi slopes 2^(8/Hq) times too large: those of the head before", scaled(step));
      slopes("ALiBi slopes 2^(8/Hq) times too small: those of the head after", scaled(1 / step));
    }
    if (in.group() > 1) {
      slopes("ALiBi slopes of the key/value heads",
             [group = in.group()](View<const double, 1> x, Index h) { return x(h / group); });
    }
  } else {
    const Kept<1> usual([](const AttentionInputs& x) { return usual_slopes(x.q_heads()); });
    add("ALiBi with the usual slopes, which the dump does not declare",
        [usual](AttentionInputs& x) { x.alibi_slopes = usual(x); });
  }
  if (in.sink) {
    if (spec_.scale != 1) sinks("in/sink multiplied by the scale", scaled(spec_.scale));
    sinks("in/sink without log2(e), in base 2", scaled(std::numbers::ln2));
    if (in.q_heads() > 1) sinks("in/sink in the reverse order of heads", reversed);
    if (in.q_heads() > 1)
      sinks("in/sink of head 0 in all heads", [](View<const double, 1> x, Index) { return x(0); });
    if (in.group() > 1) {
      sinks("in/sink of the key/value heads",
            [group = in.group()](View<const double, 1> x, Index h) { return x(h / group); });
    }
    for (const Grid& grid : narrow_grids) {
      if (grid.precision < 8) continue;
      for (const double log2_e : {grid.round(std::numbers::log2e), std::numbers::log2e}) {
        sinks(
            "in/sink times log2(e) rounded to " + std::string(grid.name),
            [=](View<const double, 1> x, Index h) { return grid.round(x(h) * log2_e) * std::numbers::ln2; });
      }
    }
    for (const int splits : {2, 3, 4, 8}) {
      sinks("in/sink counted once in each of " + std::to_string(splits) + " splits",
            [=](View<const double, 1> x, Index h) { return x(h) + std::log(splits); });
    }
  }
}

std::vector<NamedMisreading> misreadings(const AttentionSpec& spec, const AttentionInputs& in) {
  Misreader found(spec, in);
  found.of_masks(in);
  found.of_scores(in);
  found.of_slopes_and_sinks(in);
  found.of_heads(in);
  found.of_columns(in);
  found.of_values(in);
  return std::move(found.all);
}

}  // namespace attest
