// Reads a case of a normalisation: spec, contract, shapes and values have to fit together.
#include "verify/ops/norm/case.hpp"

#include <algorithm>
#include <cmath>

#include "core/invalid_case.hpp"
#include "ref/norm.hpp"
#include "verify/axes/extents.hpp"
#include "verify/contract/keys.hpp"
#include "verify/text.hpp"

namespace attest {
void require_finite(const Case& c, const std::string& name) {
  const auto it = c.in.find(name);
  if (it == c.in.end()) return;
  const Tensor& tensor = it->second;
  for (Index n = 0; n < tensor.size(); ++n) {
    const double x = tensor.values[n];
    if (std::abs(x) <= 1e150) continue;
    const std::string found = std::isnan(x)   ? "NaN"
                              : std::isinf(x) ? "an infinity"
                                              : "a number whose square overflows float64";
    throw InvalidCase(c.object("in/" + name) + " holds " + found + " at " + index_text(tensor, n) +
                      "; finite values of magnitude up to 1e150 are expected");
  }
}

void require_wide_enough(const Case& c, const std::string& key, DType compute) {
  const Format& wide = format_of(compute);
  for (const auto& [name, tensor] : c.in) {
    const Format& f = format_of(*tensor.dtype);
    if (f.precision <= wide.precision && f.emax <= wide.emax && f.emin >= wide.emin) continue;
    throw InvalidCase(c.object("contract") + " attribute " + key + " is " + std::string(wide.name) +
                      ", which cannot hold the values of in/" + name + " (" + std::string(f.name) + ")");
  }
}

DType natural_compute_dtype(const Case& c) {
  for (const auto& [name, tensor] : c.in) {
    if (tensor.dtype == DType::float64) return DType::float64;
  }
  return DType::float32;
}

NormCase::NormCase(const Case& c, ContractReader& keys, bool is_centred) : spec{}, contract{}, case_(c) {
  spec.is_centred = is_centred;
  read_spec();
  read_shapes();
  read_contract(keys);
  for (const auto& [name, tensor] : case_.in) require_finite(case_, name);
  add_residual();
  check_spread();
}

void NormCase::read_spec() {
  KeyReader keys(case_, "spec", case_.spec);
  spec.eps = has_given_statistics() ? keys.number("eps", 0) : keys.number("eps");
  spec.weight_offset = keys.number("weight_offset", 0);
  if (keys.boolean("cast_before_weight", false)) spec.xhat_dtype = case_.input("x")->dtype;
  if (case_.input("residual")) {  // else the key is not known
    rounds_sum_ = keys.boolean("round_sum", false);
    sum_is_declared_ = keys.has("round_sum");
  }
  keys.finish();
  const auto reject = [&](const std::string& key, double found, const std::string& expected) {
    throw InvalidCase(case_.object("spec") + " attribute " + key + " is " + exact_text(found) + "; " +
                      expected);
  };
  if (spec.eps < 0) reject("eps", spec.eps, "0 or more is expected");
  if (spec.weight_offset != 0 && !case_.input("weight")) {
    reject("weight_offset", spec.weight_offset, "without in/weight, 0 is expected");
  }
}

void NormCase::read_contract(ContractReader& keys) {
  const DType natural = natural_compute_dtype(case_);
  contract.compute = read_compute_dtype_among(case_, keys, natural);
  contract.variance = bounds::Variance::two_pass;
  if (spec.is_centred) {
    contract.variance = keys.choice<bounds::Variance>(
        "variance", {{"two_pass", bounds::Variance::two_pass}, {"one_pass", bounds::Variance::one_pass}},
        bounds::Variance::two_pass);
  }
  keys.finish();
  require_wide_enough(case_, keys.has("compute_dtype") ? "compute_dtype" : "accumulate", contract.compute);
  contract.sum_rounding = sum_rounding();
  const auto saved_rounding = [&](const std::string& name) {
    const Tensor* tensor = case_.output(name);
    const bool is_narrow =
        tensor && format_of(*tensor->dtype).precision < format_of(contract.compute).precision;
    return is_narrow ? unit_roundoff(*tensor->dtype) : 0;
  };
  contract.saved_rounding_of_mean = saved_rounding("mean");
  contract.saved_rounding_of_rstd = saved_rounding("rstd");
}

double NormCase::sum_rounding() const {
  const Tensor* residual = case_.input("residual");
  if (!residual || rounds_sum_) return 0;
  const double u = unit_roundoff(contract.compute);
  if (sum_is_declared_) return u;
  // Either may have happened: rounded as it was added, and once more to the coarser of the element types.
  const double coarser = std::max(unit_roundoff(*case_.input("x")->dtype), unit_roundoff(*residual->dtype));
  return coarser > u ? coarser + u + coarser * u : u;
}

SpecKey variance_contract_key() {
  return {"variance", "two_pass, one_pass", "two_pass",
          "mean((x - mean)^2), which Welford's recurrence counts as, or mean(x^2) - mean^2", "one_pass"};
}

std::vector<SpecKey> norm_spec_keys(std::string_view eps) {
  return {
      {"eps", "number", "", eps},
      {"weight_offset", "number", "0", "added to the weight; 1 for kernels that store weight - 1"},
      {"cast_before_weight", "true, false", "false",
       "the normalised x is rounded to the element type of x before the weight"},
      {"round_sum", "true, false", "either",
       "with a residual: whether x + residual is rounded to the residual's element type before it is "
       "normalised; bounds are tighter if it is said"},
  };
}

std::vector<SpecKey> norm_contract_keys(bool is_centred) {
  std::vector<SpecKey> keys = compute_contract_keys();
  if (is_centred) keys.push_back(variance_contract_key());
  return keys;
}

std::string NormCase::contract_text() const {
  std::string text = "computed in " + std::string(format_of(contract.compute).name);
  if (spec.is_centred) {
    text += contract.variance == bounds::Variance::two_pass ? ", variance in two passes"
                                                            : ", variance in one pass";
  }
  if (case_.input("residual") && !sum_is_declared_) text += ", x + residual rounded or not";
  return text;
}

void NormCase::require_shape(const std::string& path, const Tensor& tensor, const std::vector<Index>& shape,
                             const std::string& of) const {
  if (tensor.shape == shape) return;
  throw InvalidCase(case_.object(path) + " has shape " + shape_text(tensor.shape) + "; " + shape_text(shape) +
                    ", " + of + ", is expected");
}

void NormCase::read_shapes() {
  const Tensor& x = *case_.input("x");
  width_ = x.shape.empty() ? 0 : x.shape.back();
  if (width_ < 1) {
    throw InvalidCase(case_.object("in/x") + " has shape " + shape_text(x.shape) +
                      "; [..., N] with N at least 1 is expected");
  }
  rows_ = x.size() / width_;
  for (const std::string path : {"in/residual", "in/dy", "out/y", "out/sum", "out/dx"}) {
    const std::string name = path.substr(path.find('/') + 1);
    const Tensor* tensor = path[0] == 'i' ? case_.input(name) : case_.output(name);
    if (tensor) require_shape(path, *tensor, x.shape, "that of in/x");
  }
  for (const std::string path : {"in/weight", "in/bias", "out/dweight", "out/dbias"}) {
    const std::string name = path.substr(path.find('/') + 1);
    const Tensor* tensor = path[0] == 'i' ? case_.input(name) : case_.output(name);
    if (tensor) require_shape(path, *tensor, {width_}, "the last axis of in/x");
  }
  for (const std::string path : {"in/rstd", "in/mean", "out/rstd", "out/mean"}) {
    const std::string name = path.substr(path.find('/') + 1);
    const Tensor* tensor = path[0] == 'i' ? case_.input(name) : case_.output(name);
    if (!tensor) continue;
    std::vector<Index> shape = x.shape;
    shape.back() = 1;
    if (tensor->shape == shape) continue;
    if (shape.size() > 1) shape.pop_back();
    require_shape(path, *tensor, shape, "in/x without its last axis or with 1 in its place");
  }
  const auto needs = [&](const std::string& name, const std::string& needed) {
    if (case_.output(name) && !case_.input(needed)) {
      throw InvalidCase(case_.object("out/" + name) + " is given, but in/" + needed + " is missing");
    }
  };
  for (const std::string gradient : {"dx", "dweight", "dbias"}) needs(gradient, "dy");
  needs("dweight", "weight");
  needs("sum", "residual");
  if (rounds_sum_ && case_.output("sum") && case_.output("sum")->dtype != case_.input("residual")->dtype) {
    throw InvalidCase(case_.object("out/sum") + " holds " + case_.output("sum")->type_name +
                      "; with round_sum = true, the element type of in/residual, " +
                      case_.input("residual")->type_name + ", is expected");
  }
  if (rounds_sum_ && format_of(*x.dtype).precision > format_of(*case_.input("residual")->dtype).precision) {
    throw InvalidCase(case_.object("in/residual") + " holds " + case_.input("residual")->type_name +
                      ", which is narrower than in/x (" + x.type_name +
                      "); with round_sum = true, at least that precision is expected");
  }
  in.x = {x.values.data(), {rows_, width_}};
  if (const Tensor* weight = case_.input("weight")) in.weight = {weight->values.data(), {width_}};
  if (const Tensor* bias = case_.input("bias")) in.bias = {bias->values.data(), {width_}};
  if (const Tensor* gradient = case_.input("dy")) dy = {gradient->values.data(), {rows_, width_}};
  if (has_given_statistics()) read_given_statistics();
}

void NormCase::read_given_statistics() {
  const std::string given = case_.object(case_.input("rstd") ? "in/rstd" : "in/mean") + " is given, but ";
  for (const std::string name : {"y", "sum", "mean", "rstd"}) {
    if (case_.output(name))
      throw InvalidCase(given + "out/" + name + " does not depend on it; gradients alone are expected");
  }
  if (case_.input("residual"))
    throw InvalidCase(given + "in/residual, too; with in/x as the sum of both, no residual is expected");
  for (const char* name : {"rstd", "mean"}) {
    if ((spec.is_centred || name == std::string("rstd")) && !case_.input(name))
      throw InvalidCase(given + "in/" + name + " is missing");
  }
  const Tensor& rstd = *case_.input("rstd");
  for (Index i = 0; i < rows_; ++i) {
    if (rstd.values[i] > 0 || std::isnan(rstd.values[i])) continue;
    throw InvalidCase(case_.object("in/rstd") + " holds " + number_text(rstd.values[i], 6) + " at " +
                      index_text(rstd, i) + "; positive values are expected");
  }
  in.rstd = {rstd.values.data(), {rows_}};
  if (spec.is_centred) in.mean = {case_.input("mean")->values.data(), {rows_}};
}

// The sum of two numbers of p bits is rounded right to p bits even if it is rounded to 2p + 2 bits first
// (Figueroa, When is double rounding innocuous?, SIGNUM 1995): by double here, by float32 on a device.
void NormCase::add_residual() {
  const Tensor* residual = case_.input("residual");
  if (!residual) return;
  const std::vector<double>& x = case_.input("x")->values;
  sum_.resize(x.size());
  for (std::size_t n = 0; n < x.size(); ++n) {
    sum_[n] = x[n] + residual->values[n];
    if (rounds_sum_) sum_[n] = round_to(sum_[n], *residual->dtype);
    if (std::isfinite(sum_[n])) continue;
    throw InvalidCase(case_.object("in/residual") + " and in/x add up to more than the largest " +
                      residual->type_name + " at " + index_text(*residual, static_cast<Index>(n)));
  }
  in.x = {sum_.data(), {rows_, width_}};
}

std::vector<double> NormCase::other_sum() const {
  const Tensor* residual = case_.input("residual");
  if (!residual) return {};
  std::vector<double> other = case_.input("x")->values;
  for (std::size_t n = 0; n < other.size(); ++n) {
    other[n] += residual->values[n];
    if (!rounds_sum_) other[n] = round_to(other[n], *residual->dtype);
  }
  return other;
}

void NormCase::check_spread() const {
  if (spec.eps > 0 || in.rstd) return;
  for (Index i = 0; i < rows_; ++i) {
    if (std::isfinite(ref::norm_stats(spec, in.x.slice(i)).rstd)) continue;
    throw InvalidCase(case_.object("spec") + " attribute eps is 0, but row " + std::to_string(i) +
                      " of in/x " + (spec.is_centred ? "has equal values" : "is zero") +
                      ": its result is 0/0; eps > 0 is expected");
  }
}

}  // namespace attest
