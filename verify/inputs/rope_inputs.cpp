// Makes the inputs of rope: x, dy, and angles by a formula or by a table.
#include <cmath>

#include "core/invalid_case.hpp"
#include "verify/axes/layout.hpp"
#include "verify/inputs/make_inputs.hpp"

namespace attest {
namespace {

const std::vector<InputExtent> extents = {
    {"B", "1", "batch entries"}, {"H", "2", "heads"}, {"S", "128", "rows"}, {"D", "64", "width of a head"}};

constexpr InputRecipe recipes[] = {
    {"normal", "mean 0, deviation 1, positions from 0: the baseline; pairs, signs, positions"},
    {"uniform", "in [0, 1): no cancellation but where a sine is negative"},
    {"large", "deviation 1000: products in few bits"},
    {"outliers", "three channels 40 times larger, as in trained models: what goes into the wrong partner"},
    {"exact", "integers and a table of quarter turns: y is a permutation of x and -x, bit for bit"},
    {"far", "positions from 131072 on: angles in too few bits, sines without range reduction"},
    {"subnormals", "every other row subnormal: inputs or results flushed to zero"},
    {"long", "8192 rows of one head: indices that wrap, tables that end"},
};

/// Cosine and sine of a number of quarter turns.
double quarter_cos(Index turns) {
  static constexpr double values[] = {1, 0, -1, 0};
  return values[turns % 4];
}

GeneratedCase make(const InputRequest& asked) {
  InputRequest request = asked;
  const std::string& recipe = request.recipe;
  const bool is_exact = recipe == "exact";
  const RequestedExtents n(extents, request,
                           recipe == "long" ? std::map<std::string, std::string>{{"H", "1"}, {"S", "8192"}}
                                            : std::map<std::string, std::string>{});
  const Index b = n["B"], h = n["H"], s = n["S"], d = n["D"];
  const std::string layout = text_of(request, "layout", "bhsd");
  const bool is_merged = layout == "bsm" || layout == "sbm";
  if (layout == "thd") throw InvalidCase("rope: inputs are made for layouts with a batch axis, not for thd");
  if (is_merged) integer_of(request, "heads", h);
  text_of(request, "style", "half");
  const Index rotary = integer_of(request, "rotary_dim", d);
  if (rotary < 2 || rotary > d || rotary % 2 != 0)
    throw InvalidCase("rope: rotary_dim = " + std::to_string(rotary) +
                      "; an even number from 2 to D = " + std::to_string(d) + " is expected");
  if (is_exact) {
    for (const char* key : {"theta", "scaling", "position_start", "angle_dtype"}) {
      if (request.spec.contains(key))
        throw InvalidCase(std::string("recipe exact turns by a table: spec key ") + key + " cannot be given");
    }
  } else {
    number_of(request, "theta", 10000);
    integer_of(request, "position_start", recipe == "far" ? 131072 : 0);
  }

  GeneratedCase c = case_for(request, "rope");
  std::vector<Index> shape = layout == "bhsd"                      ? std::vector<Index>{b, h, s, d}
                             : layout == "bshd" || layout == "bsm" ? std::vector<Index>{b, s, h, d}
                                                                   : std::vector<Index>{s, b, h, d};
  const bool heads_last = layout != "bhsd", batch_first = layout[0] == 'b';
  /// Row n as stored is row `row` of head and batch entry, numbered [B, H, S] whatever the layout.
  const auto logical = [=](Index row) {
    if (!heads_last) return row;
    const Index head = row % h, rest = row / h;
    const Index i = batch_first ? rest % s : rest / b, entry = batch_first ? rest / s : rest % b;
    return (entry * h + head) * s + i;
  };
  const auto tensor = [&](const std::string& name) {
    const RandomStream stream(request.seed, name);
    const int emin = format_of(request.dtype).emin;
    const Index most = Index{1} << std::min(format_of(request.dtype).precision, 11);
    std::vector<Index> stored = shape;
    if (is_merged) {
      stored[2] *= d;
      stored.pop_back();
    }
    const auto fill = [=](Index row, std::span<double> x) {
      const Index at = logical(row);
      stream.normals(at * d, x);
      if (recipe == "uniform") stream.uniforms(at * d, x);
      for (Index k = 0; k < d; ++k) {
        if (recipe == "large") x[k] *= 1000;
        if (recipe == "outliers" && (k == 0 || k == d / 2 || k == d - 1)) x[k] *= 40;
        if (recipe == "subnormals" && at % 2 == 1) x[k] = std::ldexp(x[k], emin - 2);
        if (is_exact) x[k] = static_cast<double>(most / 2 + stream.below(at * d + k, most / 2));
      }
    };
    return generated_tensor(request.dtype, stored, fill, is_merged ? h : 1);
  };
  c.in["x"] = tensor("x");
  if (request.with.contains("dy")) c.in["dy"] = tensor("dy");
  if (is_exact) {
    for (const bool is_cos : {true, false}) {
      c.in[is_cos ? "cos" : "sin"] =
          generated_tensor(DType::float32, {s, rotary / 2}, [=](Index row, std::span<double> out) {
            for (Index k = 0; k < std::ssize(out); ++k) out[k] = quarter_cos(row + k + (is_cos ? 0 : 3));
          });
    }
  }
  return c;
}

}  // namespace

OpInputs rope_inputs() {
  return {extents, {"dy"}, {std::begin(recipes), std::end(recipes)}, make};
}

}  // namespace attest
