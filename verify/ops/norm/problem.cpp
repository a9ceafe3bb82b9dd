// What rms_norm and layer_norm share: exact values and bounds, the checks of ours and the decoys.
#include "verify/ops/norm/problem.hpp"

#include <algorithm>
#include <cmath>

#include "core/array.hpp"
#include "ref/norm.hpp"
#include "verify/ops/sample.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr Index sampled = 32;  // rows and columns

}  // namespace

/// One way to get a normalisation right or wrong.
struct NormProblem::Variant {
  std::string name;
  NormSpec spec;
  NormInputs in;
  double denominator;                    // of the variance
  double (*rstd)(double v, double eps);  // from the variance
  bool is_subtle = false;                // see Decoy
};

NormProblem::NormProblem(const Case& c, bool is_centred, const std::vector<Port>& outputs)
    : Problem(c), case_(c), norm_(c, contract_keys_, is_centred) {
  for (const Port& port : outputs) {
    if (c.out.contains(std::string(port.name))) outputs_.emplace_back(port.name);
  }
}

void NormProblem::expect_sum(Expected& sum) const {
  const bounds::ExpectedView<2> view(sum, {sum.value.data(), {norm_.in.rows(), norm_.in.width()}});
  const double u = unit_roundoff(norm_.contract.compute), u64 = unit_roundoff(DType::float64);
  // A sum that is stored coarsely says nothing about whether it had been rounded before.
  const double stored = unit_roundoff(*case_.output("sum")->dtype);
  const double relative =
      stored >= norm_.contract.sum_rounding / (1 + 4 * u) ? u : norm_.contract.sum_rounding;
  const double smallest_normal =
      std::ldexp(1.0, format_of(norm_.contract.compute).emin);  // a device may flush
  for (Index i = 0; i < norm_.in.rows(); ++i) {
    for (Index j = 0; j < norm_.in.width(); ++j) {
      const double s = norm_.in.x(i, j);
      if (norm_.contract.sum_rounding > 0) {
        view.set_bound(s, relative * std::abs(s), relative * std::abs(s), 0, u64 / relative, i, j);
      } else {
        const double flushed = std::abs(s) < smallest_normal ? std::abs(s) : 0;
        view.set({s, 0, flushed, flushed, 0, flushed}, i, j);
      }
    }
  }
}

std::vector<Expected> NormProblem::expect(const ProgressFunction& progress) {
  std::vector<Expected> all;
  for (const std::string& name : outputs_) all.emplace_back(name, case_.out.at(name));
  const Index rows = norm_.in.rows(), width = norm_.in.width();
  bounds::NormOutputs out{};
  for (Expected& e : all) {
    std::vector<double>& error = reference_error_[e.output];
    error.resize(e.value.size());
    const auto matrix = [&]() -> bounds::NormOutput<2> {
      return {{e, {e.value.data(), {rows, width}}}, {error.data(), {rows, width}}};
    };
    const auto vector = [&](Index n) -> bounds::NormOutput<1> {
      return {{e, {e.value.data(), {n}}}, {error.data(), {n}}};
    };
    if (e.output == "sum") expect_sum(e);
    if (e.output == "y") out.y = matrix();
    if (e.output == "dx") out.dx = matrix();
    if (e.output == "mean") out.mean = vector(rows);
    if (e.output == "rstd") out.rstd = vector(rows);
    if (e.output == "dweight") out.dweight = vector(width);
    if (e.output == "dbias") out.dbias = vector(width);
  }
  bounds::norm(norm_.spec, norm_.in, norm_.dy, norm_.contract, out, progress);
  return all;
}

/// Evenly spread ones, and that of the least spread, where eps matters most.
std::vector<Index> NormProblem::sampled_rows() const {
  std::vector<Index> rows = evenly_spread(norm_.in.rows(), sampled);
  Index least = 0;
  double largest_rstd = 0;
  for (Index i = 0; i < norm_.in.rows(); ++i) {
    const double rstd = ref::norm_stats(norm_.spec, norm_.in, i).rstd;
    if (rstd > largest_rstd) {
      largest_rstd = rstd;
      least = i;
    }
  }
  if (std::find(rows.begin(), rows.end(), least) == rows.end()) rows.push_back(least);
  return rows;
}

