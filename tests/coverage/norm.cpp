// Features of rms_norm and layer_norm.
#include <cmath>
#include <functional>
#include <stdexcept>

#include "tests/coverage/feature.hpp"
#include "tests/coverage/tensors.hpp"
#include "tests/oracle/norm.hpp"

namespace attest::coverage {
namespace {

/// What the oracle is asked: x with the residual added, and rounded where the case says so.
struct Question {
  NormSpec spec;
  std::vector<double> x;
  NormInputs in;

  explicit Question(const Case& c) {
    const Tensor &given = c.in.at("x"), *residual = c.input("residual");
    spec = {c.op == "layer_norm", number_of(c, "eps", 0), number_of(c, "weight_offset", 0), {}};
    if (flag_of(c, "cast_before_weight", false)) spec.xhat_dtype = given.dtype;
    x = given.values;
    for (std::size_t n = 0; residual && n < x.size(); ++n) {
      const long double sum = static_cast<long double>(x[n]) + residual->values[n];
      x[n] = static_cast<double>(sum);
      if (x[n] != sum) throw std::logic_error("the oracle reads doubles, and this x + residual is none");
      if (flag_of(c, "round_sum", false)) x[n] = round_to(x[n], *residual->dtype);
    }
    const Index width = given.shape.back();
    in.x = {x.data(), {given.size() / width, width}};
    if (const Tensor* weight = c.input("weight")) in.weight = {weight->values.data(), {width}};
    if (const Tensor* bias = c.input("bias")) in.bias = {bias->values.data(), {width}};
    if (const Tensor* rstd = c.input("rstd")) in.rstd = {rstd->values.data(), {rstd->size()}};
    if (const Tensor* mean = c.input("mean")) in.mean = {mean->values.data(), {mean->size()}};
  }
  Question(const Question&) = delete;

  long double weight(Index j) const { return in.weight ? in.weight(j) + spec.weight_offset : 1; }
};

/// Errors of the oracle's statistics of one row.
struct RowErrors {
  long double mean, rstd, xhat;  // rstd: relative
  long double largest_xhat = 0;

