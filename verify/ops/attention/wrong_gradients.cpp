// What a faulty backward pass may have done, fitted to the errors of dq, dk and dv.
#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <optional>
#include <utility>

#include "verify/compare.hpp"
#include "verify/diagnosis/grid.hpp"
#include "verify/ops/attention/explanations.hpp"
#include "verify/ops/attention/gradient_regions.hpp"
#include "verify/ops/attention/gradient_sums.hpp"

namespace attest {
namespace {

constexpr double least_explained = 0.8;
constexpr double least_factor = 1e-6;  // of a gradient: below, it is not multiplied but missing

/// Sums over several heads, with the terms of all heads that stand at the same place in one.
std::vector<WeightedSum> of_each_head(const GradientSums& sums) {
  std::vector<WeightedSum> all = sums.rows;
  for (WeightedSum& sum : all) {
    for (Term& term : sum.terms) term.place %= sums.places_of_head;
    std::ranges::stable_sort(sum.terms, {}, &Term::place);
    sum.places = sums.places_of_head;
  }
  return all;
}

/// Of places [first, last) of all heads of a group, one head after another.
std::string rows_of_heads(Index first, Index last, Index rows_of_head) {
  const auto range = [](const char* what, Index from, Index to) {
    return what + (from == to ? " " + std::to_string(from)
                              : "s " + std::to_string(from) + ".." + std::to_string(to));
  };
  const Index h = first / rows_of_head, last_h = (last - 1) / rows_of_head, i = first % rows_of_head,
              last_i = (last - 1) % rows_of_head;
  const std::string heads = range("query head", h, last_h) + " of a group";
  if (i == 0 && last_i == rows_of_head - 1) return heads;
  if (h == last_h) return range("query row", i, last_i) + " of " + heads;
  return "query rows from row " + std::to_string(i) + " of head " + std::to_string(h) + " to row " +
         std::to_string(last_i) + " of head " + std::to_string(last_h) + " of a group";
}

/// places_of_head: fewer than those of a sum where it takes several heads.
std::optional<DiagnosisEntry> wrong_terms(std::span<const WeightedSum> sums, const std::string& output,
                                          Index places_of_head, const std::string& of_each_head = "") {
  const WrongRange range = best_range(sums, false);
  if (range.explained < least_explained) return {};
  const std::string terms = output != "dq" && sums.front().places > places_of_head
                                ? rows_of_heads(range.first, range.last, places_of_head)
                                : (output == "dq" ? "keys " : "query rows ") + std::to_string(range.first) +
                                      ".." + std::to_string(range.last - 1) + of_each_head;
  std::string cause;
  if (range.spans_all(sums.front().places)) {
    const double change = range.change[range.change.size() / 2];
    const std::string factor = factor_text(1 + change);
    if (!range.changes_by(change) || std::abs(1 + change) < least_factor || factor == "1") return {};
    cause = output + " multiplied by " + factor;
  } else if (range.changes_by(-1)) {
    cause = terms + " missing from " + output;
  } else if (range.changes_by(1)) {
    cause = terms + " counted twice in " + output;
  } else {
    return {};
  }
  return DiagnosisEntry{cause, range.explained,
                        "explains " + percent(range.explained) + " of the squared errors of " +
                            std::to_string(sums.size()) + " rows of " + output};
}

/// A kernel that departs from exact arithmetic where a function is given.
struct Device {
  std::string fault;
  std::function<GradientFactors(GradientFactors)> factors;  // what P or dS is made of
  Round weight;                                             // P or dS as stored
  Round total;                                              // the running sum, every `step` terms
  Index step = 1;                                           // of those of one head
  Round output;
};

Fit fit(const Device& device, const GradientSums& sums) {
  Fit total;
  for (std::size_t row = 0; row < sums.rows.size(); ++row) {
    const WeightedSum& sum = sums.rows[row];
    std::vector<double> answer(sum.width()), part(sum.width());
    const auto add_part = [&] {
      for (Index e = 0; e < sum.width(); ++e) {
        answer[e] = device.total ? device.total(answer[e] + part[e]) : answer[e] + part[e];
        part[e] = 0;
      }
    };
    for (std::size_t n = 0; n < sum.terms.size(); ++n) {
      const Term& term = sum.terms[n];
      const auto tile = [&](Index place) {
        return std::pair{place / sums.places_of_head, place % sums.places_of_head / device.step};
      };
      if (device.total && n > 0 && tile(term.place) != tile(sum.terms[n - 1].place)) add_part();
      const double w = device.factors  ? sums.stored(device.factors(sums.factors[row][n]))
                       : device.weight ? device.weight(term.weight)
                                       : term.stored;
      for (Index e = 0; e < sum.width(); ++e) part[e] += w * term.vector[e * sum.step];
    }
    add_part();
    for (Index e = 0; e < sum.width(); ++e) {
      const double x = device.output ? device.output(answer[e]) : answer[e];
      total.add(sum.got[e], sum.exact[e], x, sum.sigma[e], sum.replayed_in);
    }
  }
  return total;
}

std::vector<Device> devices(const Contract& contract, DType element, double scale,
                            const std::string& output) {
  std::vector<Device> all;
  const auto add = [&](const std::string& fault) -> Device& {
    return all.emplace_back(Device{fault, {}, {}, {}, 1, {}});
  };
  const Format &p = format_of(contract.p_dtype), &type = format_of(element);
  const std::string weight = output == "dv" ? "weights P" : "dS";
  // dS is stored before or after it is multiplied by the scale.
  const std::vector<double> units =
      output == "dv" || scale == 0 ? std::vector{1.0} : std::vector{1 / scale, 1.0};
  // What keeps the contract is no fault, and explains what others that do so much explain no better.
  for (const double unit : units) add("").weight = to({"", p.precision, p.emin}, unit);
  add(output + " cut off instead of rounded").output = to({"", type.precision, type.emin}, 1, true);
  for (const Grid& grid : narrow_grids) {
    const bool is_narrower = grid.precision < p.precision || grid.emin > p.emin;
    for (const double unit : units) {
      if (is_narrower) {
        add(weight + " stored in " + grid.name).weight = to(grid, unit);
        const Round first = to({"", p.precision, p.emin}, unit), second = to(grid, unit);
        add(weight + " stored in " + grid.name).weight = [=](double x) { return second(first(x)); };
      }
    }
    if (grid.precision < type.precision || grid.emin > type.emin) {
      add(output + " stored in " + grid.name + " on the way").output = to(grid);
    }
    for (const Index step : {1, 16, 32, 64, 128}) {
      Device& sum = add(output + " accumulated in " + grid.name);
      sum.total = to(grid), sum.step = step;
      if (scale == 0 || output == "dv") continue;
      Device& unscaled = add(output + " accumulated in " + grid.name);
      unscaled.total = to(grid, 1 / scale), unscaled.step = step;
    }
  }
  for (const double unit : units) {
    add(weight + " cut off instead of rounded").weight = to({"", p.precision, p.emin}, unit, true);
  }
  if (type.precision >= 24 && contract.pv.tf32 != Tf32::one) {
    for (const double unit : units) add("products in tf32").weight = to(tf32, unit);
  }
  return all;
}

/// dP summed in another format, every `step` columns.
double narrow_product(const GradientFactors& f, const GradientSums& sums, const Round& total, Index step) {
  double sum = 0, part = 0;
  for (Index e = 0; e < sums.v_width; ++e) {
    part += f.d_o[e * sums.d_o_step] * f.v[e * sums.v_step];
    if ((e + 1) % step != 0) continue;
    sum = total(sum + part), part = 0;
  }
  return total(sum + part);
}

double delta_of(const GradientFactors& f, const GradientSums& sums, const Round& output) {
  double sum = 0;
  for (Index e = 0; e < sums.v_width; ++e) sum += f.d_o[e * sums.d_o_step] * output(f.o[e * sums.o_step]);
  return sum;
}

double delta_of_rounded_products(const GradientFactors& f, const GradientSums& sums, const Round& product) {
  double sum = 0;
  for (Index e = 0; e < sums.v_width; ++e) sum += product(f.d_o[e * sums.d_o_step] * f.o[e * sums.o_step]);
  return sum;
}

/// Summed in another format, every `step` columns.
double narrow_delta(const GradientFactors& f, const GradientSums& sums, const Round& total, Index step) {
  double sum = 0, part = 0;
  for (Index e = 0; e < sums.v_width; ++e) {
    part += f.d_o[e * sums.d_o_step] * f.o[e * sums.o_step];
    if ((e + 1) % step == 0) sum = total(sum + part), part = 0;
  }
  return total(sum + part);
}

/// All of a gradient off by the factor that fits best, unless it is 0.
std::optional<Device> multiplied(const std::string& output, std::span<const WeightedSum> rows) {
  double got = 0, square = 0;
  for (const WeightedSum& row : rows) {
    for (Index e = 0; e < row.width(); ++e) {
      if (!(row.sigma[e] > 0)) continue;
      const double x = row.exact[e] / row.sigma[e];
      got += (row.got[e] - row.exact[e]) / row.sigma[e] * x;
      square += x * x;
    }
  }
  const double factor = square > 0 ? 1 + got / square : 1;
  if (std::abs(factor) < least_factor || factor_text(factor) == "1") return {};
  return Device{output + " multiplied by " + factor_text(factor),
                {},
                [=](double weight) { return factor * weight; },
                {},
                1,
                {}};
}

/// What dS and P are made of in a narrower format, or made wrongly.
void add_stages(const Contract& contract, const Expected& e, double scale, const GradientSums& sums,
                std::vector<Device>& all) {
  const auto add = [&](const std::string& fault, std::function<GradientFactors(GradientFactors)> factors) {
    all.push_back({fault, std::move(factors), {}, {}, 1, {}});
  };
  const bool is_dv = e.output == "dv";
  const Format &softmax = format_of(contract.softmax_dtype), &type = format_of(e.dtype);
  for (const Grid& grid : narrow_grids) {
    const std::string name = grid.name;
    if (grid.precision < 8 || !(grid.precision < softmax.precision || grid.emin > softmax.emin)) continue;
    for (const double unit : {1.0, 1.44269504088896340736}) {
      const Round round = to(grid, unit);
      add("lse rounded to " + name + " before the backward pass reads it", [=](GradientFactors f) {
        f.lse = round(f.lse);
        return f;
      });
      add("scores of the backward pass stored in " + name, [=](GradientFactors f) {
        f.score = round(f.score);
        return f;
      });
    }
    if (is_dv) continue;
    const Round round = to(grid);
    add("delta stored in " + name, [=](GradientFactors f) {
      f.delta = round(f.delta);
      return f;
    });
    add("dP - delta stored in " + name, [=](GradientFactors f) {
      f.dp = round(f.dp - f.delta), f.delta = 0;
      return f;
    });
    if (grid.precision < type.precision || grid.emin > type.emin) {
      add("delta formed from o in " + name, [=, &sums](GradientFactors f) {
        f.delta = delta_of(f, sums, round);
        return f;
      });
    }
    add("products do o of delta rounded to " + name, [=, &sums](GradientFactors f) {
      f.delta = delta_of_rounded_products(f, sums, round);
      return f;
    });
    for (const Index step : {1, 8, 16, 32}) {
      add("delta accumulated in " + name, [=, &sums](GradientFactors f) {
        f.delta = narrow_delta(f, sums, round, step);
        return f;
      });
    }
    for (const Index step : {1, 8, 16, 32, 1 << 20}) {
      add("dP accumulated in " + name, [=, &sums](GradientFactors f) {
        f.dp = narrow_product(f, sums, round, step);
        return f;
      });
    }
  }
  add("k times the scale and log2(e) stored before the backward pass: contract key backward_k_factor",
      [](GradientFactors f) {
        if (std::isfinite(f.score_of_stored_k)) f.score = f.score_of_stored_k;
        return f;
      });
  if (!is_dv) {
    add("backward: delta = rowsum(do o) missing in dS", [](GradientFactors f) {
      f.delta = 0;
      return f;
    });
    add("backward: delta counted twice", [](GradientFactors f) {
      f.delta *= 2;
      return f;
    });
    add("backward: delta multiplied by the scale", [scale](GradientFactors f) {
      f.delta *= scale;
      return f;
    });
  }
  const bool has_softcap = std::ranges::any_of(sums.factors, [](const std::vector<GradientFactors>& row) {
    return std::ranges::any_of(row, [](const GradientFactors& f) { return f.capped != 0; });
  });
  if (!has_softcap || is_dv) return;
  add("backward: the derivative of the softcap missing", [](GradientFactors f) {
    f.slope = 1;
    return f;
  });
  add("backward: the derivative of the softcap taken at the capped score", [](GradientFactors f) {
    const double t = std::tanh(f.capped);
    f.slope = 1 - t * t;
    return f;
  });
  add("backward: the derivative of the softcap without a square: 1 - t", [](GradientFactors f) {
    f.slope = 1 - f.capped;
    return f;
  });
}

/// Is an element further off than P and dS in the coarsest format there is could take it? Bounds grow at most
/// as the unit roundoff does. Or are wrong elements, taken together, off by more than 8 bits make them, if
/// errors grow as predicted ones do, or by more than bfloat16 does and much of their own size?
bool is_gross(const Expected& e, const Contract& contract) {
  if (e.output != "dq" && e.output != "dk" && e.output != "dv") return false;
  constexpr double much = 0.1, room = 16, room_of_8_bits = 256;  // of squares
  const double given = std::max(unit_roundoff(contract.p_dtype), unit_roundoff(contract.softmax_dtype));
  const double growth = unit_roundoff(DType::float8_e5m2) / given,
               in_16_bits = unit_roundoff(DType::bfloat16) / given;
  double errors = 0, sizes = 0, likely = 0;
  for (Index at = 0; at < e.dumped->size(); ++at) {
    const double error = std::abs(e.dumped->values[at] - e.value[at]);
    if (error > growth * e.rigorous[at]) return true;
    if (within_bound(e, at, e.dumped->values[at]) || !std::isfinite(error)) continue;
    errors += error * error, sizes += e.value[at] * e.value[at];
    likely += std::pow(in_16_bits * e.sigma[at], 2);
  }
  return errors > room_of_8_bits * likely || (errors > much * sizes && errors > room * likely);
}

}  // namespace

std::vector<DiagnosisEntry> wrong_gradients(const AttentionCase& attention,
                                            std::span<const SavedForBackward> saved, const Contract& contract,
                                            std::span<const Expected> expected) {
  std::vector<DiagnosisEntry> all;
  for (const Expected& e : expected) {
    if (e.output != "dq" && e.output != "dk" && e.output != "dv") continue;
    if (!has_failed(e)) continue;
    if (e.output == "dq")
      std::ranges::move(wrong_reach_of_gradients(attention, saved, e), std::back_inserter(all));
    const GradientSums sums = e.output == "dq" ? wrong_query_sums(attention, saved, contract, e)
                                               : wrong_key_sums(attention, saved, contract, e);
    if (sums.rows.empty()) continue;
    if (auto entry = wrong_terms(sums.rows, e.output, sums.places_of_head)) all.push_back(*entry);
    if (sums.rows.front().places > sums.places_of_head) {
      if (auto entry = wrong_terms(of_each_head(sums), e.output, sums.places_of_head, " of each head"))
        all.push_back(*entry);
    }
    std::vector<Device> candidates = devices(contract, e.dtype, attention.spec.scale, e.output);
    add_stages(contract, e, attention.spec.scale, sums, candidates);
    if (const auto device = multiplied(e.output, sums.rows)) candidates.push_back(*device);
    const auto best =
        likeliest(candidates, [&](const Device& device) { return fit(device, sums).explained(); });
    std::ranges::copy_if(best, std::back_inserter(all),
                         [](const DiagnosisEntry& x) { return !x.cause.empty(); });
    std::ranges::move(misread_gradient(attention, saved, e), std::back_inserter(all));
  }
  return all;
}

std::vector<DiagnosisEntry> unknown_noise_of_gradients(const Contract& contract,
                                                       std::span<const Expected> expected) {
  const auto fails = [&](std::string_view output) {
    const auto e = std::ranges::find(expected, output, &Expected::output);
    return e != expected.end() && has_failed(*e);
  };
  const bool dq = fails("dq"), dk = fails("dk"), dv = fails("dv");
  std::string cause, evidence;
  if (std::ranges::any_of(expected, [&](const Expected& e) { return is_gross(e, contract); })) {
    return {{"another P or dS than declared: no precision errs so much", confidence_of_a_place,
             "no known pattern fits the gradients"}};
  }
  if (dv && (dq || dk)) {
    cause = "exponentials, scores or lse of the backward pass less precise than the contract has them";
    evidence = "dv errs, and so does what dS goes into";
  } else if (dq && dk) {
    cause = "dS, or what it is made of, less precise than the contract has it";
    evidence = "dq and dk err, dv does not";
  } else if (dq || dk || dv) {
    const std::string output = dq ? "dq" : dk ? "dk" : "dv";
    cause = output +
            " accumulated, or the operands of its product stored, less precisely than the contract has it";
    evidence = "no other gradient errs";
  } else {
    return {};
  }
  return {{cause, confidence_of_a_place, evidence + ", and no known pattern fits"}};
}

}  // namespace attest
