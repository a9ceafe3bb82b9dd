// Rotary embeddings with inverse frequencies by other arithmetic, and with cosines and sines that are only
// fast.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numbers>
#include <optional>

#include "verify/compare.hpp"
#include "verify/diagnosis/diagnose.hpp"
#include "verify/ops/rope/problem.hpp"
#include "verify/ops/rope/sample.hpp"
#include "verify/ops/rope/turns.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {
namespace {

using bounds::PairFrequency;

/// A power of a device is that many units in the last place off, at most (CUDA Programming Guide: powf).
constexpr int most_ulps = 4;

double in_float(double x) {
  return round_to(x, DType::float32);
}

/// Inverse frequencies first * step^k, which a scaling multiplies by numbers of its own: scaled[k].
struct Geometric {
  double first, step;
  std::vector<double> scaled;
};

std::optional<Geometric> geometric(const RopeCase& rope, const std::vector<PairFrequency>& frequencies) {
  const RopeFrequencies& own = rope.frequencies;
  const Index pairs = rope.spec.pairs();
  if (pairs < 2) return {};
  Geometric series{1, 0, std::vector<double>(static_cast<std::size_t>(pairs), 1.0)};
  if (rope.has_theta() && (own.scaling == RopeScaling::yarn || own.scaling == RopeScaling::llama3)) {
    series.step = std::pow(own.theta, -2 / static_cast<double>(rope.spec.rotary_dim));
    for (Index k = 0; k < pairs; ++k)
      series.scaled[k] = frequencies[k].exact.hi / std::pow(series.step, static_cast<double>(k));
    return series;
  }
  series.first = frequencies.front().exact.hi;
  series.step = std::pow(frequencies[pairs - 1].exact.hi / series.first, 1 / static_cast<double>(pairs - 1));
  // Frequencies that the case gives may be any.
  constexpr double roundings = 4;
  for (Index k = 0; k < pairs; ++k) {
    const double of_series = series.first * std::pow(series.step, static_cast<double>(k));
    if (!(std::abs(frequencies[k].exact.hi / of_series - 1) <= roundings * unit_roundoff(DType::float32)))
      return {};
  }
  return series;
}

/// What an answer leaves of the squared errors of pair k.
double squared_errors(const Decoy& answer, const RopeSample& sample, const RopeSpec& spec, Index k) {
  double sum = 0;
  for (std::size_t row = 0; row < answer.value.size();
       row += static_cast<std::size_t>(sample.shape.sizes.width)) {
    for (const Index d : {spec.first(k), spec.second(k)}) {
      const std::size_t n = row + static_cast<std::size_t>(d);
      const double off = sample.dumped.values[n] - answer.value[n];
      sum += off * off;
    }
  }
  return sum;
}

/// Which of the inverse frequencies that a device may have leaves least errors: pair by pair.
void choose_frequencies(bounds::RopeSource& source, const RopeSample& sample, const RopeSpec& spec,
                        const RopeDirection& direction) {
  const std::vector<PairFrequency> given = source.frequencies;
  std::size_t most = 0;
  for (const PairFrequency& f : given) most = std::max(most, f.candidates.size());
  std::vector<double> least(given.size(), std::numeric_limits<double>::infinity());
  std::vector<PairFrequency> best = given;
  for (std::size_t n = 0; n < most; ++n) {
    for (std::size_t k = 0; k < given.size(); ++k)
      if (n < given[k].candidates.size()) source.frequencies[k].exact = given[k].candidates[n];
    const Decoy answer = computed("", spec, sample, direction,
                                  [&](Index s, Index k) { return right_coefficients(source, spec, s, k); });
    for (Index k = 0; k < spec.pairs(); ++k)
      if (const double left = squared_errors(answer, sample, spec, k); left < least[k])
        least[k] = left, best[k].exact = source.frequencies[k].exact;
  }
  source.frequencies = best;
}

}  // namespace

