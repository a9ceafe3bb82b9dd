// Puts cases together.
#include "data/golden/builder.hpp"

#include <algorithm>

namespace attest::golden {
namespace {

Attributes float64_contract(const std::string& op) {
  std::vector<std::string> keys = {"compute_dtype"};
  if (op == "attention") keys = {"p_dtype", "softmax_dtype", "qk_accumulate", "pv_accumulate"};
  if (op == "layer_norm_qkv") keys = {"compute_dtype", "intermediate_dtype", "accumulate"};
  if (op == "multihead_attention") {
    keys = {"intermediate_dtype", "accumulate", "p_dtype", "softmax_dtype", "qk_accumulate", "pv_accumulate"};
  }
  Attributes contract;
  for (const std::string& key : keys) contract[key] = std::string("float64");
  return contract;
}

Index count(const std::vector<Index>& shape) {
  Index n = 1;
  for (const Index extent : shape) n *= extent;
  return n;
}

}  // namespace

std::uint64_t random_bits(std::uint64_t seed, std::uint64_t counter) {
  std::uint64_t z = seed + (counter + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

Builder::Builder(std::string name, std::string op, DType element, std::uint64_t seed, std::string purpose)
    : element_(element), seed_(seed) {
  case_.dump.name = std::move(name);
  case_.dump.op = std::move(op);
  case_.dump.contract = float64_contract(case_.dump.op);
  case_.dump.about["generator"] = std::string("attest_goldens");
  case_.dump.about["seed"] = static_cast<std::int64_t>(seed);
  case_.dump.about["purpose"] = std::move(purpose);
}

Builder& Builder::spec(const std::string& key, Attribute value) {
  case_.dump.spec[key] = std::move(value);
  return *this;
}

Builder& Builder::contract(const std::string& key, Attribute value) {
  case_.dump.contract[key] = std::move(value);
  return *this;
}

Builder& Builder::step(Index step) {
  case_.step = step;
  return *this;
}

std::uint64_t Builder::stream(const std::string& name) const {
  std::uint64_t state = seed_;
  for (const char letter : case_.dump.name + "/" + name) {
    state = random_bits(state, static_cast<unsigned char>(letter));
  }
  return state;
}

void Builder::add(const std::string& name, std::vector<Index> shape, const std::function<double(Index)>& at) {
  std::vector<double> all(count(shape));
  for (std::size_t n = 0; n < all.size(); ++n) all[n] = round_to(at(static_cast<Index>(n)), element_);
  case_.dump.in[name] = {std::string(format_of(element_).name), element_, std::move(shape), std::move(all)};
}

// Four 16-bit numbers added up: close to normal, from whole numbers and one product, hence the same
// everywhere.
Builder& Builder::normal(const std::string& name, std::vector<Index> shape, double deviation, double mean) {
  const std::uint64_t key = stream(name);
  add(name, std::move(shape), [&](Index n) {
    const std::uint64_t bits = random_bits(key, static_cast<std::uint64_t>(n));
    std::int64_t sum = -2 * 65535;
    for (int part = 0; part < 4; ++part) sum += static_cast<std::int64_t>(bits >> (16 * part) & 0xffff);
    constexpr double unit = 0x1.bb67ae8584caap-16;  // sqrt(3) / 2^16: each number has variance 2^32 / 12
    const double scaled = static_cast<double>(sum) * (unit * deviation);
    return scaled + mean;
  });
  return *this;
}

Builder& Builder::whole(const std::string& name, std::vector<Index> shape, int least, int most, double unit) {
  const std::uint64_t key = stream(name), range = static_cast<std::uint64_t>(most - least + 1);
  add(name, std::move(shape), [&](Index n) {
    const std::uint64_t bits = random_bits(key, static_cast<std::uint64_t>(n)) >> 32;
    return (least + static_cast<int>(bits % range)) * unit;
  });
  return *this;
}

Builder& Builder::values(const std::string& name, std::vector<Index> shape,
                         const std::function<double(Index)>& at) {
  add(name, std::move(shape), at);
  return *this;
}

Builder& Builder::integers(const std::string& name, std::vector<Index> shape, std::vector<double> all) {
  case_.dump.in[name] = {"int64", {}, std::move(shape), std::move(all)};
  return *this;
}

Builder& Builder::mask(const std::string& name, std::vector<Index> shape, double share) {
  const std::uint64_t key = stream(name);
  std::vector<double> all(count(shape));
  for (std::size_t n = 0; n < all.size(); ++n) {
    all[n] = static_cast<double>(random_bits(key, n) >> 11) * 0x1p-53 < share ? 1 : 0;
  }
  case_.dump.in[name] = {"bool", {}, std::move(shape), std::move(all)};
  return *this;
}

Builder& Builder::same(const std::string& name, const GoldenCase& other) {
  case_.dump.in[name] = other.dump.in.at(name);
  return *this;
}

Builder& Builder::change(const std::string& name, const std::function<void(std::vector<double>&)>& edit) {
  Tensor& tensor = case_.dump.in.at(name);
  edit(tensor.values);
  for (double& value : tensor.values) value = tensor.dtype ? round_to(value, *tensor.dtype) : value;
  return *this;
}

Builder& Builder::outputs(const std::vector<std::string>& names) {
  const DType wide = element_ == DType::float64 ? DType::float64 : DType::float32;
  for (const std::string& name : names) {
    const bool is_statistic =
        std::ranges::count(
            std::vector<std::string>{"lse", "m", "l", "mean", "rstd", "dweight", "dbias", "dsink"}, name) > 0;
    output(name, is_statistic ? wide : element_);
  }
  return *this;
}

Builder& Builder::saved() {
  case_.unwritten = {"o", "lse"};
  return outputs({"o", "lse"});
}

Builder& Builder::only_outputs(const std::vector<std::string>& names) {
  case_.dump.out.clear();
  return outputs(names);
}

Builder& Builder::output(const std::string& name, DType dtype) {
  case_.dump.out[name] = {std::string(format_of(dtype).name), dtype, {}, {}};
  return *this;
}

}  // namespace attest::golden
