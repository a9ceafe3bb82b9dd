// The record of `softmax`: reading a case, its exact values and bounds.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/invalid_case.hpp"
#include "verify/axes/extents.hpp"
#include "verify/bounds/softmax.hpp"
#include "verify/contract/keys.hpp"
#include "verify/inputs/make_inputs.hpp"
#include "verify/keys.hpp"
#include "verify/ops/ops.hpp"
#include "verify/ops/softmax/problem.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

bool holds_all_of(DType wide, DType narrow) {
  const Format &w = format_of(wide), &n = format_of(narrow);
  return w.precision >= n.precision && w.emax >= n.emax && w.emin <= n.emin;
}

}  // namespace

SoftmaxProblem::SoftmaxProblem(const Case& c)
    : Problem(c), case_(c), compute_(read_compute_dtype(c, contract_keys_, *c.in.at("x").dtype)) {
  if (!holds_all_of(compute_, *given().dtype)) {
    throw InvalidCase(c.object("contract") + " attribute compute_dtype is " +
                      std::string(format_of(compute_).name) + ", which does not hold all values of in/x (" +
                      given().type_name + "); a type that does is expected");
  }
  read_shapes();
  read_spec();
  check_values();
}

const Tensor& SoftmaxProblem::given() const {
  return case_.in.at("x");
}

void SoftmaxProblem::read_spec() {
  KeyReader keys(case_, "spec", case_.spec);
  keys.integer("axis", -1);  // read_shapes() has used it
  spec_.scale = keys.number("scale", 1);
  spec_.subtract_max = keys.boolean("subtract_max", true);
  spec_.clamp = keys.number("clamp", 0);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  spec_.empty_row = keys.choice<double>("empty_row", {{"zero", 0.0}, {"nan", nan}}, 0.0);
  keys.finish();
  const double clamp = round_to(spec_.clamp, compute_);  // the number that the kernel compares with
  const bool is_off = spec_.clamp == 0, is_usable = clamp > 0 && clamp <= format_of(compute_).max;
  if (!is_off && !is_usable) {
    throw InvalidCase(case_.object("spec") + " attribute clamp is " + exact_text(spec_.clamp) +
                      "; 0 (off), or a positive number that " + std::string(format_of(compute_).name) +
                      " can hold is expected");
  }
  spec_.clamp = clamp;
}

