// Inputs that are computed row by row: rounding them, holding them in memory, and the extents of a request.
#include "verify/inputs/generated.hpp"

#include <charconv>
#include <cmath>

#include "core/invalid_case.hpp"
#include "verify/text.hpp"

namespace attest {

void GeneratedTensor::stored_row(Index n, std::span<double> row) const {
  fill(n, row);
  if (!dtype) return;
  for (double& x : row) {
    const double exact = x;
    x = round_to(exact, *dtype);
    if (std::isfinite(exact) && !std::isfinite(x)) {
      throw InvalidCase("the recipe needs " + number_text(exact, 3) + ", which is beyond the largest " +
                        type_name + ", " + number_text(format_of(*dtype).max, 3) +
                        "; another --dtype is needed");
    }
  }
}

Case realised(const GeneratedCase& g) {
  Case c;
  c.file = "generated";
  c.name = g.name;
  c.op = g.op;
  c.spec = g.spec;
  c.contract = g.contract;
  c.about = g.about;
  for (const auto& [name, from] : g.in) {
    Tensor& to = c.in[name] = Tensor{from.type_name, from.dtype, from.shape, {}};
    to.values.resize(to.size());
    const Index width = from.width();
    for (Index n = 0; n < from.rows(); ++n)
      from.stored_row(n, std::span(to.values).subspan(n * width, width));
  }
  return c;
}

RequestedExtents::RequestedExtents(const std::vector<InputExtent>& extents, const InputRequest& request,
                                   const std::map<std::string, std::string>& overrides) {
  for (const InputExtent& extent : extents) {
    const std::string symbol(extent.symbol);
    if (const auto given = request.shape.find(symbol); given != request.shape.end()) {
      value_[symbol] = given->second;
      continue;
    }
    const auto special = overrides.find(symbol);
    const std::string fallback = special == overrides.end() ? std::string(extent.fallback) : special->second;
    Index number = 0;
    const auto [end, error] = std::from_chars(fallback.data(), fallback.data() + fallback.size(), number);
    value_[symbol] = error == std::errc() ? number : value_.at(fallback);  // symbols stand before their users
  }
}

GeneratedTensor generated_tensor(DType dtype, std::vector<Index> shape,
                                 std::function<void(Index, std::span<double>)> fill) {
  return {std::string(format_of(dtype).name), dtype, std::move(shape), std::move(fill)};
}

GeneratedTensor generated_integers(std::vector<Index> values) {
  const Index count = std::ssize(values);
  return {"int32", std::nullopt, {count}, [values = std::move(values)](Index, std::span<double> row) {
            std::copy(values.begin(), values.end(), row.begin());
          }};
}

GeneratedTensor normal_tensor(std::uint64_t seed, const std::string& name, DType dtype,
                              std::vector<Index> shape, double mean, double deviation) {
  const RandomStream stream(seed, name);
  return generated_tensor(dtype, std::move(shape), [=](Index n, std::span<double> row) {
    stream.normals(n * std::ssize(row), row);
    for (double& x : row) x = mean + deviation * x;
  });
}

}  // namespace attest
