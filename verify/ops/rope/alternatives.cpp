// What would explain a rotary embedding that failed: other frequencies, widths and positions, and stages in
// narrower formats.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

#include "verify/diagnosis/diagnose.hpp"
#include "verify/ops/rope/problem.hpp"
#include "verify/ops/rope/sample.hpp"
#include "verify/ops/rope/turns.hpp"
#include "verify/ops/stages.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

/// What a contract may have in another format.
constexpr std::string_view all_steps_but_angles = "cos, sin and the products with them";

enum class RopeStage { position, inv_freq, angle, coefficient, product, sum };
using enum RopeStage;

Decoy whole_call(const std::string& name, const std::string& output, const RopeSample& sample) {
  Decoy decoy{name, output, sample.at, {}};
  decoy.is_of_whole_call = true;
  return decoy;
}

/// Another base, width or position: as the bounds would have had it.
struct RopeOption {
  std::string name;
  RopeSpec spec;
  bounds::RopeSource source;
};

class Options {
 public:
  Options(const RopeCase& rope, const RopeSample& sample) : rope_(rope), sample_(sample) {}

  /// theta: as fitted, rounded to 1, 2 and 3 digits.
  void bases(double theta) {
    std::set<double> all;
    for (int digits = 1; digits <= 3; ++digits) {
      if (theta > 1 && std::isfinite(theta)) all.insert(number_of(number_text(theta, digits)));
    }
    for (const double base : all) {
      RopeFrequencies f = rope_.frequencies;
      f.theta = base;
      if (base != rope_.frequencies.theta && base > 1 && std::isfinite(base))
        frequencies("theta = " + number_text(base, 9), rope_.spec, f, rope_.spec.rotary_dim);
    }
  }

  void scalings() {
    if (rope_.frequencies.scaling == RopeScaling::none) return;
    RopeFrequencies plain = rope_.frequencies;
    plain.scaling = RopeScaling::none;
    frequencies("scaling = none", rope_.spec, plain, rope_.spec.rotary_dim);
    all_.back().source.attention_factor = 1;
    if (rope_.source.attention_factor == 1) return;
    add("attention_factor = 1").source.attention_factor = 1;
    frequencies("scaling = none, but for attention_factor", rope_.spec, plain, rope_.spec.rotary_dim);
  }

  void widths() {
    const Index width = rope_.shape.sizes.width, turned = rope_.spec.rotary_dim;
    for (const Index other : {width, width / 2, width / 4, turned / 2, 2 * turned, turned - 2}) {
      if (other == turned || other < 4 || other % 2 != 0 || other > width) continue;
      RopeSpec spec = rope_.spec;
      spec.rotary_dim = other;
      frequencies("rotary_dim = " + std::to_string(other), spec, rope_.frequencies, other);
    }
    // The exponent of theta may be that of all columns.
    if (turned < width)
      frequencies("inverse frequencies theta^(-2k/D), not theta^(-2k/R)", rope_.spec, rope_.frequencies,
                  width);
  }

  void positions() {
    std::set<std::vector<double>> seen = {sample_.source.positions};
    const auto moved = [&](const std::string& name, auto position) {
      bounds::RopeSource source = sample_.source;
      for (std::size_t n = 0; n < sample_.row.size(); ++n)
        source.positions[n] = static_cast<double>(position(sample_.row[n]));
      if (seen.insert(source.positions).second) add(name).source = source;
    };
    const auto in_sequence = [&](Index row) { return row - rope_.first_row(row); };
    moved("positions that start at 0", in_sequence);
    moved("positions that run on from one sequence to the next", [](Index row) { return row; });
    // Packed ones have no others.
    if (rope_.shape.sizes.b > 1)
      moved("positions of the first sequence",
            [&](Index row) { return rope_.source.positions[in_sequence(row)]; });
  }

  const std::vector<RopeOption>& all() const { return all_; }

 private:
  RopeOption& add(const std::string& name) {
    return all_.emplace_back(RopeOption{name, rope_.spec, sample_.source});
  }
  void frequencies(const std::string& name, const RopeSpec& spec, const RopeFrequencies& f, Index width) {
    RopeOption& option = add(name);
    option.spec = spec;
    option.source.frequencies = bounds::pair_frequencies(f, width, rope_.source.rule);
  }

  const RopeCase& rope_;
  const RopeSample& sample_;
  std::vector<RopeOption> all_;
};

