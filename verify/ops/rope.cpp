// The record of `rope`, its exact values, the check against ref and the wrong answers that must not pass.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/array.hpp"
#include "ref/rope.hpp"
#include "verify/contract/keys.hpp"
#include "verify/inputs/make_inputs.hpp"
#include "verify/ops/ops.hpp"
#include "verify/ops/rope/problem.hpp"
#include "verify/ops/sample.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr Index sampled_rows = 32;  // of a case, in each head

std::vector<SpecKey> rope_contract_keys() {
  std::vector<SpecKey> keys = compute_contract_keys();
  keys.push_back(
      {"angle_error", "number", "0",
       "relative error of the angle in all, in place of angle_dtype, where powers or the reduction of angles "
       "are approximations: 2^-20 with __sincosf, 2^-19 with __powf, too"});
  keys.push_back({"sincos_error", "number", "0",
                  "absolute error of sine and cosine where these are approximations: 2^-21 with __sincosf"});
  return keys;
}

}  // namespace

RopeProblem::RopeProblem(const Case& c)
    : Problem(c),
      case_(c),
      rope_(c),
      compute_(read_compute_dtype_among(c, contract_keys_,
                                        wide_type(*case_.input(c.in.contains("x") ? "x" : "dy")->dtype))),
      angle_error_(contract_keys_.relative_error("angle_error").value_or(0)),
      sincos_error_(contract_keys_.relative_error("sincos_error").value_or(0)) {
  contract_keys_.finish();
  if (rope_.source.has_table()) {
    for (const char* key : {"angle_error", "sincos_error"}) {
      if (!contract_keys_.has(key)) continue;
      throw InvalidCase(
          c.object("contract") + " attribute " + key +
          " is about cosines and sines that the kernel computes, but in/cos is given: leave one out");
    }
    return;
  }
  if (angle_error_ > 0) rope_.use_exact_angles();
  inv_freq_ = Array<long double, 1>({rope_.spec.pairs()});
  if (rope_.has_theta()) {
    ref::rope_inverse_frequencies(rope_.frequencies, rope_.spec.rotary_dim, rope_.source.rule,
                                  inv_freq_.view());
  } else {
    const std::vector<double>& given = case_.input("inv_freq")->values;
    std::copy(given.begin(), given.end(), inv_freq_.data());
  }
}

std::string RopeProblem::contract() const {
  std::string text = compute_dtype_text(compute_, contract_keys_);
  if (rope_.source.has_table()) return text;
  text += angle_error_ > 0                          ? ", angles within " + number_text(angle_error_, 3)
          : rope_.source.rule == AngleRule::float32 ? ", angles in float32"
                                                    : ", angles in float64";
  if (sincos_error_ > 0) text += ", sines and cosines within " + number_text(sincos_error_, 3);
  return text;
}

bounds::RopeArithmetic RopeProblem::arithmetic(const RopeDirection& direction) const {
  const auto dtype_of = [&](const std::string& name) {
    const Tensor* tensor = case_.input(name);
    return tensor ? *tensor->dtype : compute_;
  };
  return {compute_, dtype_of(direction.input), dtype_of("cos"), dtype_of("sin"), angle_error_, sincos_error_};
}

std::vector<Expected> RopeProblem::expect(const ProgressFunction& progress) {
  std::vector<Expected> all;
  for (const RopeDirection& direction : rope_directions) {
    const auto dumped = case_.out.find(direction.output);
    if (dumped == case_.out.end()) continue;
    Expected& expected = all.emplace_back(direction.output, dumped->second);
    choices_[direction.output] =
        bounds::expect_rope(rope_.spec, rope_.source, arithmetic(direction), direction.backward, rope_.shape,
                            case_.input(direction.input)->values, expected);
    progress(static_cast<double>(all.size()) / static_cast<double>(case_.out.size()));
  }
  return all;
}

RopeProblem::Rows RopeProblem::sample() const {
  return evenly_spread(rope_.rows(), sampled_rows);
}

void RopeProblem::table_row(const bounds::CandidateChoice& choice, const RopeQuestion& question, Index row,
                            Array<double, 2>& cos, Array<double, 2>& sin) const {
  const bounds::RopeSource& source = rope_.source;
  const Index pairs = question.spec.pairs();
  if (source.has_table()) {
    const Index last = source.cos.extent(0) - 1, width = source.cos.extent(1);
    const Index shifted = source.table_rows[row] + question.table_shift;
    const Index at = std::clamp(shifted, Index{0}, last);
    cos = sin = Array<double, 2>({1, width});
    for (Index w = 0; w < width; ++w) {
      cos(0, w) = source.cos(at, w);
      sin(0, w) = question.sin_sign * source.sin(at, w);
    }
    return;
  }
  Array<long double, 1> inv_freq = inv_freq_;
  for (Index k = 0; k < pairs; ++k) {
    if (choice[k] > 0) inv_freq(k) = source.frequencies[k].candidates[choice[k]];
  }
  const double position = source.positions[row] + question.position_shift;
  cos = sin = Array<double, 2>({1, pairs});
  ref::rope_table(std::as_const(inv_freq).view(), source.rule, source.attention_factor, {&position, {1}},
                  cos.view(), sin.view());
  for (Index k = 0; k < pairs; ++k) sin(0, k) *= question.sin_sign;
}

