// Rotary position embedding, forward and backward: inverse frequencies, angles, turns.
#include <algorithm>
#include <cmath>

#include "data/golden/results.hpp"

namespace attest::golden {
namespace {

/// The pair that makes this many turns in M positions.
Interval pair_that_turns(const Case& c, double turns, Index rotary_dim) {
  const Interval m(number(c.spec, "original_max_position_embeddings", 0)), theta(number(c.spec, "theta", 0));
  return Interval(static_cast<double>(rotary_dim)) * log(m / (Interval(2 * turns) * pi())) /
         (Interval(2) * log(theta));
}

double floor_of(const Interval& x, Results& results) {
  const std::optional<double> value = floor(x);
  if (!value) results.mark_undecided();
  return value.value_or(0);
}

/// e of f (e + (1 - e) / factor) for YaRN.
Interval yarn_share(const Case& c, Index rotary_dim, Index k, Results& results) {
  const double fast = number(c.spec, "beta_fast", 32), slow = number(c.spec, "beta_slow", 1);
  const double low = std::max(floor_of(pair_that_turns(c, fast, rotary_dim), results), 0.0);
  const double ceiling = -floor_of(-pair_that_turns(c, slow, rotary_dim), results);
  const double high = std::min(ceiling, static_cast<double>(rotary_dim - 1)), at = static_cast<double>(k);
  if (at <= low) return 1;
  if (at >= high) return 0;
  return Interval(1) - Interval(at - low) / Interval(high - low);
}

Interval llama3_share(const Case& c, const Interval& frequency, Results& results) {
  const Interval low(number(c.spec, "low_freq_factor", 0)), high(number(c.spec, "high_freq_factor", 0));
  const Interval turns =
      frequency * Interval(number(c.spec, "original_max_position_embeddings", 0)) / (Interval(2) * pi());
  const Interval smooth = (turns - low) / (high - low);
  if (smooth.is_negative()) return 0;
  if (Interval(1).is_below(smooth)) return 1;
  if (!smooth.is_positive() || !smooth.is_below(Interval(1))) results.mark_undecided();
  return smooth;
}

Interval inverse_frequency(const Case& c, Index rotary_dim, Index k, bool rounds, Results& results) {
  if (const Tensor* given = c.input("inv_freq")) return given->values[k];
  const Interval r(static_cast<double>(rotary_dim)), factor(number(c.spec, "factor", 1));
  const std::string scaling = text(c.spec, "scaling", "none");
  Interval theta(number(c.spec, "theta", 0));
  // These change theta in double, which is the rule (docs/bounds_rope.md).
  if (scaling == "ntk" || scaling == "dynamic_ntk") {
    const double times = number(c.spec, "factor", 1), columns = static_cast<double>(rotary_dim);
    const double m = number(c.spec, "original_max_position_embeddings", 0);
    const double length = std::max(number(c.spec, "sequence_length", 0), m);
    const double base = scaling == "ntk" ? times : times * length / m - (times - 1);
    const Interval growth = power(base, columns / (columns - 2));
    theta *= Interval(results.rounded(growth, DType::float64));
    theta = Interval(results.rounded(theta, DType::float64));
  }
  Interval exponent = Interval(2 * static_cast<double>(k)) / r;
  if (rounds) exponent = Interval(results.rounded(exponent, DType::float32));
  const Interval plain = k == 0 ? Interval(1) : power(theta, -exponent);
  if (scaling == "linear") return plain / factor;
  if (scaling != "yarn" && scaling != "llama3") return plain;
  const Interval share =
      scaling == "yarn" ? yarn_share(c, rotary_dim, k, results) : llama3_share(c, plain, results);
  return plain * share + plain * (Interval(1) - share) / factor;
}

/// Factors of the first and second column of a pair.
struct Turn {
  Interval cos_first, cos_second, sin_first, sin_second;
};

class Turns {
 public:
  Turns(const Case& c, Index rotary_dim, bool is_half, Results& results)
      : case_(c), pairs_(rotary_dim / 2), is_half_(is_half), attention_factor_(1) {
    if (c.input("cos")) return;
    const bool rounds = text(c.spec, "angle_dtype", "float32") == "float32";
    for (Index k = 0; k < pairs_; ++k) {
      frequencies_.push_back(inverse_frequency(c, rotary_dim, k, rounds, results));
      if (rounds) frequencies_.back() = Interval(results.rounded(frequencies_.back(), DType::float32));
    }
    rounds_ = rounds;
    if (c.spec.contains("attention_factor")) {
      attention_factor_ = Interval(number(c.spec, "attention_factor", 1));
    } else if (text(c.spec, "scaling", "none") == "yarn") {
      attention_factor_ = log(Interval(number(c.spec, "factor", 1))) / Interval(10) + Interval(1);
    }
  }