/// The sample as a kernel computes it that errs at some stages.
Decoy with_misstep(const Misstep<RopeStage>& misstep, const RopeSpec& spec, const RopeSample& sample,
                   const RopeDirection& direction) {
  Decoy decoy = whole_call(misstep.name, direction.output, sample);
  decoy.value = sample.input;
  const auto& at = misstep.change;
  const bounds::RopeSource& source = sample.source;
  const auto rounded = [&](double x) {
    return source.rule == AngleRule::float32 ? round_to(x, DType::float32) : x;
  };
  const Index rows = sample.shape.sizes.s, width = sample.shape.sizes.width;
  for (Index s = 0; s < rows; ++s) {
    for (Index k = 0; k < spec.pairs(); ++k) {
      const Index i = spec.first(k), j = spec.second(k);
      double cos_i, cos_j, sin_i, sin_j;
      if (source.has_table()) {
        const Index row = source.table_rows[s];
        const bool is_half = source.cos.extent(1) == spec.pairs();
        cos_i = source.cos(row, is_half ? k : i), sin_i = source.sin(row, is_half ? k : i);
        cos_j = source.cos(row, is_half ? k : j), sin_j = source.sin(row, is_half ? k : j);
      } else {
        const double p = at(position, rounded(source.positions[s]));
        const double f = at(inv_freq, rounded(source.frequencies[k].exact.hi));
        const double turn = at(angle, rounded(p * f));
        cos_i = cos_j = source.attention_factor * std::cos(turn);
        sin_i = sin_j = source.attention_factor * std::sin(turn);
      }
      if (direction.backward) {
        std::swap(sin_i, sin_j);
        sin_i = -sin_i, sin_j = -sin_j;
      }
      for (double* c : {&cos_i, &cos_j, &sin_i, &sin_j}) *c = at(coefficient, *c);
      for (Index h = 0; h < sample.shape.sizes.h; ++h) {
        const Index row = (h * rows + s) * width;
        const double a = sample.input[row + i], b = sample.input[row + j];
        decoy.value[row + i] = at(sum, at(product, a * cos_i) - at(product, b * sin_i));
        decoy.value[row + j] = at(sum, at(product, b * cos_j) + at(product, a * sin_j));
      }
    }
  }
  return decoy;
}

std::vector<Misstep<RopeStage>> missteps(bool has_table, DType compute) {
  std::vector<std::pair<std::string_view, std::vector<RopeStage>>> named = {
      {"cos and sin", {coefficient}}, {"products with cos and sin", {product}}};
  if (!has_table) {
    named.push_back({all_steps_but_angles, {coefficient, product, sum}});
    named.push_back({"inverse frequencies", {inv_freq}});
    named.push_back({"positions", {position}});
    named.push_back({"angles", {angle}});
    named.push_back({"positions and inverse frequencies", {position, inv_freq}});
  }
  std::vector<Misstep<RopeStage>> all = narrow_missteps(named, compute);
  if (has_table) std::ranges::move(narrow_throughout<RopeStage>(compute), std::back_inserter(all));
  return all;
}

}  // namespace

std::vector<Decoy> RopeProblem::other_rules(const Expected& e, const RopeDirection& direction) const {
  std::vector<Decoy> all;
  const std::vector<double>& input = case_.input(direction.input)->values;
  const RopeSample sample(rope_, input, *e.dumped);
  for (const auto& misstep : missteps(rope_.source.has_table(), compute_))
    all.push_back(with_misstep(misstep, rope_.spec, sample, direction));
  for (Decoy& answer : all)
    if (answer.name.starts_with(all_steps_but_angles)) answer.name += ": contract key compute_dtype";
  std::ranges::move(misreadings(sample, direction), std::back_inserter(all));
  std::ranges::move(other_frequencies(e, sample, direction), std::back_inserter(all));
  if (rope_.source.has_table()) return all;

  Options options(rope_, sample);
  options.positions();
  if (rope_.has_theta()) {
    options.bases(fitted_theta(rope_.spec, rope_, input, *e.dumped, direction.backward));
    options.scalings();
    options.widths();
  }
  for (const RopeOption& option : options.all()) {
    Expected other(e.output, sample.dumped);
    bounds::expect_rope(option.spec, option.source, arithmetic(direction), direction.backward, sample.shape,
                        sample.input, other);
    Decoy& decoy = all.emplace_back(whole_call(option.name, e.output, sample));
    decoy.value = other.value;
  }
  return all;
}

// Positions that a narrow format holds, or x of batch entry 0 where there is no other: such an answer is the
// right one with inverse frequencies a little off those that the bounds chose, and says nothing.
void RopeProblem::drop_right_answers(const Expected& e, const RopeDirection& direction,
                                     std::vector<Decoy>& answers) const {
  const RopeSample sample(rope_, case_.input(direction.input)->values, *e.dumped);
  const Decoy right = computed("", rope_.spec, sample, direction, [&](Index s, Index k) {
    return right_coefficients(sample.source, rope_.spec, s, k);
  });
  std::erase_if(answers, [&](const Decoy& answer) {
    return answer.at == right.at && std::ranges::equal(answer.value, right.value, [&](double a, double b) {
             return round_to(a, e.dtype) == round_to(b, e.dtype);
           });
  });
}

// What is fitted to rows and pairs one by one says less than a rule that they all follow.
std::vector<Decoy> RopeProblem::alternatives(std::span<const Expected> expected) const {
  constexpr double enough = 0.7;  // to be told
  std::vector<Decoy> all;
  const std::vector<Decoy> simple = decoys(expected);
  for (const Expected& e : expected) {
    const RopeDirection& direction = rope_directions[e.output == "dx"];
    std::vector<Decoy> rules = other_rules(e, direction);
    drop_right_answers(e, direction, rules);
    // Of what is true of some rows or heads alone, a fit says more.
    const auto explains = [&](const Decoy& answer) {
      return answer.output == e.output && explained_share(e, answer) >= enough &&
             !denies_right_elements(e, answer);
    };
    if (std::ranges::none_of(simple, explains) && std::ranges::none_of(rules, explains)) {
      for (const auto fitted : {&RopeProblem::rows_elsewhere, &RopeProblem::other_reads,
                                &RopeProblem::pairs_elsewhere, &RopeProblem::frequencies_found}) {
        std::ranges::move((this->*fitted)(e, direction), std::back_inserter(rules));
        drop_right_answers(e, direction, rules);
        if (std::ranges::any_of(rules, explains)) break;
      }
    }
    std::ranges::move(rules, std::back_inserter(all));
  }
  return all;
}

}  // namespace attest