std::vector<Decoy> RopeProblem::other_frequencies(const Expected& e, const RopeSample& sample,
                                                  const RopeDirection& direction) const {
  std::vector<Decoy> all;
  const bounds::RopeSource& source = sample.source;
  if (source.has_table()) return all;
  const RopeSpec& spec = rope_.spec;
  const RopeFrequencies& own = rope_.frequencies;
  const auto with = [&](const std::string& name, const std::vector<double>& frequencies) {
    bounds::RopeSource wrong = source;
    for (Index k = 0; k < spec.pairs(); ++k) wrong.frequencies[k].exact = frequencies[k];
    return computed(name, spec, sample, direction,
                    [&](Index s, Index k) { return right_coefficients(wrong, spec, s, k); });
  };
  const auto add_best = [&](const std::vector<Decoy>& answers) {
    all.push_back(*std::ranges::max_element(answers, {},
                                            [&](const Decoy& answer) { return explained_share(e, answer); }));
  };

  // As llama.cpp forms them: each is the one before times theta^(-2/R), whose own rounding counts once more
  // from pair to pair. What a scaling makes of a frequency, it makes of such a one, too.
  if (const std::optional<Geometric> series = geometric(rope_, source.frequencies)) {
    float step = static_cast<float>(series->step);
    for (int ulps = 0; ulps < most_ulps; ++ulps) step = std::nextafter(step, 0.0F);
    std::vector<Decoy> by_frequency, by_angle;
    for (int ulps = -most_ulps; ulps <= most_ulps; ++ulps, step = std::nextafter(step, 1.0F)) {
      const double factor = step;
      std::vector<double> frequencies = {series->first};
      while (std::ssize(frequencies) < spec.pairs())
        frequencies.push_back(in_float(frequencies.back() * factor));
      for (Index k = 0; k < spec.pairs(); ++k) frequencies[k] *= series->scaled[k];
      by_frequency.push_back(
          with("inverse frequencies by repeated multiplication with theta^(-2/R) in float32", frequencies));
      by_angle.push_back(computed("angles by repeated multiplication with theta^(-2/R) in float32", spec,
                                  sample, direction, [&](Index s, Index k) {
                                    double angle = in_float(source.positions[s] * series->first);
                                    for (Index n = 0; n < k; ++n) angle = in_float(angle * factor);
                                    angle *= series->scaled[k];
                                    const double c = source.attention_factor * std::cos(angle),
                                                 d = source.attention_factor * std::sin(angle);
                                    return Coefficients{c, c, d, d};
                                  }));
    }
    add_best(by_frequency);
    add_best(by_angle);
  }
  if (!rope_.has_theta()) return all;

  if (own.scaling == RopeScaling::linear) {
    // Exactly the same, but for what is rounded.
    RopeFrequencies plain = own;
    plain.scaling = RopeScaling::none;
    bounds::RopeSource scaled = source;
    scaled.frequencies = bounds::pair_frequencies(plain, spec.rotary_dim, source.rule);
    const double inverse = in_float(1 / own.factor);
    for (const bool divides : {true, false}) {
      for (std::size_t n = 0; n < scaled.positions.size(); ++n)
        scaled.positions[n] =
            in_float(divides ? source.positions[n] / own.factor : source.positions[n] * inverse);
      choose_frequencies(scaled, sample, spec, direction);
      all.push_back(computed(divides ? "positions, not inverse frequencies, divided by the factor"
                                     : "positions, not inverse frequencies, multiplied by 1 / factor",
                             spec, sample, direction,
                             [&](Index s, Index k) { return right_coefficients(scaled, spec, s, k); }));
    }
    for (const bool cuts_off : {true, false}) {
      bounds::RopeSource wrong = source;
      for (double& p : wrong.positions)
        p = own.factor * (cuts_off ? std::trunc(p / own.factor) : std::nearbyint(p / own.factor));
      all.push_back(computed(cuts_off ? "positions divided by the factor, cut off to whole numbers"
                                      : "positions divided by the factor, rounded to whole numbers",
                             spec, sample, direction,
                             [&](Index s, Index k) { return right_coefficients(wrong, spec, s, k); }));
    }
  }

  if (own.scaling != RopeScaling::yarn && own.scaling != RopeScaling::llama3) return all;
  RopeFrequencies plain = own, linear = own;
  plain.scaling = RopeScaling::none, linear.scaling = RopeScaling::linear;
  const std::vector<PairFrequency> unscaled = bounds::pair_frequencies(plain, spec.rotary_dim, source.rule),
                                   divided = bounds::pair_frequencies(linear, spec.rotary_dim, source.rule);
  // wrong(own, unscaled, divided): of pairs that are neither kept nor divided, or of all of them.
  const auto interpolated = [&](const std::string& name, bool of_all, auto wrong) {
    std::vector<double> frequencies;
    for (Index k = 0; k < spec.pairs(); ++k) {
      const double f = source.frequencies[k].exact.hi, most = unscaled[k].exact.hi,
                   least = divided[k].exact.hi;
      frequencies.push_back(of_all || (least < f && f < most) ? wrong(f, most, least) : f);
    }
    all.push_back(with(name, frequencies));
  };
  interpolated("frequencies between the limits kept, not interpolated", false,
               [](double, double most, double) { return most; });
  interpolated("frequencies between the limits divided by the factor, not interpolated", false,
               [](double, double, double least) { return least; });
  interpolated("frequencies between the limits interpolated with the weights of both ends exchanged", false,
               [](double f, double most, double least) { return most + least - f; });
  interpolated("frequencies kept in the place of those divided by the factor, and the other way round", true,
               [](double f, double most, double least) { return most + least - f; });
  return all;
}