void SoftmaxProblem::read_shapes() {
  const std::vector<Index>& shape = given().shape;
  const Index rank = static_cast<Index>(shape.size());
  if (rank == 0) throw InvalidCase(case_.object("in/x") + " is a scalar; at least one axis is expected");
  KeyReader keys(case_, "spec", case_.spec);
  const Index named = keys.integer("axis", -1), axis = named < 0 ? named + rank : named;
  if (axis < 0 || axis >= rank) {
    throw InvalidCase(case_.object("spec") + " attribute axis is " + std::to_string(named) + "; " +
                      std::to_string(-rank) + " to " + std::to_string(rank - 1) +
                      " is expected, as in/x has shape " + shape_text(shape));
  }
  n_ = shape[axis];
  if (n_ == 0) {
    throw InvalidCase(case_.object("in/x") + " has shape " + shape_text(shape) + " and nothing along axis " +
                      std::to_string(axis) + "; at least one element is expected");
  }
  for (Index a = 0; a < axis; ++a) outer_ *= shape[a];
  for (Index a = axis + 1; a < rank; ++a) inner_ *= shape[a];

  const auto like_in_x = [&](const std::string& path, const Tensor* tensor) {
    if (!tensor || tensor->shape == shape) return;
    throw InvalidCase(case_.object(path) + " has shape " + shape_text(tensor->shape) + ", in/x has " +
                      shape_text(shape) + "; they must be equal");
  };
  like_in_x("in/dy", case_.input("dy"));
  like_in_x("out/y", case_.output("y"));
  like_in_x("out/dx", case_.output("dx"));
  if (case_.output("dx") && !case_.input("dy"))
    throw InvalidCase(case_.object("out/dx") + " is given, but in/dy is missing");

  std::vector<Index> reduced = shape;
  reduced.erase(reduced.begin() + axis);
  for (const std::string name : {"lse", "m", "l"}) {
    const Tensor* tensor = case_.output(name);
    if (!tensor || tensor->shape == reduced) continue;
    std::vector<Index> copies = shape;
    if (static_cast<Index>(tensor->shape.size()) == rank) copies[axis] = tensor->shape[axis];
    if (tensor->shape == copies) continue;
    throw InvalidCase(case_.object("out/" + name) + " has shape " + shape_text(tensor->shape) + "; " +
                      shape_text(reduced) + ", or equal copies along axis " + std::to_string(axis) +
                      ", is expected");
  }

  const Tensor* mask = case_.input("mask");
  if (!mask) return;
  const Index mask_rank = static_cast<Index>(mask->shape.size());
  std::vector<Index> stride(shape.size(), 0);
  bool fits = mask_rank <= rank;
  Index step = 1;
  for (Index a = mask_rank; fits && a-- > 0;) {
    const Index of_x = a + rank - mask_rank;
    fits = mask->shape[a] == 1 || mask->shape[a] == shape[of_x];
    stride[of_x] = mask->shape[a] == 1 ? 0 : step;
    step *= mask->shape[a];
  }
  if (!fits) {
    throw InvalidCase(case_.object("in/mask") + " has shape " + shape_text(mask->shape) +
                      ", which does not broadcast to that of in/x, " + shape_text(shape));
  }
  mask_.resize(given().size());
  for (Index at = 0; at < given().size(); ++at) {
    Index rest = at, offset = 0;
    for (Index a = rank; a-- > 0; rest /= shape[a]) offset += rest % shape[a] * stride[a];
    mask_[at] = mask->values[offset];
  }
}

View<const double, 3> SoftmaxProblem::mask() const {
  return mask_.empty() ? View<const double, 3>{} : like_x(mask_.data());
}

void SoftmaxProblem::check_values() const {
  const auto check = [&](const std::string& name, const std::string& expected, auto is_good) {
    const Tensor* tensor = case_.input(name);
    for (Index at = 0; tensor && at < tensor->size(); ++at) {
      if (is_good(tensor->values[at])) continue;
      throw InvalidCase(case_.object("in/" + name) + " holds " + exact_text(tensor->values[at]) + " at " +
                        index_text(*tensor, at) + "; " + expected + " expected");
    }
  };
  if (spec_.clamp > 0) {
    check("x", "numbers and infinities, which the clamp limits, are",
          [](double x) { return !std::isnan(x); });
  } else {
    check("x", "finite values or -inf are", [](double x) { return std::isfinite(x) || x == -infinity; });
  }
  check("mask", "0 or 1 is", [](double x) { return x == 0 || x == 1; });
  check("dy", "finite values are", [](double x) { return std::isfinite(x); });
  const double largest = format_of(compute_).max;
  check("x", "a number that times the scale stays below " + exact_text(largest) + " is", [&](double x) {
    const double limited = spec_.clamp > 0 ? std::clamp(x, -spec_.clamp, spec_.clamp) : x;
    return limited == -infinity || std::abs(spec_.scale * limited) <= largest;
  });
}

std::string SoftmaxProblem::contract() const {
  return compute_dtype_text(compute_, contract_keys_);
}

