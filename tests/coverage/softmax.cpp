// Features of softmax.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "tests/coverage/feature.hpp"
#include "tests/coverage/tensors.hpp"
#include "tests/oracle/softmax.hpp"

namespace attest::coverage {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const long double largest_float = std::numeric_limits<float>::max();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// [outer, n, inner] around the axis.
struct Rows {
  Index outer = 1, n = 1, inner = 1;

  explicit Rows(const Case& c) {
    const Shape& shape = c.in.at("x").shape;
    const Index rank = static_cast<Index>(shape.size());
    const Index named = static_cast<Index>(number_of(c, "axis", -1)), axis = named < 0 ? named + rank : named;
    for (Index a = 0; a < rank; ++a) (a < axis ? outer : a == axis ? n : inner) *= shape[a];
  }
  Index at(Index o, Index j, Index i) const { return (o * n + j) * inner + i; }
};

/// Whether each element of x has weight as far as the mask goes.
std::vector<bool> kept(const Case& c) {
  const Shape& shape = c.in.at("x").shape;
  std::vector<bool> all(c.in.at("x").size(), true);
  const Tensor* mask = c.input("mask");
  for (std::size_t at = 0; mask && at < all.size(); ++at) {
    Index rest = static_cast<Index>(at), step = 1, from = 0;
    for (std::size_t n = 0; n < mask->shape.size(); ++n) {
      const Index extent = mask->shape[mask->shape.size() - 1 - n], full = shape[shape.size() - 1 - n];
      if (extent > 1) from += rest % full * step;
      step *= extent;
      rest /= full;
    }
    all[at] = mask->values[from] != 0;
  }
  return all;
}

struct Row {
  std::vector<double> s, slope;  // scores and their derivatives by x
};

Row row_of(const Case& c, const Rows& rows, const std::vector<bool>& is_kept, Index o, Index i) {
  const double clamp = number_of(c, "clamp", 0), scale = number_of(c, "scale", 1);
  Row row;
  for (Index j = 0; j < rows.n; ++j) {
    const double x = c.in.at("x").values[rows.at(o, j, i)];
    const double limited = clamp > 0 ? std::min(std::max(x, -clamp), clamp) : x;
    const bool is_absent = !is_kept[rows.at(o, j, i)] || limited == -infinity;
    row.s.push_back(is_absent ? -infinity : scale * limited);
    row.slope.push_back(is_absent || limited != x ? 0 : scale);
  }
  return row;
}

void answer_row(const Case& c, const Rows& rows, const Row& row, Index o, Index i, Answers& all) {
  const bool subtracts = flag_of(c, "subtract_max", true);
  const View<const double, 1> s{row.s.data(), {rows.n}};
  const oracle::Softmax softmax = oracle::softmax(s);
  const double top = *std::max_element(row.s.begin(), row.s.end());
  const bool is_empty = top == -infinity;
  const double empty = text_of(c, "empty_row", "zero") == "nan" ? nan : 0;
  const long double m = subtracts ? top : 0;
  // Computing in float32, exp or the sum overflows: exp / inf is 0, inf / inf is NaN.
  const bool overflows = !subtracts && softmax.lse > std::log(largest_float);
  long double reach = 0;  // largest finite score
  for (const double x : row.s) reach = std::isfinite(x) ? std::max<long double>(reach, std::abs(x)) : reach;
  // Differences of scores, n exponentials of them, their sum, a quotient or a logarithm.
  const long double relative = oracle_unit * (4 * reach + 2 * static_cast<long double>(rows.n) + 16);
  const auto set = [&](const std::string& name, Index at, long double value, long double error) {
    const auto it = all.find(name);
    if (it == all.end()) return;
    it->second.value[at] = value;
    it->second.error[at] = error;
  };
  const auto set_copies = [&](const std::string& name, long double value, long double error) {
    if (!all.contains(name)) return;
    const Index copies = c.out.at(name).size() / (rows.outer * rows.inner);
    for (Index r = 0; r < copies; ++r) set(name, (o * copies + r) * rows.inner + i, value, error);
  };
  if (overflows) {
    bool exp_overflows = false;
    for (Index j = 0; j < rows.n; ++j) {
      const bool is_infinite = row.s[j] > std::log(largest_float);
      exp_overflows |= is_infinite;
      set("y", rows.at(o, j, i), is_infinite ? nan : 0, 0);
    }
    for (Index j = 0; j < rows.n; ++j) set("dx", rows.at(o, j, i), exp_overflows ? nan : 0, 0);
    set_copies("lse", infinity, 0);
    set_copies("m", 0, 0);
    set_copies("l", infinity, 0);
    return;
  }
  set_copies("lse", softmax.lse, is_empty ? 0 : relative * (1 + std::abs(softmax.lse)));
  set_copies("m", m, 0);
  const long double l = is_empty ? 0 : std::exp(softmax.lse - m);
  set_copies("l", l, is_empty ? 0 : 2 * relative * (1 + std::abs(softmax.lse) + std::abs(m)) * l);
  for (Index j = 0; j < rows.n; ++j) {
    set("y", rows.at(o, j, i), is_empty ? empty : softmax.y[j], relative * softmax.y[j]);
  }
  if (!all.contains("dx")) return;
  std::vector<double> dy;
  long double most = 0;
  for (Index j = 0; j < rows.n; ++j) {
    dy.push_back(c.in.at("dy").values[rows.at(o, j, i)]);
    most = std::max<long double>(most, std::abs(dy.back()));
  }
  const std::vector<long double> ds = oracle::softmax_gradient(s, {dy.data(), {rows.n}});
  for (Index j = 0; j < rows.n; ++j) {
    const long double slope = row.slope[j];
    set("dx", rows.at(o, j, i), is_empty ? empty : slope * ds[j],
        4 * relative * std::abs(slope) * softmax.y[j] * most);
  }
}

Answers answers(const Case& c) {
  Answers all;
  for (const auto& [name, tensor] : c.out) all.emplace(name, Answer(tensor));
  const Rows rows(c);
  const std::vector<bool> is_kept = kept(c);
  for (Index o = 0; o < rows.outer; ++o) {
    for (Index i = 0; i < rows.inner; ++i) answer_row(c, rows, row_of(c, rows, is_kept, o, i), o, i, all);
  }
  return all;
}

std::vector<Feature> features(DType element) {
  std::vector<Feature> all;
  const auto add = [&](const std::string& name, const std::function<void(Case&)>& change) {
    test::Random random(seed_of(name));
    const Shape shape = {3, 5, 9};
    Case& c = all.emplace_back(Feature{name, {}}).c;
    c.op = "softmax";
    c.in["x"] = normal(random, element, shape, 2);
    c.in["dy"] = normal(random, element, shape);
    c.out["y"] = c.out["dx"] = blank(element, shape);
    c.out["lse"] = blank(DType::float32, {3, 5});
    change(c);
  };
  const auto mask = [](const Shape& shape) {
    test::Random random(7);
    return booleans(random, shape);
  };
  const auto mask_row = [](Tensor& tensor, double value) {
    std::fill_n(tensor.values.begin(), tensor.shape.back(), value);
  };
  add("the last axis", [](Case&) {});
  add("the first axis", [](Case& c) {
    c.spec["axis"] = std::int64_t{0};
    c.out["lse"].shape = {5, 9};
  });
  add("a middle axis, counted from the end", [](Case& c) {
    c.spec["axis"] = std::int64_t{-2};
    c.out["lse"].shape = {3, 9};
  });
  add("scale", [](Case& c) { c.spec["scale"] = -0.375; });
  add("scores of -inf", [](Case& c) {
    for (std::size_t n = 0; n < c.in["x"].values.size(); n += 4) c.in["x"].values[n] = -infinity;
  });
  add("mask", [&](Case& c) { c.in["mask"] = mask({3, 5, 9}); });
  add("mask that broadcasts", [&](Case& c) { c.in["mask"] = mask({5, 1}), c.in["mask"].values[0] = 1; });
  add("empty rows, zero", [&](Case& c) {
    c.in["mask"] = mask({3, 5, 9});
    mask_row(c.in["mask"], 0);
  });
  add("empty rows, NaN", [&](Case& c) {
    mask_row(c.in["x"], -infinity);
    c.spec["empty_row"] = "nan";
  });
  add("clamp", [](Case& c) {
    c.spec["clamp"] = 1.5;
    c.in["x"].values[3] = infinity;
    c.in["x"].values[14] = -infinity;
  });
  add("clamp, scale and mask", [&](Case& c) {
    c.spec["clamp"] = 1.5;
    c.spec["scale"] = 0.75;
    c.in["mask"] = mask({3, 1, 9});
  });
  add("row maximum and row sum", [](Case& c) { c.out["m"] = c.out["l"] = c.out["lse"]; });
  add("statistics in equal copies", [](Case& c) {
    for (const char* name : {"lse", "m", "l"}) c.out[name] = blank(DType::float32, {3, 5, 8});
  });
  add("no maximum subtracted", [](Case& c) {
    c.spec["subtract_max"] = false;
    c.out["m"] = c.out["l"] = c.out["lse"];
  });
  add("no maximum subtracted, exp or its sum overflows", [](Case& c) {
    c.spec["subtract_max"] = false;
    c.out["m"] = c.out["l"] = c.out["lse"];
    c.in["x"].values[3] = 100;                         // exp(100) > 2^128
    std::fill_n(c.in["x"].values.begin() + 9, 3, 88);  // 3 exp(88) > 2^128 > exp(88)
  });
  add("forward only, one axis", [](Case& c) {
    c.in.erase("dy");
    c.out.erase("dx");
    c.in["x"].shape = c.out["y"].shape = {135};
    c.out["lse"].shape = {1};
  });
  add("computed in float64", [](Case& c) { c.contract["compute_dtype"] = "float64"; });
  add("computed in float64, by the key's other name", [](Case& c) { c.contract["accumulate"] = "float64"; });
  return all;
}

}  // namespace

const Suite softmax_suite = {"softmax", "tests/oracle/softmax.cpp", features, answers};

}  // namespace attest::coverage
