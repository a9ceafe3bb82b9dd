// Tensors of cases in memory, and where the elements of a layout are.
#include "tests/coverage/tensors.hpp"

namespace attest::coverage {
namespace {

const Attribute* attribute(const Case& c, const std::string& key) {
  const auto it = c.spec.find(key);
  return it == c.spec.end() ? nullptr : &it->second;
}

}  // namespace

std::uint64_t seed_of(const std::string& name) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

Tensor blank(DType dtype, Shape shape) {
  return {std::string(format_of(dtype).name), dtype, std::move(shape), {}};
}

Tensor normal(test::Random& random, DType dtype, Shape shape, double size, double offset) {
  Tensor t = blank(dtype, std::move(shape));
  for (Index n = 0; n < t.size(); ++n) {
    double sum = 0;  // of 12 uniform numbers in [-1, 1): variance 4
    for (int k = 0; k < 12; ++k) sum += random.symmetric();
    t.values.push_back(round_to(offset + size * sum / 2, dtype));
  }
  return t;
}

Tensor booleans(test::Random& random, Shape shape) {
  Tensor t{"bool", std::nullopt, std::move(shape), {}};
  for (Index n = 0; n < t.size(); ++n) t.values.push_back(random.one_in(4) ? 0 : 1);
  return t;
}

Tensor integers(Shape shape, std::initializer_list<double> values) {
  return {"int64", std::nullopt, std::move(shape), values};
}

std::string text_of(const Case& c, const std::string& key, const std::string& fallback) {
  const Attribute* a = attribute(c, key);
  return a ? std::get<std::string>(*a) : fallback;
}

double number_of(const Case& c, const std::string& key, double fallback) {
  const Attribute* a = attribute(c, key);
  if (!a) return fallback;
  const auto* integer = std::get_if<std::int64_t>(a);
  return integer ? static_cast<double>(*integer) : std::get<double>(*a);
}

bool flag_of(const Case& c, const std::string& key, bool fallback) {
  const Attribute* a = attribute(c, key);
  return a ? std::get<bool>(*a) : fallback;
}

Place::Place(const std::string& layout, Index b, Index h, Index s, Index d) {
  const bool merges = layout.back() == 'm';
  const std::string order = layout == "thd" ? "sh" : merges ? layout.substr(0, 2) + "h" : layout.substr(0, 3);
  Index step = d;
  shape_ = {d};
  for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
    const Index extent = *axis == 'b' ? b : *axis == 'h' ? h : s;
    (*axis == 'b' ? stride_b_ : *axis == 'h' ? stride_h_ : stride_s_) = step;
    step *= extent;
    shape_.insert(shape_.begin(), extent);
  }
  if (!merges) return;
  shape_.pop_back();
  shape_.back() = h * d;
}

Broadcast::Broadcast(const Shape& shape) {
  Index step = 1;
  for (std::size_t n = 0; n < shape.size(); ++n) {
    const Index extent = shape[shape.size() - 1 - n];
    stride_[3 - n] = extent == 1 ? 0 : step;
    step *= extent;
  }
}

}  // namespace attest::coverage
