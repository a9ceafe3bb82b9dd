// Makes the inputs of operations with weight matrices: layer_norm_qkv and multihead_attention.
#include <cmath>

#include "core/invalid_case.hpp"
#include "verify/inputs/make_inputs.hpp"

namespace attest {
namespace {

constexpr InputRecipe recipes[] = {
    {"normal", "x of deviation 1, weights that keep its size: the baseline; order of q, k, v and of heads"},
    {"outliers", "three columns of x 40 times larger, as in trained models: narrow sums"},
    {"uniform", "x and weights in [0, 1), scaled: sums without cancellation, lost biases"},
    {"cancellation", "x near 30: statistics and products as differences of large numbers"},
    {"spiky", "weights of q and k three times larger: few keys carry a row"},
};

/// x of width `width`, as the recipe has it.
GeneratedTensor tokens(const InputRequest& request, const std::string& name, std::vector<Index> shape) {
  const RandomStream stream(request.seed, name);
  return generated_tensor(
      request.dtype, std::move(shape), [stream, recipe = request.recipe](Index r, std::span<double> row) {
        const Index first = r * std::ssize(row);
        if (recipe == "uniform") return stream.uniforms(first, row);
        stream.normals(first, row);
        if (recipe == "cancellation")
          for (double& x : row) x += 30;
        if (recipe == "outliers")
          for (const std::size_t c : {std::size_t{0}, (row.size() - 1) / 2, row.size() - 1}) row[c] *= 40;
      });
}

/// Rows whose products keep the size of x. The first `sharp_rows` are larger if the recipe is spiky.
GeneratedTensor weights(const InputRequest& request, const std::string& name, Index rows, Index columns,
                        Index sharp_rows) {
  const RandomStream stream(request.seed, name);
  const double size = 1 / std::sqrt(static_cast<double>(columns));
  const bool is_uniform = request.recipe == "uniform", is_spiky = request.recipe == "spiky";
  return generated_tensor(request.dtype, {rows, columns}, [=](Index r, std::span<double> row) {
    if (is_uniform) {
      stream.uniforms(r * columns, row);
    } else {
      stream.normals(r * columns, row);
    }
    for (double& x : row) x *= size * (is_spiky && r < sharp_rows ? 3 : 1);
  });
}

void check_heads(Index m, Index heads) {
  if (heads < 1 || m % heads != 0)
    throw InvalidCase("heads = " + std::to_string(heads) + " must divide M = " + std::to_string(m));
}

const std::vector<InputExtent> qkv_extents = {
    {"B", "2", "batch entries"}, {"S", "20", "rows"}, {"M", "64", "width of a token"}};

GeneratedCase make_qkv(const InputRequest& asked) {
  InputRequest request = asked;
  const RequestedExtents n(qkv_extents, request);
  const Index m = n["M"];
  number_of(request, "eps", 1e-5);
  check_heads(m, integer_of(request, "heads", m % 64 == 0 && m > 64 ? m / 64 : 1));
  GeneratedCase c = case_for(request, "layer_norm_qkv");
  c.in["x"] = tokens(request, "x", {n["B"], n["S"], m});
  c.in["qkv_weight"] = weights(request, "qkv_weight", 3 * m, m, 2 * m);
  if (request.with.contains("weight"))
    c.in["weight"] = normal_tensor(request.seed, "weight", request.dtype, {m}, 1, 0.2);
  if (request.with.contains("bias"))
    c.in["bias"] = normal_tensor(request.seed, "bias", request.dtype, {m}, 0, 0.2);
  if (request.with.contains("qkv_bias"))
    c.in["qkv_bias"] = normal_tensor(request.seed, "qkv_bias", request.dtype, {3 * m}, 0, 0.5);
  return c;
}

const std::vector<InputExtent> multihead_extents = {{"B", "2", "batch entries"},
                                                    {"Sq", "20", "queries"},
                                                    {"Sk", "Sq", "keys; unlike Sq: cross-attention"},
                                                    {"M", "64", "width of a token"}};

GeneratedCase make_multihead(const InputRequest& asked) {
  InputRequest request = asked;
  const RequestedExtents n(multihead_extents, request);
  const Index m = n["M"];
  check_heads(m, integer_of(request, "heads", m % 4 == 0 ? 4 : 1));
  text_of(request, "causal", "none");
  const bool batch_first = text_of(request, "layout", "lbm") == "blm";
  const auto shape = [&](Index length) {
    return batch_first ? std::vector<Index>{n["B"], length, m} : std::vector<Index>{length, n["B"], m};
  };
  GeneratedCase c = case_for(request, "multihead_attention");
  if (n["Sq"] == n["Sk"]) {
    c.in["x"] = tokens(request, "x", shape(n["Sq"]));
  } else {
    c.in["query"] = tokens(request, "query", shape(n["Sq"]));
    c.in["key"] = tokens(request, "key", shape(n["Sk"]));
    c.in["value"] = tokens(request, "value", shape(n["Sk"]));
  }
  c.in["in_proj_weight"] = weights(request, "in_proj_weight", 3 * m, m, 2 * m);
  c.in["out_proj_weight"] = weights(request, "out_proj_weight", m, m, 0);
  if (request.with.contains("in_proj_bias"))
    c.in["in_proj_bias"] = normal_tensor(request.seed, "in_proj_bias", request.dtype, {3 * m}, 0, 0.5);
  if (request.with.contains("out_proj_bias"))
    c.in["out_proj_bias"] = normal_tensor(request.seed, "out_proj_bias", request.dtype, {m}, 0, 0.5);
  return c;
}

}  // namespace

OpInputs layer_norm_qkv_inputs() {
  return {qkv_extents,
          {"weight", "bias", "qkv_bias"},
          {std::begin(recipes), std::end(recipes) - 1},  // spiky is about scores
          make_qkv};
}

OpInputs multihead_attention_inputs() {
  return {multihead_extents,
          {"in_proj_bias", "out_proj_bias"},
          {std::begin(recipes), std::end(recipes)},
          make_multihead};
}

}  // namespace attest
