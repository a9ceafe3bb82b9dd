// Makes the inputs of operations on rows: softmax, gelu, silu, sigmoid, rms_norm and layer_norm.
#include <algorithm>
#include <cmath>

#include "core/invalid_case.hpp"
#include "verify/inputs/make_inputs.hpp"

namespace attest {
namespace {

/// What rows of x are made from.
struct RowSource {
  Index rows, width;
  DType dtype;
  RandomStream x, choice;

  RowSource(const InputRequest& request, Index r, Index n)
      : rows(r), width(n), dtype(request.dtype), x(request.seed, "x"), choice(request.seed, "choice") {}
  void normals(Index r, std::span<double> row) const { x.normals(r * width, row); }
};

using RowMaker = void (*)(const RowSource&, Index r, std::span<double> row);
struct RowRecipe {
  InputRecipe text;
  RowMaker make;
};

template <int factor>
void normal_times(const RowSource& in, Index r, std::span<double> row) {
  in.normals(r, row);
  for (double& x : row) x *= factor;
}

void outliers(const RowSource& in, Index r, std::span<double> row) {
  in.normals(r, row);
  const std::size_t last = row.size() - 1;
  for (const std::size_t column : {std::size_t{0}, last / 2, last}) row[column] *= 40;
}

void uniform(const RowSource& in, Index r, std::span<double> row) {
  in.x.uniforms(r * in.width, row);
}

void subnormals(const RowSource& in, Index r, std::span<double> row) {
  in.normals(r, row);
  for (std::size_t c = 0; c < row.size(); c += 2) row[c] = std::ldexp(row[c], format_of(in.dtype).emin - 2);
}

/// One of 1, 2, 4, ... equal maxima; all others so far below that they have no weight.
void softmax_exact(const RowSource& in, Index r, std::span<double> row) {
  const double top = static_cast<double>(in.choice.below(2 * r, 17) - 8);
  std::ranges::fill(row, top - 128);
  Index ties = Index{1} << r % 4;
  while (ties > in.width) ties /= 2;
  const Index first = in.choice.below(2 * r + 1, in.width), step = in.width / ties;
  for (Index n = 0; n < ties; ++n) row[(first + n * step) % in.width] = top;
}

/// Half the columns a, half -a, in random order: pairs of columns differ in sign.
void norm_exact(const RowSource& in, Index r, std::span<double> row) {
  if (row.size() % 2 != 0) throw InvalidCase("recipe exact needs an even N");
  const Format& format = format_of(in.dtype);
  const double a = std::ldexp(1.0, std::min(12, format.emax - 3) + static_cast<int>(r % 3));
  for (std::size_t c = 0; c < row.size(); c += 2) {
    const bool is_negative = in.choice.word((r * in.width + static_cast<Index>(c)) / 2) % 2 == 1;
    row[c] = is_negative ? -a : a;
    row[c + 1] = -row[c];
  }
}

constexpr RowRecipe softmax_recipes[] = {
    {{"normal", "mean 0, deviation 1: the baseline"}, normal_times<1>},
    {{"uniform", "in [0, 1): all weights of like size; row sums in few bits"}, uniform},
    {{"large", "deviation 60: exponentials overflow unless the maximum is subtracted"}, normal_times<60>},
    {{"outliers", "three scores 40 times larger, at both ends and in the middle: lost elements"}, outliers},
    {{"near_uniform", "deviation 0.01: a wrong number of elements, sums that stagnate"},
     [](const RowSource& in, Index r, std::span<double> row) {
       in.normals(r, row);
       for (double& x : row) x *= 0.01;
     }},
    {{"ties", "four different scores, repeated: the maximum occurs many times"},
     [](const RowSource& in, Index r, std::span<double> row) {
       for (Index c = 0; c < std::ssize(row); ++c)
         row[c] = in.x.normal(r * 4 + in.choice.below(r * in.width + c, 4));
     }},
    {{"ascending", "sorted: the running maximum moves with every element; rescaling"},
     [](const RowSource& in, Index r, std::span<double> row) {
       in.normals(r, row);
       std::ranges::sort(row);
     }},
    {{"exact", "1, 2, 4 or 8 equal maxima far above the rest: weights are powers of two, bit for bit"},
     softmax_exact},
    {{"offset", "normal plus 200: an exponential without its maximum overflows in float32"},
     [](const RowSource& in, Index r, std::span<double> row) {
       in.normals(r, row);
       for (double& x : row) x += 200;
     }},
    {{"masked", "normal, one score in four is -inf: NaN from inf - inf, weight for absent elements"},
     [](const RowSource& in, Index r, std::span<double> row) {
       in.normals(r, row);
       for (Index c = 1; c < std::ssize(row); ++c)
         if (in.choice.below(r * in.width + c, 4) == 0) row[c] = -std::numeric_limits<double>::infinity();
     }},
    {{"long", "normal, rows of 65536: sums that stagnate, indices that wrap"}, normal_times<1>},
};

constexpr RowRecipe activation_recipes[] = {
    {{"normal", "mean 0, deviation 1: the baseline"}, normal_times<1>},
    {{"uniform", "in [0, 1): the steep part, no cancellation"}, uniform},
    {{"large", "deviation 6: both tails, where the function is 0 or x"}, normal_times<6>},
    {{"subnormals", "every other element subnormal: inputs or results flushed to zero"}, subnormals},
    {{"every_value",
      "every finite value; of types of more than 16 bits, those that end in zeros: tails, overflow"},
     [](const RowSource& in, Index r, std::span<double> row) {
       // Where bits are infinity or NaN stands the value of 1.
       const int absent = std::max(0, format_of(in.dtype).bits - 16);
       for (Index c = 0; c < std::ssize(row); ++c) {
         const double x = decode(static_cast<std::uint64_t>(r * in.width + c) << absent, in.dtype);
         row[c] = std::isfinite(x) ? x : 1;
       }
     }},
};

constexpr RowRecipe norm_recipes[] = {
    {{"normal", "mean 0, deviation 1: the baseline"}, normal_times<1>},
    {{"uniform", "in [0, 1): a mean that is not 0"}, uniform},
    {{"large", "deviation 60: sums of squares in few bits"}, normal_times<60>},
    {{"outliers", "three columns 40 times larger, as in trained models: narrow sums"}, outliers},
    {{"small", "deviation 0.001: eps counts"},
     [](const RowSource& in, Index r, std::span<double> row) {
       in.normals(r, row);
       for (double& x : row) x *= 0.001;
     }},
    {{"cancellation", "mean 30, deviation 1: variance as a difference of large numbers"},
     [](const RowSource& in, Index r, std::span<double> row) {
       in.normals(r, row);
       for (double& x : row) x += 30;
     }},
    {{"exact", "every element a or -a, a power of two: y is the weight or its negative, bit for bit"},
     norm_exact},
    {{"subnormals", "every other element subnormal: inputs flushed to zero"}, subnormals},
    {{"overflow", "deviation 300: squares beyond the largest float16"}, normal_times<300>},
    {{"zero_row", "normal, every other row is 0: a division by 0 that eps has to prevent"},
     [](const RowSource& in, Index r, std::span<double> row) {
       in.normals(r, row);
       if (r % 2 == 1) std::ranges::fill(row, 0.0);
     }},
    {{"long", "normal, rows of 65536: sums that stagnate, indices that wrap"}, normal_times<1>},
};

std::vector<InputRecipe> texts(std::span<const RowRecipe> recipes) {
  std::vector<InputRecipe> all;
  for (const RowRecipe& recipe : recipes) all.push_back(recipe.text);
  return all;
}

RowMaker maker_of(std::span<const RowRecipe> recipes, const std::string& name) {
  return std::ranges::find_if(recipes, [&](const RowRecipe& r) { return r.text.name == name; })->make;
}

const std::vector<InputExtent> row_extents = {{"R", "8", "rows"}, {"N", "128", "length of a row"}};

std::map<std::string, std::string> fallbacks_of(const std::string& recipe) {
  return recipe == "long" ? std::map<std::string, std::string>{{"R", "2"}, {"N", "65536"}}
                          : std::map<std::string, std::string>{};
}

GeneratedTensor rows_of(const RowSource& source, RowMaker make) {
  return generated_tensor(source.dtype, {source.rows, source.width},
                          [=](Index r, std::span<double> row) { make(source, r, row); });
}

GeneratedCase make_softmax(const InputRequest& asked) {
  InputRequest request = asked;
  const RequestedExtents n(row_extents, request, fallbacks_of(request.recipe));
  if (const Index axis = integer_of(request, "axis", -1); axis != -1 && axis != 1)
    throw InvalidCase("softmax: x is [R, N]; axis = " + std::to_string(axis) + " is not its last axis, -1");
  const RowSource source(request, n["R"], n["N"]);
  GeneratedCase c = case_for(request, "softmax");
  c.in["x"] = rows_of(source, maker_of(softmax_recipes, request.recipe));
  if (request.with.contains("dy"))
    c.in["dy"] = normal_tensor(request.seed, "dy", request.dtype, {n["R"], n["N"]});
  if (request.with.contains("mask")) {
    c.in["mask"] = {"bool",
                    std::nullopt,
                    {n["R"], n["N"]},
                    [stream = RandomStream(request.seed, "mask")](Index r, std::span<double> row) {
                      const Index width = std::ssize(row);
                      for (Index j = 0; j < width; ++j) row[j] = j == 0 || stream.below(r * width + j, 4) > 0;
                    }};
  }
  return c;
}

template <int which>
GeneratedCase make_activation(const InputRequest& asked) {
  InputRequest request = asked;
  static constexpr const char* names[] = {"gelu", "silu", "sigmoid"};
  const bool is_exhaustive = request.recipe == "every_value";
  const int bits = std::min(format_of(request.dtype).bits, 16);
  const Index size = Index{1} << (is_exhaustive ? bits : 12), width = std::min<Index>(size, 1024);
  const RequestedExtents n(row_extents, request,
                           {{"R", std::to_string(size / width)}, {"N", std::to_string(width)}});
  const RowSource source(request, n["R"], n["N"]);
  GeneratedCase c = case_for(request, names[which]);
  c.in["x"] = rows_of(source, maker_of(activation_recipes, request.recipe));
  if (request.with.contains("dy"))
    c.in["dy"] = normal_tensor(request.seed, "dy", request.dtype, {n["R"], n["N"]});
  return c;
}

template <bool is_centred>
GeneratedCase make_norm(const InputRequest& asked) {
  InputRequest request = asked;
  const RequestedExtents n(row_extents, request, fallbacks_of(request.recipe));
  number_of(request, "eps", 1e-5);
  const RowSource source(request, n["R"], n["N"]);
  GeneratedCase c = case_for(request, is_centred ? "layer_norm" : "rms_norm");
  c.in["x"] = rows_of(source, maker_of(norm_recipes, request.recipe));
  const bool is_exact = request.recipe == "exact";
  for (const std::string name : {"residual", "dy"}) {
    if (is_exact && name == "residual" && request.with.contains(name))
      throw InvalidCase("recipe exact cannot have a residual: the sum would not be a power of two");
    if (request.with.contains(name))
      c.in[name] = normal_tensor(request.seed, name, request.dtype, {n["R"], n["N"]});
  }
  if (request.with.contains("weight"))
    c.in["weight"] = normal_tensor(request.seed, "weight", request.dtype, {n["N"]}, 1, 0.2);
  if (request.with.contains("bias")) {
    if (is_exact) throw InvalidCase("recipe exact cannot have a bias: y would not be a weight");
    c.in["bias"] = normal_tensor(request.seed, "bias", request.dtype, {n["N"]}, 0, 0.2);
  }
  return c;
}

}  // namespace

OpInputs softmax_inputs() {
  return {row_extents, {"dy", "mask"}, texts(softmax_recipes), make_softmax};
}

OpInputs activation_inputs(std::string_view op) {
  return {{{"R", "4", "rows"}, {"N", "1024", "length of a row"}},
          {"dy"},
          texts(activation_recipes),
          op == "gelu"   ? make_activation<0>
          : op == "silu" ? make_activation<1>
                         : make_activation<2>};
}

OpInputs norm_inputs(bool is_centred) {
  return {row_extents,
          {"weight", "bias", "residual", "dy"},
          texts(norm_recipes),
          is_centred ? make_norm<true> : make_norm<false>};
}

}  // namespace attest
