// Attention whose weights are those of another scale, or not those of a softmax.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <tuple>

#include "verify/ops/attention/device.hpp"
#include "verify/statistics/median.hpp"

namespace attest {
namespace {

/// Nearly any errors can be taken for a scale that is off, if only by little.
constexpr double least_scale_error = 2e-5;

/// To fewer, a number fits by chance.
constexpr Index least_rows_of_lse = 4;
constexpr double least_explained_of_lse = 0.99 * preference_for_constants;

/// Of the exact answer with another scale.
Fits fits_of_scale(std::span<const AttentionRow> rows, double factor) {
  AttentionDevice device;
  device.scale_factor = factor;
  return fits(device, rows);
}

/// By which factor o seems to be off.
double factor_of_o(std::span<const AttentionRow> rows) {
  double error = 0, square = 0;
  for (const AttentionRow& row : rows) {
    for (std::size_t e = 0; e < row.o.size(); ++e) {
      if (!(row.sigma[e] > 0)) continue;
      const double x = row.o[e] / row.sigma[e];
      error += (row.got[e] - row.o[e]) / row.sigma[e] * x;
      square += x * x;
    }
  }
  return square > 0 ? 1 + error / square : 1;
}

/// The score by which the keys of a row that it may not see would add up to the lse that it has; NaN if none
/// would.
double hidden_score(const AttentionRow& row, Index tile) {
  const auto [first, last] = keys_in_tiles(row, tile);
  const double hidden = static_cast<double>(last - first - row.count());
  return row.has_lse && hidden > 0 ? row.lse + std::log(std::expm1(row.got_lse - row.lse) / hidden)
                                   : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

std::vector<AttentionDevice> wrong_softmax_devices(std::span<const AttentionRow> rows) {
  std::vector<AttentionDevice> all;
  const auto add = [&](const std::string& fault) -> AttentionDevice& {
    all.emplace_back().fault = fault;
    return all.back();
  };
  add("o not divided by the row sum").is_divided = false;
  if (!rows.empty() && rows.front().in->sink) {
    AttentionDevice& device = add("the sink weighs 1 whatever the maximum is");
    device.keeps_sum_scale = true;
  }
  for (const Index tile : {16, 32, 64, 128}) {
    const std::string of_tiles =
        " not rescaled when the maximum rises from tile to tile of " + std::to_string(tile) + " keys";
    for (const auto& [what, output, sum] : {std::tuple{"P.V", true, false},
                                            {"the row sum", false, true},
                                            {"P.V and the row sum", true, true}}) {
      AttentionDevice& device = add(what + of_tiles);
      device.keeps_output_scale = output, device.keeps_sum_scale = sum, device.tile = tile;
    }
    const auto of_base = [&](const std::string& fault, double power, bool is_of_weights) {
      AttentionDevice& device = add(fault);
      (is_of_weights ? device.weight_power : device.rescale_power) = power, device.tile = tile;
    };
    const std::string in_weights = " in the weights, but not where the maximum rises from tile to tile";
    const std::string between = " where the maximum rises from tile to tile, but not in the weights";
    of_base("exp for exp2" + in_weights, std::numbers::log2e, true);
    of_base("exp2 for exp" + in_weights, std::numbers::ln2, true);
    of_base("exp for exp2" + between, std::numbers::log2e, false);
    of_base("exp2 for exp" + between, std::numbers::ln2, false);
    AttentionDevice& device =
        add("the row sum of a new tile of " + std::to_string(tile) + " keys rescaled as those before it are");
    device.rescales_new_sum = true, device.tile = tile;
  }
  for (const Index tile : {16, 32, 64, 80, 96, 128}) {
    const std::string of_tile = " in the last tile of " + std::to_string(tile) + " keys that a row sees";
    const auto in_last_tile = [&](const std::string& fault) -> AttentionDevice& {
      AttentionDevice& device = add(fault + of_tile);
      device.in_last_tile = true, device.tile = tile;
      return device;
    };
    in_last_tile("P.V not rescaled").keeps_output_scale = true;
    in_last_tile("the row sum not rescaled").keeps_sum_scale = true;
    in_last_tile("rows of V stale: those of the tile before,").reads_stale_values = true;
  }
  for (const Index tile : {1 << 20, 128, 64, 32}) {
    std::vector<double> scores;
    for (const AttentionRow& row : rows) {
      const double score = hidden_score(row, tile);
      if (std::isfinite(score)) scores.push_back(score);
    }
    if (scores.empty()) continue;
    AttentionDevice& device = add("");
    device.hidden_score = median(scores), device.hidden_tile = tile;
    char cause[64];
    std::snprintf(cause, sizeof cause, "masked keys take weight, as with a score of %.3g",
                  device.hidden_score);
    device.fault = cause;
  }
  const double factor = factor_of_o(rows);
  // 0 has a name of its own, and 1 is none.
  if (std::abs(factor) > 0.01 && factor_text(factor) != "1") {
    AttentionDevice& device = add("o multiplied by " + factor_text(factor));
    device.output = [=](double x) { return factor * x; };
    device.is_fitted = true;
  }
  return all;
}

std::vector<DiagnosisEntry> wrong_scale(std::span<const AttentionRow> rows) {
  const auto explained = [&](double factor) {
    const Fits both = fits_of_scale(rows, factor);
    return (both.o + both.lse).explained();
  };
  // What a scale that is a little off does is proportional to it. If it is far off, or a little does not show
  // in the output's type, steps have to find it.
  constexpr double little = 1e-4;
  const Fits near_one = fits_of_scale(rows, 1 + little);
  const Fit start = near_one.o + near_one.lse;
  double best = 1 + little * start.slope(), step = std::abs(best - 1) / 2;
  if (!start.tells() || !(best > 0.5 && best < 2)) best = 1, step = 0.4;
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
  constexpr double least_factor = -0.004;  // 0, as it is fitted; of the other sign, a scale has a name
  if (std::abs(off) < least_scale_error || !(best > least_factor)) return {};
  const Fits both = fits_of_scale(rows, best);
  if (!both.o.tells() && std::ranges::count_if(rows, &AttentionRow::has_lse) < least_rows_of_lse) return {};
  char cause[48];
  std::snprintf(cause, sizeof cause, "a scale %.3g %% too %s", 100 * std::abs(off),
                off > 0 ? "large" : "small");
  return fitted_fault(both, cause);
}

std::vector<DiagnosisEntry> wrong_lse(std::span<const AttentionRow> rows) {
  double error = 0, weight = 0, slope = 0, square = 0;
  Index count = 0;
  for (const AttentionRow& row : rows) {
    if (!row.has_lse || !(row.lse_sigma > 0)) continue;
    const double w = 1 / (row.lse_sigma * row.lse_sigma), off = row.got_lse - row.lse;
    error += w * off, weight += w;
    slope += w * off * row.lse, square += w * row.lse * row.lse;
    ++count;
  }
  if (count < least_rows_of_lse || !(square > 0)) return {};
  const double shift = error / weight, factor = 1 + slope / square;
  const auto fits_of = [&](auto answer) {
    Fits fits;
    for (const AttentionRow& row : rows) {
      if (row.has_lse && row.lse_sigma > 0)
        fits.lse.add(row.got_lse, row.lse, answer(row.lse), row.lse_sigma);
    }
    return fits;
  };
  char sum[96];
  std::snprintf(sum, sizeof sum, "lse %.4g too %s: its row sum multiplied by %.4g", std::abs(shift),
                shift > 0 ? "large" : "small", std::exp(shift));
  char product[48];
  std::snprintf(product, sizeof product, "lse multiplied by %.8g", factor);
  std::vector<DiagnosisEntry> all = fitted_fault(fits_of([&](double x) { return x + shift; }), sum);
  const auto scaled = fitted_fault(fits_of([&](double x) { return factor * x; }), product);
  all.insert(all.end(), scaled.begin(), scaled.end());
  std::erase_if(all, [](const DiagnosisEntry& x) { return x.confidence < least_explained_of_lse; });
  return all;
}

}  // namespace attest