  /// row: of the table, where there is one.
  Turn at(Index row, double position, Index k, Results& results) const {
    if (const Tensor* cos = case_.input("cos")) {
      const Index width = cos->shape.back();
      const bool is_full = width == 2 * pairs_;
      const Index first = row * width + (!is_full || is_half_ ? k : 2 * k);
      const Index second = row * width + (!is_full ? k : is_half_ ? k + pairs_ : 2 * k + 1);
      const std::vector<double>&c = cos->values, &s = case_.in.at("sin").values;
      return {c[first], c[second], s[first], s[second]};
    }
    Interval angle = Interval(position) * frequencies_[k];
    if (rounds_) {
      position = results.rounded(Interval(position), DType::float32);
      angle = Interval(results.rounded(Interval(position) * frequencies_[k], DType::float32));
    }
    const Interval c = attention_factor_ * cos(angle), s = attention_factor_ * sin(angle);
    return {c, c, s, s};
  }

 private:
  const Case& case_;
  Index pairs_;
  bool is_half_, rounds_ = false;
  std::vector<Interval> frequencies_;
  Interval attention_factor_;
};

std::vector<double> positions_of(const Case& c, Index batch, Index rows) {
  std::vector<double> all;
  const double start = number(c.spec, "position_start", 0);
  if (const Tensor* packed = c.input("cu_seqlens")) {
    for (std::size_t n = 1; n < packed->values.size(); ++n) {
      for (double at = packed->values[n - 1]; at < packed->values[n]; ++at) {
        all.push_back(start + at - packed->values[n - 1]);
      }
    }
    return all;
  }
  const Tensor* given = c.input("positions");
  for (Index n = 0; n < batch * rows; ++n) {
    all.push_back(given ? given->values[n % given->size()] : start + static_cast<double>(n % rows));
  }
  return all;
}

}  // namespace

void rope(const Case& c, Results& results) {
  const Tensor *x = c.input("x"), *dy = c.input("dy");
  const std::vector<Index>& shape = (x ? x : dy)->shape;
  const bool is_packed = shape.size() == 3, is_half = text(c.spec, "style", "") == "half";
  const Index batch = is_packed ? 1 : shape[0], heads = shape[1], rows = is_packed ? shape[0] : shape[2];
  const Index width = shape.back();
  const auto rotary_dim = static_cast<Index>(number(c.spec, "rotary_dim", static_cast<double>(width)));
  const Turns turns(c, rotary_dim, is_half, results);
  const std::vector<double> positions = positions_of(c, batch, rows);
  const bool is_cache = c.input("positions") || c.input("cu_seqlens") || c.spec.contains("position_start");
  const bool table_has_batch = c.input("cos") && c.input("cos")->shape.size() == 3;
  Output *const y = x ? results.output("y", shape) : nullptr, *const dx =
                                                                  dy ? results.output("dx", shape) : nullptr;
  for (Index n = 0; n < batch * rows; ++n) {
    const Index table_row = is_cache ? static_cast<Index>(positions[n]) : table_has_batch ? n : n % rows;
    const auto place = [&](Index h, Index d) {
      return (is_packed ? n * heads + h : (n / rows * heads + h) * rows + n % rows) * width + d;
    };
    for (Index k = 0; k < rotary_dim / 2; ++k) {
      const Turn turn = turns.at(table_row, positions[n], k, results);
      for (Index h = 0; h < heads; ++h) {
        const Index i = place(h, is_half ? k : 2 * k), j = place(h, is_half ? k + rotary_dim / 2 : 2 * k + 1);
        if (y) {
          const Interval a(x->values[i]), b(x->values[j]);
          y->set(i, a * turn.cos_first - b * turn.sin_first);
          y->set(j, b * turn.cos_second + a * turn.sin_second);
        }
        if (dx) {
          const Interval a(dy->values[i]), b(dy->values[j]);
          dx->set(i, a * turn.cos_first + b * turn.sin_second);
          dx->set(j, b * turn.cos_second - a * turn.sin_first);
        }
      }
    }
    for (Index h = 0; h < heads; ++h) {
      for (Index d = rotary_dim; d < width; ++d) {
        if (y) y->set(place(h, d), x->values[place(h, d)]);
        if (dx) dx->set(place(h, d), dy->values[place(h, d)]);
      }
    }
  }
}

}  // namespace attest::golden