std::vector<Decoy> NormProblem::sampled_answers(const Variant& variant) const {
  const NormInputs& in = variant.in;
  const Index width = in.width();
  const auto holds = [&](std::string_view output) {
    return std::find(outputs_.begin(), outputs_.end(), output) != outputs_.end();
  };
  const auto stats_of = [&](Index i) {
    if (in.rstd || !variant.rstd) return ref::norm_stats(variant.spec, in, i);
    NormSpec without_eps = variant.spec;
    without_eps.eps = 0;
    ref::NormStats stats = ref::norm_stats(without_eps, in.x.slice(i));
    const double v = 1 / (stats.rstd * stats.rstd) * static_cast<double>(width) / variant.denominator;
    stats.rstd = variant.rstd(v, variant.spec.eps);
    return stats;
  };

  std::vector<Decoy> answers;
  for (const std::string& output : outputs_)
    answers.push_back({variant.name, output, {}, {}, variant.is_subtle});
  const auto add = [&](std::string_view output, Index at, double value) {
    for (Decoy& answer : answers) {
      if (answer.output != output) continue;
      answer.at.push_back(at);
      answer.value.push_back(value);
    }
  };
  Array<double, 1> row({width});
  for (const Index i : sampled_rows()) {
    const ref::NormStats stats = stats_of(i);
    add("rstd", i, stats.rstd);
    if (variant.spec.is_centred) add("mean", i, stats.mean);
    if (holds("y")) {
      ref::norm_row(variant.spec, in, stats, i, row.view());
      for (Index j = 0; j < width; ++j) add("y", i * width + j, row(j));
    }
    if (holds("dx")) {
      ref::norm_backward_row(variant.spec, in, norm_.dy, stats, i, row.view());
      for (Index j = 0; j < width; ++j) add("dx", i * width + j, row(j));
    }
  }
  if (holds("dweight") || holds("dbias")) {
    Array<double, 1> mean({in.rows()}), rstd({in.rows()});
    for (Index i = 0; i < in.rows(); ++i) {
      const ref::NormStats stats = stats_of(i);
      mean(i) = stats.mean;
      rstd(i) = stats.rstd;
    }
    for (const Index j : evenly_spread(width, sampled)) {
      const auto sum = ref::norm_backward_column(in, norm_.dy, mean.view(), rstd.view(), j);
      add("dweight", j, sum.dweight);
      add("dbias", j, sum.dbias);
    }
  }
  return answers;
}

void NormProblem::recheck(std::span<const Expected> expected) const {
  const Variant right{"ref", norm_.spec, norm_.in, static_cast<double>(norm_.in.width()), nullptr};
  for (const Decoy& answer : sampled_answers(right)) {
    for (const Expected& e : expected) {
      if (e.output != answer.output) continue;
      const std::vector<double>& error = reference_error_.at(e.output);
      for (std::size_t n = 0; n < answer.at.size(); ++n) {
        const Index at = answer.at[n];
        const double value = e.value[at], want = answer.value[n];
        if (value == want || std::abs(value - want) <= e.value_error[at] + error[at]) continue;
        throw InternalError("the engine's value of out/" + e.output + " at flat index " + std::to_string(at) +
                            " is " + exact_text(value) + ", the reference's " + exact_text(want));
      }
    }
  }
}

std::vector<Decoy> NormProblem::decoys(std::span<const Expected>) const {
  std::vector<Decoy> all;
  const double n = static_cast<double>(norm_.in.width());
  const auto inside = [](double v, double eps) { return 1 / std::sqrt(v + eps); };
  const auto add = [&](Variant variant) {
    for (Decoy& decoy : sampled_answers(variant)) all.push_back(std::move(decoy));
  };
  const Variant right{"", norm_.spec, norm_.in, n, inside};
  const auto variant = [&](const std::string& name, auto change) {
    Variant wrong = right;
    wrong.name = name;
    change(wrong);
    add(wrong);
  };
  const bool has_own_statistics = !norm_.in.rstd;
  if (has_own_statistics && norm_.spec.eps > 0) {
    variant("eps outside the root", [](Variant& v) {
      v.is_subtle = true;
      v.rstd = [](double square, double eps) { return 1 / (std::sqrt(square) + eps); };
    });
    variant("a missing eps", [](Variant& v) { v.spec.eps = 0, v.is_subtle = true; });
  }
  if (norm_.in.width() > 1) {
    if (has_own_statistics)
      variant("a mean square over N - 1", [&](Variant& v) { v.denominator = n - 1, v.is_subtle = true; });
    variant(norm_.spec.is_centred ? "rms_norm" : "layer_norm",
            [](Variant& v) { v.spec.is_centred = !v.spec.is_centred; });
  }
  if (norm_.in.weight) {
    const double other = norm_.spec.weight_offset == 0 ? 1 : 0;
    variant(other == 0 ? "weight_offset = 0" : "weight_offset = 1",
            [&](Variant& v) { v.spec.weight_offset = other; });
    variant("no weight", [](Variant& v) { v.in.weight = {}; });
  }
  if (norm_.in.bias) variant("no bias", [](Variant& v) { v.in.bias = {}; });
  if (case_.input("residual")) {
    variant("no residual", [&](Variant& v) {
      v.in.x = {case_.input("x")->values.data(), {norm_.in.rows(), norm_.in.width()}};
    });
  }
  return all;
}

}  // namespace attest
