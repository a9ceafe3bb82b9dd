// attest_error_curves: errors of emulated attention kernels beside the bounds on them, as precision and
// length change. Writes the data that docs/interactive/error.html plots.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/emulate/cases.hpp"
#include "verify/op.hpp"
#include "verify/text.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;
using Json = nlohmann::ordered_json;

constexpr Index lengths[] = {16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
constexpr Index longest_checked = 128;  // --check computes these again, and believes the others
constexpr DType elements[] = {DType::float32, DType::float16, DType::bfloat16, DType::float8_e4m3fn};
constexpr Distribution inputs[] = {Distribution::normal, Distribution::large, Distribution::spiky,
                                   Distribution::near_uniform, Distribution::cancelling};
constexpr const char* head =
    "// Written by attest_error_curves (tests/emulate/error_curves.cpp).\nwindow.ERRORS = ";
constexpr const char* end = ";\n";

/// How sums of products are formed, in the words of a contract and by the emulated kernel.
struct Sums {
  std::string name;
  Attributes contract;
  Adder adder;
};

/// Those that a kernel for this element type could have.
std::vector<Sums> sums_for(DType element) {
  using enum Adder::Kind;
  std::vector<Sums> all = {
      {"float32", {{"matrix_unit", std::string("none")}}, {sequential}},
      {"float16",
       {{"qk_accumulate", std::string("float16")}, {"pv_accumulate", std::string("float16")}},
       {blocked, 1, 0, DType::float16}}};
  const int bits = format_of(element).bits;
  // As in read_contract: 8-bit products are summed in blocks of 32 and keep 10 bits fewer.
  if (bits <= 16)
    all.push_back({"tensor_core",
                   {{"matrix_unit", std::string("hopper")}},
                   {tensor_core, bits == 8 ? 32 : 16, bits == 8 ? -10 : 2}});
  return all;
}

struct Setting {
  DType element, p_dtype;
  Sums sums;
  Distribution input;

  std::string name() const {
    return std::string(format_of(element).name) + "/" + std::string(format_of(p_dtype).name) + "/" +
           sums.name + "/" + std::string(name_of(input));
  }
};

std::vector<Setting> all_settings() {
  std::vector<Setting> settings;
  for (const DType element : elements) {
    for (const DType p_dtype : elements) {
      for (const Sums& sums : sums_for(element)) {
        for (const Distribution input : inputs) settings.push_back({element, p_dtype, sums, input});
      }
    }
  }
  return settings;
}

/// To three digits; null stands for infinity: there is no bound.
Json json_of(double x) {
  if (!std::isfinite(x)) return nullptr;
  return std::strtod(number_text(x, 3).c_str(), nullptr);
}

/// One point of each curve of an output.
Json point_of(const Expected& x) {
  double error = 0, squares = 0, variances = 0, probable = 0, rigorous = 0, ratio = 0;
  const auto count = static_cast<Index>(x.value.size());
  for (Index n = 0; n < count; ++n) {
    const double off = std::abs(x.dumped->values[n] - x.value[n]);
    error = std::max(error, off);
    squares += off * off;
    variances += x.sigma[n] * x.sigma[n];
    probable = std::max(probable, x.bound(n));
    rigorous = std::max(rigorous, x.rigorous[n]);
    if (off > 0) ratio = std::max(ratio, off / x.bound(n));
  }
  const auto rms = [&](double sum) { return std::sqrt(sum / static_cast<double>(count)); };
  return {{"largest", json_of(error)},        {"spread", json_of(rms(squares))},
          {"sigma", json_of(rms(variances))}, {"probable", json_of(probable)},
          {"rigorous", json_of(rigorous)},    {"ratio", json_of(ratio)}};
}

/// The points of o and lse: eight rows of one head, of width 64 and 16.
Json points_of(const Setting& setting, Index length) {
  Setup setup;
  setup.element = setting.element;
  setup.q_heads = setup.kv_heads = 1;
  setup.queries = 8;
  setup.keys = length;
  setup.width = 64;
  setup.v_width = 16;
  setup.distribution = setting.input;
  Kernel kernel;
  kernel.tile = 64;
  kernel.p_dtype = setting.p_dtype;
  kernel.qk = kernel.pv = setting.sums.adder;
  Case c = dump_of(setup, kernel, false, {"o", "lse"});
  for (const auto& [key, value] : setting.sums.contract) c.contract[key] = value;
  Json points;
  for (const Expected& x : find_op(c).read(c)->expect([](double) {})) points[x.output] = point_of(x);
  return points;
}

/// {"float16/float16/tensor_core/normal": {"o": {"largest": [one of each length], ...}, ...}, ...}
Json curves(Index longest) {
  const std::vector<Setting> settings = all_settings();
  std::vector<Json> found(settings.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t n = 0; n < settings.size(); ++n) {
    for (const Index length : lengths) {
      if (length > longest) continue;
      const Json points = points_of(settings[n], length);
      for (const auto& [output, point] : points.items()) {
        for (const auto& [curve, y] : point.items()) found[n][output][curve].push_back(y);
      }
    }
  }
  Json all;
  for (std::size_t n = 0; n < settings.size(); ++n) all[settings[n].name()] = found[n];
  return all;
}

std::string text_of(const Json& all) {
  std::string text = head + ("{\"lengths\": " + Json(lengths).dump()) + ", \"curves\": {";
  const char* between = "\n";
  for (const auto& [name, found] : all.items()) {
    text += between + Json(name).dump() + ": " + found.dump();
    between = ",\n";
  }
  return text + "\n}}" + end;
}

/// The curves of a file, as far as the lengths go up to `longest`. Throws where it is no such file.
Json curves_of(const std::string& text, Index longest) {
  const std::string_view start = head, stop = end;
  if (!text.starts_with(start) || !text.ends_with(stop)) return {};
  Json all = Json::parse(text.substr(start.size(), text.size() - start.size() - stop.size())).at("curves");
  std::size_t count = 0;
  for (const Index length : lengths) count += length <= longest;
  for (Json& found : all) {
    for (Json& output : found) {
      for (Json& curve : output) curve.erase(curve.begin() + static_cast<Index>(count), curve.end());
    }
  }
  return all;
}

}  // namespace

int main(int count, char** arguments) {
  const bool only_checks = count == 3 && std::string(arguments[1]) == "--check";
  if (count != 2 && !only_checks) {
    std::cerr << "usage: attest_error_curves [--check] FILE\n";
    return 2;
  }
  const std::string path = arguments[count - 1];
  if (!only_checks) {
    std::ofstream file(path, std::ios::binary);
    file << text_of(curves(lengths[std::size(lengths) - 1]));
    return file.flush() ? 0 : 1;
  }
  std::ifstream file(path, std::ios::binary);
  const Json old = curves_of({std::istreambuf_iterator<char>(file), {}}, longest_checked);
  const Json now = curves(longest_checked);
  if (old == now) return 0;
  std::cerr << path << " is out of date; run attest_error_curves " << path << '\n';
  for (const auto& [name, found] : now.items()) {
    if (old.contains(name) && old.at(name) == found) continue;
    std::cerr << "the first curves that differ: " << name << " are now " << found.dump() << '\n';
    break;
  }
  return 1;
}