  RowErrors(const Question& q, const oracle::Norm& norm, Index i) {
    const long double n = static_cast<long double>(q.in.width()), u = oracle_unit;
    long double top = 0;
    for (Index j = 0; j < q.in.width(); ++j) {
      top = std::max<long double>(top, std::abs(q.in.x(i, j)));
      largest_xhat = std::max(largest_xhat, std::abs(norm.xhat(i, j)));
    }
    mean = q.spec.is_centred ? 4 * u * (n + 3) * top : 0;  // x_0 and the mean distance from it
    rstd = u * (n * n + 16);                               // half of n^2 / 2 squares added up, all positive
    xhat = norm.rstd(i) * (mean + 4 * u * top) + (rstd + 4 * u) * largest_xhat;
  }
};

void answer_forward(const Question& q, const oracle::Norm& norm, const std::vector<RowErrors>& errors,
                    Answers& all) {
  const auto set = [&](const std::string& name, Index at, long double value, long double error) {
    const auto it = all.find(name);
    if (it == all.end()) return;
    it->second.value[at] = value;
    it->second.error[at] = error;
  };
  const Index width = q.in.width();
  for (Index i = 0; i < q.in.rows(); ++i) {
    set("mean", i, norm.mean(i), errors[i].mean);
    set("rstd", i, norm.rstd(i), norm.rstd(i) * errors[i].rstd);
    for (Index j = 0; j < width; ++j) {
      set("sum", i * width + j, q.in.x(i, j), 0);
      long double z = norm.xhat(i, j) * q.weight(j), before = errors[i].xhat;
      if (q.spec.xhat_dtype) {
        z = round_to(static_cast<double>(norm.xhat(i, j)), *q.spec.xhat_dtype) * q.weight(j);
        before = 0;  // both round to the same number, but where the exact one is next to a midpoint
      }
      const long double bias = q.in.bias ? q.in.bias(j) : 0;
      set("y", i * width + j, z + bias,
          std::abs(q.weight(j)) * before + 4 * oracle_unit * (std::abs(z) + std::abs(bias)));
    }
  }
}

void answer_backward(const Question& q, View<const double, 2> dy, const oracle::Norm& norm,
                     const std::vector<RowErrors>& errors, Answers& all) {
  const oracle::NormGradients gradients = oracle::norm_gradients(q.spec, q.in, dy);
  const Index width = q.in.width();
  const long double n = static_cast<long double>(width), rows = static_cast<long double>(q.in.rows());
  const auto answer = [&](const std::string& name) {
    const auto it = all.find(name);
    return it == all.end() ? nullptr : &it->second;
  };
  Answer *dx = answer("dx"), *dweight = answer("dweight"), *dbias = answer("dbias");
  for (Index i = 0; i < q.in.rows(); ++i) {
    const RowErrors& e = errors[i];
    long double g = 0;
    for (Index j = 0; j < width; ++j) g = std::max(g, std::abs(q.weight(j) * dy(i, j)));
    // n entries of a row of the Jacobian, whose magnitudes add up to rstd (2 + xhat^2) at most.
    const long double jacobian =
        (2 + e.largest_xhat * e.largest_xhat) * (2 * e.rstd + (n + 10) * oracle_unit) +
        4 * e.xhat * e.largest_xhat;
    for (Index j = 0; j < width; ++j) {
      if (dx) {
        dx->value[i * width + j] = gradients.dx(i, j);
        dx->error[i * width + j] = g * norm.rstd(i) * jacobian;
      }
      const long double d = std::abs(dy(i, j)), sum = (rows + 3) * oracle_unit;
      if (dweight) dweight->error[j] += d * (e.xhat + sum * std::abs(norm.xhat(i, j)));
      if (dbias) dbias->error[j] += d * sum;
    }
  }
  for (Index j = 0; j < width; ++j) {
    if (dweight) dweight->value[j] = gradients.dweight(j);
    if (dbias) dbias->value[j] = gradients.dbias(j);
  }
}

Answers answers(const Case& c) {
  Answers all;
  for (const auto& [name, tensor] : c.out) all.emplace(name, Answer(tensor));
  const Question q(c);
  const oracle::Norm norm = oracle::norm(q.spec, q.in);
  std::vector<RowErrors> errors;
  for (Index i = 0; i < q.in.rows(); ++i) errors.emplace_back(q, norm, i);
  answer_forward(q, norm, errors, all);
  if (const Tensor* dy = c.input("dy"))
    answer_backward(q, {dy->values.data(), {q.in.rows(), q.in.width()}}, norm, errors, all);
  return all;
}

std::vector<Feature> features(const std::string& op, DType element) {
  const Shape shape = {2, 3, 13};
  const bool is_centred = op == "layer_norm";
  std::vector<Feature> all;
  const auto add = [&](const std::string& name, const std::function<void(Case&)>& change) {
    test::Random random(seed_of(op + name));
    Case& c = all.emplace_back(Feature{name, {}}).c;
    c.op = op;
    c.spec["eps"] = 1e-3;
    c.in["x"] = normal(random, element, shape, 1.5, 0.5);
    for (Index j = 0; j < 13; ++j)  // a row of which eps is a part
      c.in["x"].values[j] = round_to(c.in["x"].values[j] / 32, element);
    c.in["weight"] = normal(random, element, {13}, 0.3, 1);
    c.in["bias"] = normal(random, element, {13}, 0.5);
    c.in["dy"] = normal(random, element, shape);
    c.out["y"] = c.out["dx"] = blank(element, shape);
    c.out["rstd"] = blank(DType::float32, {2, 3});
    if (is_centred) c.out["mean"] = c.out["rstd"];
    c.out["dweight"] = c.out["dbias"] = blank(DType::float32, {13});
    change(c);
  };
  const auto drop = [](Case& c, const std::string& name) {
    c.in.erase(name);
    c.out.erase("d" + name);
  };
  const auto add_residual = [&](Case& c) {
    test::Random random(99);
    c.in["residual"] = normal(random, element, shape, 0.25);
    c.out["sum"] = blank(element, shape);
  };
  add("weight and bias", [](Case&) {});
  add("neither weight nor bias", [&](Case& c) { drop(c, "weight"), drop(c, "bias"); });
  add("weight only", [&](Case& c) { drop(c, "bias"); });
  add("weight stored less 1", [&](Case& c) {
    c.spec["weight_offset"] = 1.0;
    for (double& w : c.in["weight"].values) w = round_to(w - 1, element);
  });
  add("cast before the weight", [](Case& c) { c.spec["cast_before_weight"] = true; });
  add("residual, its sum rounded", [&](Case& c) {
    add_residual(c);
    c.spec["round_sum"] = true;
  });
  add("residual, its sum not rounded", [&](Case& c) {
    add_residual(c);
    c.spec["round_sum"] = false;
  });
  add("residual, rounded or not", add_residual);
  add("residual, cast and weight less 1", [&](Case& c) {
    add_residual(c);
    c.spec["round_sum"] = c.spec["cast_before_weight"] = true;
    c.spec["weight_offset"] = 1.0;
    for (double& w : c.in["weight"].values) w = round_to(w - 1, element);
  });
  add("statistics with a last axis of 1", [&](Case& c) {
    c.out["rstd"].shape = {2, 3, 1};
    if (is_centred) c.out["mean"].shape = {2, 3, 1};
  });
  add("forward only, eps = 0, one row", [&](Case& c) {
    c.spec["eps"] = 0.0;
    c.in.erase("dy");
    for (const char* name : {"dx", "dweight", "dbias"}) c.out.erase(name);
    c.in["x"].shape = c.out["y"].shape = {13};
    c.in["x"].values.resize(13);
    c.out["rstd"].shape = {1};
    if (is_centred) c.out["mean"].shape = {1};
  });
  if (is_centred) {
    add("variance in one pass", [](Case& c) { c.contract["variance"] = "one_pass"; });
    add("variance in two passes", [](Case& c) { c.contract["variance"] = "two_pass"; });
  }
  add("gradients of given statistics", [&](Case& c) {
    for (const char* name : {"y", "rstd", "mean"}) c.out.erase(name);
    c.spec.erase("eps");
    test::Random random(98);
    c.in["rstd"] = normal(random, DType::float32, {2, 3});  // those of another x
    for (double& r : c.in["rstd"].values) r = round_to(0.5 + std::abs(r), DType::float32);
    if (is_centred) c.in["mean"] = normal(random, DType::float32, {2, 3});
  });
  add("computed in float64", [](Case& c) { c.contract["compute_dtype"] = "float64"; });
  add("computed in float64, by the key's other name", [](Case& c) { c.contract["accumulate"] = "float64"; });
  return all;
}

std::vector<Feature> rms_norm_features(DType element) {
  return features("rms_norm", element);
}
std::vector<Feature> layer_norm_features(DType element) {
  return features("layer_norm", element);
}

constexpr std::string_view oracle_file = "tests/oracle/norm.cpp";

}  // namespace

const Suite rms_norm_suite = {"rms_norm", oracle_file, rms_norm_features, answers};
const Suite layer_norm_suite = {"layer_norm", oracle_file, layer_norm_features, answers};

}  // namespace attest::coverage