// Whether a kernel could do without the subtraction or the clamp.
std::vector<std::string> SoftmaxProblem::remarks() const {
  Index maximum_matters = 0, clamp_matters = 0;
  const View<const double, 3> x = like_x(given().values.data()), kept = mask();
  for (Index o = 0; n_ > 0 && o < outer_; ++o) {
    for (Index i = 0; i < inner_; ++i) {
      const auto row_of = [&](View<const double, 3> v) {
        return v ? View<const double, 1>{&v(o, 0, i), {n_}, {v.stride(1)}} : View<const double, 1>{};
      };
      const ref::Omissible row = ref::omissible(spec_, row_of(x), row_of(kept), compute_);
      maximum_matters += !row.maximum;
      clamp_matters += !row.clamp;
    }
  }
  const auto matters = [&](Index count) {
    return count == 0 ? std::string("changes no weight")
                      : "matters in " + std::to_string(count) + " of " + std::to_string(rows()) + " rows";
  };
  std::vector<std::string> all = {
      (spec_.subtract_max ? "subtracting the maximum " : "not subtracting the maximum ") +
      matters(maximum_matters)};
  if (spec_.clamp > 0) all.push_back("the clamp " + matters(clamp_matters));
  return all;
}

std::vector<Expected> SoftmaxProblem::expect(const ProgressFunction& progress) {
  std::vector<Expected> all;
  for (const Port& port : softmax_op().outputs) {
    if (const Tensor* tensor = case_.output(std::string(port.name)))
      all.emplace_back(std::string(port.name), *tensor);
  }
  bounds::SoftmaxInputs in{like_x(given().values.data()), mask(), {}};
  if (const Tensor* dy = case_.input("dy")) in.dy = like_x(dy->values.data());
  bounds::SoftmaxOutputs out{};
  // Without y in the dump, a kernel may have kept it in the type of its gradient.
  bounds::SoftmaxTypes types{compute_, compute_, compute_};
  for (Expected& e : all) {
    double* data = e.value.data();
    const double* device = e.dumped->values.data();
    if (e.output == "y") out.y = {e, like_x(data)}, out.device_y = like_x(device), types.y = e.dtype;
    if (e.output == "dx") out.dx = {e, like_x(data)}, out.device_dx = like_x(device);
    if (e.output == "lse")
      out.lse = {e, like_rows(data, *e.dumped)}, out.device_lse = like_rows(device, *e.dumped);
    if (e.output == "l") out.l = {e, like_rows(data, *e.dumped)}, out.device_l = like_rows(device, *e.dumped);
    if (e.output == "m") out.m = {e, like_rows(data, *e.dumped)};
  }
  if (out.dx) {
    types.dy = *case_.input("dy")->dtype;
    if (!out.y) types.y = *case_.output("dx")->dtype;
  }
  bounds::softmax(spec_, in, types, out);
  progress(1);
  return all;
}

Op softmax_op() {
  using enum PortType;
  return {
      "softmax",
      "Exponentials of a row, divided by their sum; log-sum-exp, row maximum and row sum; gradient.",
      {
          {"x", "... N", floating, true, "scores; -inf has no weight"},
          {"mask", "~ ... N", boolean, false, "true = has weight"},
          {"dy", "... N", floating, false, "gradient of y: asks for dx"},
      },
      {
          {"y", "... N", floating, false, "weights"},
          {"lse", "...", floating, false,
           "natural log of the row sum of exp(score); like m and l, shaped like x without the axis, or with "
           "copies along it"},
          {"m", "...", floating, false, "row maximum of the scores, 0 where it is not subtracted"},
          {"l", "...", floating, false, "row sum of exp(score - m)"},
          {"dx", "... N", floating, false, "gradient of x"},
      },
      {
          {"axis", "integer", "-1", "along which the weights add up to 1"},
          {"scale", "number", "1", "factor of x, after the clamp"},
          {"subtract_max", "true, false", "true",
           "false: exp overflows and underflows where its format does"},
          {"clamp", "number", "0", "x is limited to [-clamp, clamp] first, before the mask; 0 = off"},
          {"empty_row", "zero, nan", "zero", "y and dx of a row in which nothing has weight"},
      },
      compute_contract_keys(),
      [](const Case& c) -> std::unique_ptr<Problem> { return std::make_unique<SoftmaxProblem>(c); },
      softmax_inputs(),
  };
}

}  // namespace attest
