// The loop that raises the precision until every rounding is decided, and what the operations share.
#include "data/golden/results.hpp"

#include <cmath>
#include <stdexcept>

namespace attest::golden {
namespace {

constexpr long first_precision = 128, largest_precision = 8192;

void evaluate(const Case& c, Results& results) {
  const std::map<std::string, void (*)(const Case&, Results&)> ops = {
      {"attention", attention}, {"softmax", softmax},
      {"gelu", activation},     {"silu", activation},
      {"sigmoid", activation},  {"rms_norm", norm},
      {"layer_norm", norm},     {"layer_norm_qkv", layer_norm_qkv},
      {"rope", rope},           {"multihead_attention", multihead_attention}};
  ops.at(c.op)(c, results);
}

}  // namespace

Output::Output(std::vector<Index> extents, std::atomic<bool>& undecided)
    : shape(std::move(extents)), undecided_(&undecided) {
  std::size_t count = 1;
  for (const Index extent : shape) count *= static_cast<std::size_t>(extent);
  for (std::vector<double>& values : nearest) values.resize(count);
}

void Output::set(Index at, const Interval& x) {
  for (std::size_t f = 0; f < formats; ++f) {
    const std::optional<double> value = golden::nearest(x, static_cast<DType>(f));
    if (!value) *undecided_ = true;
    nearest[f][at] = value.value_or(0);
  }
}

void Output::set(Index at, double x) {
  for (std::size_t f = 0; f < formats; ++f) nearest[f][at] = round_to(x, static_cast<DType>(f));
}

Output* Results::output(const std::string& name, std::vector<Index> shape) {
  if (!wanted_.contains(name)) return nullptr;
  return &outputs_.try_emplace(name, std::move(shape), undecided_).first->second;
}

const std::map<std::string, Output>& Results::all() const {
  for (const auto& [name, tensor] : wanted_) {
    if (!outputs_.contains(name)) throw std::logic_error("no formula for out/" + name);
  }
  return outputs_;
}

double Results::rounded(const Interval& x, DType dtype) {
  const std::optional<double> value = golden::nearest(x, dtype);
  if (!value) mark_undecided();
  return value.value_or(0);
}

Goldens::Goldens(const Case& c) {
  for (precision_ = first_precision; precision_ <= largest_precision; precision_ *= 2) {
    set_precision(precision_);
    Results results(c.out);
    evaluate(c, results);
    if (!results.are_decided()) continue;
    outputs_ = results.all();
    return;
  }
  throw std::runtime_error(c.object("") + ": a rounding is undecided with " +
                           std::to_string(largest_precision) + " bits");
}

double number(const Attributes& keys, const std::string& key, double fallback) {
  const auto it = keys.find(key);
  if (it == keys.end()) return fallback;
  if (const auto* integer = std::get_if<std::int64_t>(&it->second)) return static_cast<double>(*integer);
  return std::get<double>(it->second);
}

std::string text(const Attributes& keys, const std::string& key, const std::string& fallback) {
  const auto it = keys.find(key);
  return it == keys.end() ? fallback : std::get<std::string>(it->second);
}

bool boolean(const Attributes& keys, const std::string& key) {
  const auto it = keys.find(key);
  return it != keys.end() && std::get<bool>(it->second);
}

Interval dot(const double* x, const double* y, Index count) {
  Interval sum;
  for (Index n = 0; n < count; ++n) sum.add_product(x[n], y[n]);
  return sum;
}

}  // namespace attest::golden
