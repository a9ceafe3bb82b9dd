// Attention with part of its arithmetic in a narrower format, simulated row by row.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>

#include "verify/ops/attention_explanations.hpp"
#include "verify/ops/grid.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Nearly any errors can be taken for a scale that is off, if only by little.
constexpr double least_scale_error = 2e-5, least_explained_by_scale = 0.8;

/// A scale that is fitted has a freedom that other explanations do not have.
constexpr double preference_for_constants = 0.9;

/// A kernel that departs from exact arithmetic where a function is given.
struct Device {
  std::string fault;
  Round query, key, value;  // elements of q, k and v
  Round scaled_query;       // elements of scale q
  Round product_sum;        // the running sum of q.k, every `product_step` elements
  Index product_step = 16;
  Round raw_score;  // q.k
  Round score;
  Round weight;  // relative to the running maximum, or normalised
  bool is_normalised = false;
  Round sum;                             // the running sum of weights, every `tile` keys
  Round factor;                          // by which older tiles are rescaled
  Round part;                            // the sum of P V over `tile` keys, before it joins the others
  Round output_sum;                      // the running sum of P V, every `step` keys
  Index tile = 1 << 20, step = 1 << 20;  // keys between two updates of the running maximum
  Round output;
  double scale_factor = 1;
};

struct Answer {
  std::vector<double> o;
  double lse;
};

double capped(const AttentionRow& row, double x) {
  const double c = row.spec->softcap;
  return c > 0 ? c * std::tanh(x / c) : x;
}

std::vector<double> scores(const Device& device, const AttentionRow& row) {
  std::vector<double> s = row.score;
  const bool changes_operands = device.query || device.key || device.scaled_query;
  const bool changes_products = device.product_sum || device.raw_score || device.scale_factor != 1;
  if (!(changes_operands || changes_products || device.score)) return s;
  const Index width = row.in->qk_width();
  const double scale = row.spec->scale;
  const auto plain = [](double x) { return x; };
  const Round query = device.query ? device.query : plain, key = device.key ? device.key : plain;
  std::vector<double> q(width);
  for (Index d = 0; d < width; ++d) {
    q[d] = device.scaled_query ? device.scaled_query(scale * row.q(d)) / scale : query(row.q(d));
  }
  for (Index c = 0; c < row.count(); ++c) {
    double x = row.product[c];
    if (changes_operands || device.product_sum) {
      double sum = 0, part = 0;
      for (Index d = 0; d < width; ++d) {
        part += q[d] * key(row.k(c, d));
        if (!device.product_sum || (d + 1) % device.product_step != 0) continue;
        sum = device.product_sum(sum + part);
        part = 0;
      }
      x = scale * (sum + part);
    }
    if (device.raw_score) x = scale * device.raw_score(x / scale);
    s[c] += capped(row, x * device.scale_factor) - capped(row, row.product[c]);
    if (device.score) s[c] = device.score(s[c]);
  }
  return s;
}

Answer run(const Device& device, const AttentionRow& row) {
  const std::vector<double> s = scores(device, row);
  const Index n = row.count(), width = row.in->v_width();
  const auto rounded = [](const Round& round, double x) { return round ? round(x) : x; };
  double top = row.in->sink ? row.in->sink(row.h) : -infinity, l = row.in->sink ? 1 : 0, all = top;
  double total = 0;  // for normalised weights
  for (const double x : s) all = std::max(all, x);
  for (Index c = 0; c < n; ++c) total += std::exp(s[c] - all);
  if (row.in->sink) total += std::exp(top - all);
  if (device.is_normalised) top = all + std::log(total), l = 0;

  Answer answer{std::vector<double>(width), 0};
  std::vector<double> part(width);
  const auto add_part = [&] {
    for (Index e = 0; e < width; ++e) {
      answer.o[e] = rounded(device.output_sum, answer.o[e] + rounded(device.part, part[e]));
      part[e] = 0;
    }
  };
  for (Index first = 0; first < n; first += device.tile) {
    const Index last = std::min(n, first + device.tile);
    double m = top;
    for (Index c = first; c < last && !device.is_normalised; ++c) m = std::max(m, s[c]);
    const double factor = m == top ? 1 : std::exp(top - m);
    top = m;
    if (factor != 1) {
      for (double& x : answer.o) x = rounded(device.output_sum, x * rounded(device.factor, factor));
    }
    double sum = 0;
    for (Index c = first; c < last; ++c) {
      const double p = std::exp(s[c] - m);
      const double w = device.weight ? device.weight(p) : row.p[c] > 0 ? p * (row.stored[c] / row.p[c]) : p;
      sum += p;
      for (Index e = 0; e < width; ++e) part[e] += w * rounded(device.value, row.v(c, e));
      if ((c + 1 - first) % device.step == 0) add_part();
    }
    add_part();
    l = rounded(device.sum, l * factor + sum);
  }
  if (device.is_normalised) l = 1;
  for (double& x : answer.o) x = rounded(device.output, x / l);
  answer.lse = top + (device.is_normalised ? 0 : std::log(l));
  return answer;
}