void RopeProblem::answer(const RopeDirection& direction, const bounds::CandidateChoice& choice,
                         const RopeQuestion& question, Index row,
                         const std::function<void(Index, const std::vector<double>&)>& take) const {
  const std::vector<double>& input = case_.input(direction.input)->values;
  const AxisSizes& sizes = rope_.shape.sizes;
  const View<const double, 3> in =
      sequence_view(input.data(), rope_.shape.order, sizes, row / sizes.s, row % sizes.s, 1);
  Array<double, 2> cos, sin;
  table_row(choice, question, row, cos, sin);
  Array<double, 3> out({sizes.h, 1, sizes.width});
  (direction.backward ? ref::rope_backward : ref::rope_forward)(question.spec, in, std::as_const(cos).view(),
                                                                std::as_const(sin).view(), out.view());
  for (Index h = 0; h < sizes.h; ++h) {
    std::vector<double> values(sizes.width);
    for (Index d = 0; d < sizes.width; ++d) values[d] = question.turns ? out(h, 0, d) : in(h, 0, d);
    take(&in(h, 0, 0) - input.data(), values);
  }
}

/// Of cosines and sines.
double RopeProblem::largest_coefficient(Index row) const {
  const bounds::RopeSource& source = rope_.source;
  if (!source.has_table()) return std::abs(source.attention_factor);
  double largest = 0;
  for (Index w = 0; w < source.cos.extent(1); ++w) {
    const Index at = source.table_rows[row];
    largest = std::max({largest, std::abs(source.cos(at, w)), std::abs(source.sin(at, w))});
  }
  return largest;
}

/// How far ref's cosines and sines may be off. Equation (18).
double RopeProblem::reference_error(Index row, Index k) const {
  const bounds::RopeSource& source = rope_.source;
  if (source.has_table()) return 0;
  const double m = std::abs(source.attention_factor), own = 4 * 0x1p-53 * m;
  if (source.rule == AngleRule::float32) return own;
  const double f_error = 16 * static_cast<double>(std::numeric_limits<long double>::epsilon());
  const bounds::PairFrequency& f = source.frequencies[k];
  // slack: how errors of theta^e grow on the way to f, 8 of them for the power itself.
  return own + m * std::abs(source.positions[row] * f.exact.hi) * f_error * (1 + f.slack / 8);
}

void RopeProblem::recheck_frequencies() const {
  if (!rope_.has_theta()) return;
  const bounds::RopeSource& source = rope_.source;
  for (Index k = 0; k < rope_.spec.pairs(); ++k) {
    const bounds::PairFrequency& f = source.frequencies[k];
    const double own =
        16 * static_cast<double>(std::numeric_limits<long double>::epsilon()) * (1 + f.slack / 8);
    const double got = f.exact.hi;  // 2^-53 below or above the exact value
    if (std::abs(static_cast<double>(got - inv_freq_(k))) <= (own + f.error + 0x1p-53) * got) continue;
    throw InternalError("the engine's inverse frequency " + std::to_string(k) + " is " + exact_text(got) +
                        ", the reference's " + exact_text(static_cast<double>(inv_freq_(k))));
  }
}

void RopeProblem::recheck(std::span<const Expected> expected) const {
  recheck_frequencies();
  for (const Expected& e : expected) {
    const RopeDirection& direction = rope_directions[e.output == "dx"];
    const std::vector<double>& input = case_.input(direction.input)->values;
    for (const Index row : sample()) {
      const double largest = largest_coefficient(row);
      const auto compare_row = [&](Index at, const std::vector<double>& values) {
        const auto check = [&](Index d, double tolerance) {
          if (std::abs(e.value[at + d] - values[d]) <= e.value_error[at + d] + tolerance) return;
          throw InternalError("the engine's value of out/" + e.output + " at flat index " +
                              std::to_string(at + d) + " is " + exact_text(e.value[at + d]) +
                              ", the reference's " + exact_text(values[d]));
        };
        for (Index k = 0; k < rope_.spec.pairs(); ++k) {
          const Index i = rope_.spec.first(k), j = rope_.spec.second(k);
          const double sizes = std::abs(input[at + i]) + std::abs(input[at + j]);
          const double tolerance = sizes * (reference_error(row, k) + 3 * 0x1p-53 * largest);
          check(i, tolerance);
          check(j, tolerance);
        }
        for (Index d = rope_.spec.rotary_dim; d < rope_.shape.sizes.width; ++d) check(d, 0);
      };
      answer(direction, choices_.at(e.output), {rope_.spec}, row, compare_row);
    }
  }
}