// A fast cosine multiplies the angle by 1 / (2 pi) in float32 first: turns are known less and less well, the
// larger the angle is. Which inverse frequency a pair has is judged anew: what fits the right cosine best may
// not be what fits this one.
std::vector<DiagnosisEntry> RopeProblem::explanations(std::span<const Expected> expected) const {
  std::vector<DiagnosisEntry> all;
  constexpr double least_explained = 0.7;
  const double turns = in_float(0.5 * std::numbers::inv_pi);
  for (const Expected& e : expected) {
    if (!has_wrong_elements(e)) continue;
    const RopeDirection& direction = rope_directions[e.output == "dx"];
    std::ranges::move(columns_not_copied(e, direction), std::back_inserter(all));
    if (rope_.source.has_table()) continue;
    std::ranges::move(approximations(e, direction), std::back_inserter(all));
    const RopeSpec& spec = rope_.spec;
    const RopeSample sample(rope_, case_.input(direction.input)->values, *e.dumped);
    const bounds::RopeSource& source = sample.source;
    std::size_t most_candidates = 1;
    for (const PairFrequency& f : source.frequencies)
      most_candidates = std::max(most_candidates, f.candidates.size());
    Decoy right{"", e.output, sample.at, {}};
    for (const Index at : sample.at) right.value.push_back(e.value[at]);

    for (const Rounding rounding : {Rounding::toward_zero, Rounding::to_nearest_even}) {
      constexpr double unknown = std::numeric_limits<double>::infinity();
      std::vector<double> after(static_cast<std::size_t>(spec.pairs()), unknown);
      for (std::size_t candidate = 0; candidate < most_candidates; ++candidate) {
        const Decoy fast = computed("", spec, sample, direction, [&](Index s, Index k) {
          const PairFrequency& f = source.frequencies[k];
          const double own = candidate < f.candidates.size() ? f.candidates[candidate] : f.exact.hi;
          const double angle = in_float(source.positions[s] * own);
          const double turn = 2 * std::numbers::pi * round_to(angle * turns, DType::float32, rounding);
          const double c = source.attention_factor * std::cos(turn),
                       d = source.attention_factor * std::sin(turn);
          return Coefficients{c, c, d, d};
        });
        for (Index k = 0; k < spec.pairs(); ++k)
          after[k] = std::min(after[k], squared_errors(fast, sample, spec, k));
      }
      double before = 0, left = 0;
      for (Index k = 0; k < spec.pairs(); ++k)
        before += squared_errors(right, sample, spec, k), left += after[k];
      const double share = before > 0 ? 1 - left / before : 0;
      if (share >= least_explained)
        all.push_back({"fast cos and sin, of angles divided by 2 pi in float32", share,
                       "explains " + percent(share) + " of the squared errors of " + e.output});
    }
  }
  return all;
}

}  // namespace attest
