// What a faulty backward pass may have done, fitted to the errors of dq, dk and dv.
#include <algorithm>
#include <cmath>
#include <optional>

#include "verify/ops/attention_explanations.hpp"
#include "verify/ops/attention_gradient_sums.hpp"
#include "verify/ops/grid.hpp"

namespace attest {
namespace {

constexpr double least_explained = 0.8;

std::optional<DiagnosisEntry> wrong_terms(std::span<const WeightedSum> sums, const std::string& output) {
  const WrongRange range = best_range(sums, false);
  if (range.explained < least_explained) return {};
  const std::string terms = (output == "dq" ? "keys " : "query rows ") + std::to_string(range.first) + ".." +
                            std::to_string(range.last - 1);
  std::string cause;
  if (range.spans_all(sums.front().places)) {
    if (!range.changes_by(range.change[range.change.size() / 2])) return {};
    char factor[32];
    std::snprintf(factor, sizeof factor, "%.4g", 1 + range.change[range.change.size() / 2]);
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
  Round weight;  // P or dS as stored
  Round total;   // the running sum, every `step` terms
  Index step = 1;
  Round output;
};

Fit fit(const Device& device, std::span<const WeightedSum> sums) {
  Fit total;
  for (const WeightedSum& sum : sums) {
    std::vector<double> answer(sum.width()), part(sum.width());
    const auto add_part = [&] {
      for (Index e = 0; e < sum.width(); ++e) {
        answer[e] = device.total ? device.total(answer[e] + part[e]) : answer[e] + part[e];
        part[e] = 0;
      }
    };
    Index next = device.step;
    for (const Term& term : sum.terms) {
      if (device.total && term.place >= next) {
        add_part();
        next = (term.place / device.step + 1) * device.step;
      }
      const double w = device.weight ? device.weight(term.weight) : term.stored;
      for (Index e = 0; e < sum.width(); ++e) part[e] += w * term.vector[e * sum.step];
    }
    add_part();
    for (Index e = 0; e < sum.width(); ++e) {
      const double x = device.output ? device.output(answer[e]) : answer[e];
      if (sum.is_replayed) {
        total.add_replayed(sum.got[e], sum.exact[e], x, sum.sigma[e], sum.dtype);
      } else {
        total.add(sum.got[e], sum.exact[e], x, sum.sigma[e]);
      }
    }
  }
  return total;
}

std::vector<Device> devices(const Contract& contract, DType element, double scale,
                            const std::string& output) {
  std::vector<Device> all;
  const auto add = [&](const std::string& fault) -> Device& {
    return all.emplace_back(Device{fault, {}, {}, 1, {}});
  };
  const Format &p = format_of(contract.p_dtype), &type = format_of(element);
  const std::string weight = output == "dv" ? "weights P" : "dS";
  // dS is stored before or after it is multiplied by the scale.
  const std::vector<double> units =
      output == "dv" || scale == 0 ? std::vector{1.0} : std::vector{1 / scale, 1.0};
  add(output + " cut off instead of rounded").output = to({"", type.precision, type.emin}, 1, true);
  for (const Grid& grid : narrow_grids) {
    const bool is_narrower = grid.precision < p.precision || grid.emin > p.emin;
    for (const double unit : units) {
      if (is_narrower) add(weight + " stored in " + grid.name).weight = to(grid, unit);
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
  if (type.precision >= 24) {
    for (const double unit : units) add("products in tf32").weight = to(tf32, unit);
  }
  return all;
}

}  // namespace

std::vector<DiagnosisEntry> wrong_gradients(const AttentionCase& attention,
                                            std::span<const SavedForBackward> saved, const Contract& contract,
                                            std::span<const Expected> expected) {
  std::vector<DiagnosisEntry> all;
  for (const Expected& e : expected) {
    if (e.output != "dq" && e.output != "dk" && e.output != "dv") continue;
    if (!has_failed(e)) continue;
    const std::vector<WeightedSum> sums = e.output == "dq" ? wrong_query_sums(attention, saved, contract, e)
                                                           : wrong_key_sums(attention, saved, contract, e);
    if (sums.empty()) continue;
    if (auto entry = wrong_terms(sums, e.output)) all.push_back(*entry);
    std::optional<DiagnosisEntry> best;
    for (const Device& device : devices(contract, e.dtype, attention.spec.scale, e.output)) {
      const double explained = fit(device, sums).explained();
      if (best && explained <= best->confidence + least_gain) continue;
      best = {device.fault, explained,
              "a kernel that does so would make " + percent(explained) +
                  " of the errors beyond what the contract explains"};
    }
    if (best) all.push_back(*best);
  }
  return all;
}

}  // namespace attest