/// Of o, and of lse.
struct Fits {
  Fit o, lse;
};

Fits fits(const Device& device, std::span<const AttentionRow> rows) {
  Fits total;
  for (const AttentionRow& row : rows) {
    const Answer answer = run(device, row);
    for (std::size_t e = 0; e < row.o.size(); ++e)
      total.o.add(row.got[e], row.o[e], answer.o[e], row.sigma[e], row.replayed_in);
    if (row.has_lse && row.lse_sigma > 0) {
      total.lse.add(row.got_lse, row.lse, answer.lse, row.lse_sigma);
    }
  }
  return total;
}

Fit fit(const Device& device, std::span<const AttentionRow> rows) {
  const Fits both = fits(device, rows);
  return both.o.denies() || both.lse.denies() ? Fit{} : both.o + both.lse;
}

/// Of the exact answer with another scale.
Fits fits_of_scale(std::span<const AttentionRow> rows, double factor) {
  Device device;
  device.scale_factor = factor;
  return fits(device, rows);
}

bool is_narrower(const Grid& grid, const Format& format) {
  return grid.precision < format.precision || grid.emin > format.emin;
}

std::vector<Device> devices(const Contract& contract, DType element) {
  std::vector<Device> all;
  const auto add = [&](const std::string& fault) -> Device& {
    all.emplace_back().fault = fault;
    return all.back();
  };
  const Format &p = format_of(contract.p_dtype), &softmax = format_of(contract.softmax_dtype),
               &type = format_of(element);
  add("o cut off instead of rounded").output = to({"", type.precision, type.emin}, 1, true);
  if (type.precision >= 24) {  // before float16, which rounds alike in its range
    for (const bool cuts_off : {false, true}) {
      for (const bool has_p : {false, true}) {
        Device& device = add("products in tf32");
        device.query = device.key = device.value = to(tf32, 1, cuts_off);
        if (has_p) device.weight = device.value;
      }
    }
  }
  for (const Grid& grid : narrow_grids) {
    const std::string name = grid.name;
    if (is_narrower(grid, p)) {
      add("weights P stored in " + name).weight = to(grid);
      Device& normalised = add("weights P stored in " + name);
      normalised.weight = to(grid), normalised.is_normalised = true;
      for (const Index tile : {16, 32, 64, 128}) {
        Device& tiled = add("weights P stored in " + name);
        tiled.weight = to(grid), tiled.tile = tile;
      }
      if (grid.precision < 8) {
        for (const double unit : {256.0, 448.0}) {
          for (const Index tile : {64, 128, 1 << 20}) {
            Device& scaled = add("weights P stored in " + name);
            scaled.weight = to(grid, unit), scaled.tile = tile;
          }
        }
      }
    }
    if (is_narrower(grid, softmax)) {
      add("scores stored in " + name).score = to(grid);
      add("scores stored in " + name).score = to(grid, 1.44269504088896340736);
      add("scores stored in " + name + " before the scale").raw_score = to(grid);
      for (const Index step : {1, 4, 8, 16, 32}) {
        Device& sum = add("q.k accumulated in " + name);
        sum.product_sum = to(grid), sum.product_step = step;
      }
      for (const Index tile : {16, 32, 64, 128, 1 << 20}) {
        Device& row_sum = add("the row sum accumulated in " + name);
        row_sum.sum = to(grid), row_sum.tile = tile;
        Device& whole_tiles = add("P.V accumulated in " + name);
        whole_tiles.part = whole_tiles.output_sum = whole_tiles.factor = to(grid), whole_tiles.tile = tile;
        for (const bool cuts_off : {false, true}) {
          Device& part = add("P.V accumulated in " + name);
          part.part = to(grid, 1, cuts_off), part.tile = tile;
          for (const Index step : {8, 16, 32, 64, 128}) {
            if (step > tile) continue;
            Device& sum = add("P.V accumulated in " + name);
            sum.output_sum = to(grid, 1, cuts_off), sum.step = step, sum.tile = tile;
          }
        }
      }
    }
    if (is_narrower(grid, type)) {
      add("o stored in " + name + " on the way").output = to(grid);
      add("q converted to " + name).query = to(grid);
      add("k converted to " + name).key = to(grid);
      add("v converted to " + name).value = to(grid);
      Device& cache = add("k and v converted to " + name);
      cache.key = cache.value = to(grid);
      Device& inputs = add("q, k and v converted to " + name);
      inputs.query = inputs.key = inputs.value = to(grid);
    }
  }
  if (type.precision < 24) {  // an element type that tensor cores multiply exactly
    const Grid grid{"", type.precision, type.emin};
    add("q multiplied by the scale and stored in " + std::string(type.name)).scaled_query = to(grid);
    add("q multiplied by the scale and stored in " + std::string(type.name)).scaled_query =
        to(grid, 1.44269504088896340736);
  }
  const Grid stored{"", p.precision, p.emin};
  for (const Index tile : {32, 64, 128, 1 << 20}) {
    Device& cut = add("weights P cut off instead of rounded");
    cut.weight = to(stored, 1, true), cut.tile = tile;
  }
  return all;
}

}  // namespace