/// Could a position one off be told from an inverse frequency in its last places? A decoy counts where it
/// could.
bool RopeProblem::tells_positions_apart(Index row, Index k) const {
  if (rope_.source.has_table()) return true;
  const bounds::PairFrequency& f = rope_.source.frequencies[k];
  return bounds::angle_freedom(f, rope_.source.positions[row]) < std::abs(f.exact.hi) / 2;
}

std::vector<Decoy> RopeProblem::decoys(std::span<const Expected> expected) const {
  std::vector<std::pair<std::string, RopeQuestion>> questions;
  const auto ask = [&](const std::string& name) -> RopeQuestion& {
    return questions.emplace_back(name, RopeQuestion{rope_.spec}).second;
  };
  const bool is_half = rope_.spec.style == RopeStyle::half;
  ask(is_half ? "style = interleaved" : "style = half").spec.style =
      is_half ? RopeStyle::interleaved : RopeStyle::half;
  for (const int shift : {1, -1}) {
    RopeQuestion& question = ask(shift > 0 ? "positions one too high" : "positions one too low");
    question.table_shift = shift;
    question.position_shift = shift;
  }
  ask("sin with the wrong sign").sin_sign = -1;
  ask("no rotation").turns = false;

  std::vector<Decoy> all;
  for (const auto& [name, question] : questions) {
    for (const Expected& e : expected) {
      Decoy& decoy = all.emplace_back(Decoy{name, e.output, {}, {}});
      for (const Index row : sample()) {
        const auto take = [&](Index at, const std::vector<double>& values) {
          for (Index k = 0; k < rope_.spec.pairs(); ++k) {
            if (!tells_positions_apart(row, k)) continue;
            for (const Index d : {rope_.spec.first(k), rope_.spec.second(k)}) {
              decoy.at.push_back(at + d);
              decoy.value.push_back(values[d]);
            }
          }
        };
        answer(rope_directions[e.output == "dx"], choices_.at(e.output), question, row, take);
      }
    }
  }
  return all;
}

Op rope_op() {
  using enum PortType;
  return {
      "rope",
      "Rotary position embedding, forward and backward: pairs of columns turn by position * inverse "
      "frequency.",
      {
          {"x", "B H S D", floating, false, "queries or keys; needed by y"},
          {"cos", "S W or B S W or P W", floating, false,
           "table of W = R columns, used one by one, or W = R/2, each for both columns of a pair; P rows: a "
           "cache, of which positions choose the rows"},
          {"sin", "S W or B S W or P W", floating, false, "given with cos, shaped like it"},
          {"inv_freq", "R/2", floating, false, "inverse frequencies in place of theta"},
          {"positions", "S or B S", integer, false, "position of each row"},
          {"cu_seqlens", "B+1", integer, false, "layout thd: where the packed sequences begin"},
          {"dy", "B H S D", floating, false, "gradient of y; needed by dx"},
      },
      {
          {"y", "B H S D", floating, false, "output"},
          {"dx", "B H S D", floating, false, "gradient of x"},
      },
      {
          {"style", "half, interleaved", "", "which columns make a pair: k and k + R/2, or 2k and 2k + 1"},
          {"rotary_dim", "integer", "D", "R: the columns from here on are copied"},
          {"layout", "bhsd, bshd, sbhd, bsm, sbm, thd", "bhsd",
           "order of the axes; bsm and sbm merge the heads into the last, thd packs sequences"},
          {"heads", "integer", "-", "needed by bsm and sbm, an error elsewhere"},
          {"theta", "number", "-",
           "base, above 1, instead of a table or in/inv_freq: inverse frequency k is theta^(-2k/R)"},
          {"position_start", "integer", "0",
           "position of row 0 of every sequence; of a cache, the first row that is read; needed without a "
           "table, "
           "in/positions and in/cu_seqlens"},
          {"angle_dtype", "float32, float64", "float32",
           "float32: position, inverse frequency and product are rounded to it, which is replayed; float64: "
           "exact"},
          {"scaling", "none, linear, ntk, dynamic_ntk, yarn, llama3", "none",
           "change of the inverse frequencies of theta"},
          {"factor", "number", "-", "at least 1; needed by every scaling"},
          {"original_max_position_embeddings", "number", "-", "needed by dynamic_ntk, yarn and llama3"},
          {"sequence_length", "number", "-", "current length; needed by dynamic_ntk"},
          {"beta_fast", "number", "32", "yarn: pairs with more turns than this keep their frequency"},
          {"beta_slow", "number", "1", "yarn: pairs with fewer turns are scaled in full"},
          {"attention_factor", "number", "0.1 ln(factor) + 1 with yarn, else 1",
           "factor of cos and sin; with yarn or in/inv_freq only"},
          {"low_freq_factor", "number", "-", "needed by llama3"},
          {"high_freq_factor", "number", "-", "needed by llama3"},
      },
      rope_contract_keys(),
      [](const Case& c) -> std::unique_ptr<Problem> { return std::make_unique<RopeProblem>(c); },
      rope_inputs(),
  };
}

}  // namespace attest