std::vector<DiagnosisEntry> wrong_scale(std::span<const AttentionRow> rows) {
  const auto explained = [&](double factor) {
    const Fits both = fits_of_scale(rows, factor);
    return (both.o + both.lse).explained();
  };
  // What a scale that is a little off does is proportional to it. If it is far off, steps have to find it.
  constexpr double little = 1e-4;
  const Fits near_one = fits_of_scale(rows, 1 + little);
  const Fit start = near_one.o + near_one.lse;
  double best = 1 + little * start.slope(), step = std::abs(best - 1) / 2;
  if (!(best > 0.5 && best < 2)) best = 1, step = 0.4;
  double most = explained(best);
  for (int n = 0; n < 30 && step > least_scale_error / 4; ++n) {
    const double up = explained(best + step), down = explained(best - step);
    if (std::max(up, down) > most) {
      best += up > down ? step : -step;
      most = std::max(up, down);
    } else {
      step /= 2;
    }
  }
  const double off = best - 1;
  if (std::abs(off) < least_scale_error || most < least_explained_by_scale) return {};
  // o and lse have to agree on it. Where the scale hardly matters, they need not.
  const Fits both = fits_of_scale(rows, best);
  for (const Fit& x : {both.o, both.lse}) {
    if (x.tells() && x.explained() < least_explained_by_scale) return {};
  }
  char cause[48];
  std::snprintf(cause, sizeof cause, "a scale %.3g %% too %s", 100 * std::abs(off),
                off > 0 ? "large" : "small");
  return {{cause, preference_for_constants * most,
           "it would make " + percent(most) + " of the errors beyond what the contract explains"}};
}

std::vector<DiagnosisEntry> narrow_arithmetic(std::span<const AttentionRow> rows, const Contract& contract,
                                              DType element) {
  return likeliest(devices(contract, element),
                   [&](const Device& device) { return fit(device, rows).explained(); });
}

}  // namespace attest
