// Contracts by name: every row of the table is read as it says, and never overrides what a case sets.
#include <algorithm>
#include <cmath>
#include <string>

#include "core/invalid_case.hpp"
#include "tests/catch.hpp"
#include "tests/emulate/cases.hpp"
#include "tests/emulate/judged.hpp"
#include "verify/bounds/arithmetic.hpp"
#include "verify/contract/keys.hpp"
#include "verify/contract/presets.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

Case attention_inputs(DType element) {
  Setup setup;
  setup.element = element;
  setup.queries = setup.keys = 5;
  Case c = dump_of(setup, Kernel{}, false, {"o"});
  c.contract.clear();
  return c;
}

/// GELU of zeros.
Case gelu() {
  Case c;
  c.file = "gelu.h5";
  c.name = "zeros";
  c.op = "gelu";
  c.in["x"] = c.out["y"] = Tensor{"float32", DType::float32, {3}, {0, 0, 0}};
  return c;
}

Attributes settled(const Case& c) {
  return find_op(c).read(c)->contract_keys().settled();
}
std::string contract_of(const Case& c) {
  return find_op(c).read(c)->contract();
}
std::string error_of(const Case& c) {
  try {
    find_op(c).read(c);
  } catch (const InvalidCase& error) {
    return error.what();
  }
  return "";
}

bool ends_with(const std::string& text, const std::string& end) {
  INFO(text);
  return text.ends_with(end);
}

}  // namespace

TEST_CASE("every preset is read as its row says") {
  for (const ContractPreset& preset : contract_presets()) {
    INFO(preset.name);
    CHECK_FALSE(preset.source.empty());
    for (const DType element : {DType::float16, DType::float32}) {
      Case c = attention_inputs(element);
      c.contract["preset"] = std::string(preset.name);
      const Attributes found = settled(c);
      for (const auto& [key, value] : preset.fields) {
        const auto it = found.find(std::string(key));
        if (it != found.end()) CHECK(it->second == value);
      }
      CHECK(ends_with(contract_of(c), " (preset " + std::string(preset.name) + ")"));
    }
  }
}

TEST_CASE("every field of a preset is a key of an operation, and its value one of the key's") {
  for (const ContractPreset& preset : contract_presets()) {
    for (const auto& field : preset.fields) {
      const std::string key(field.first);
      const bool is_number = std::holds_alternative<double>(field.second);
      const std::string value = is_number ? "number" : std::get<std::string>(field.second);
      INFO(preset.name << ": " << key << " = " << value);
      const bool is_known = std::ranges::any_of(all_ops(), [&](const Op& op) {
        const auto it = std::ranges::find(op.contract, key, &SpecKey::name);
        if (it == op.contract.end()) return false;
        return it->values == "element type"
                   ? dtype_named(value).has_value()
                   : (", " + it->values + ",").find(", " + value + ",") != std::string::npos;
      });
      CHECK(is_known);
    }
  }
}

TEST_CASE("what a case sets itself wins over its preset") {
  Case c = attention_inputs(DType::float16);
  c.contract["preset"] = std::string("cpu_float32");
  CHECK(settled(c).at("p_dtype") == Attribute(std::string("float32")));
  c.contract["p_dtype"] = std::string("bfloat16");
  CHECK(settled(c).at("p_dtype") == Attribute(std::string("bfloat16")));
  CHECK(settled(c).at("matrix_unit") == Attribute(std::string("none")));
  CHECK(ends_with(contract_of(c), " (declared over preset cpu_float32)"));

  Case by_its_other_name = gelu();
  by_its_other_name.contract["preset"] = std::string("cpu_float32");
  by_its_other_name.contract["accumulate"] = std::string("float64");
  CHECK(contract_of(by_its_other_name) == "computed in float64 (declared over preset cpu_float32)");
}

TEST_CASE("an unknown preset is rejected with those that the operation can have") {
  Case c = attention_inputs(DType::float16);
  c.contract["preset"] = std::string("nvidia_pascal");
  const std::string error = error_of(c);
  CHECK(error.find("/contract attribute preset is \"nvidia_pascal\"; accepted: nvidia_volta, ") !=
        std::string::npos);
  for (const ContractPreset& preset : contract_presets()) CHECK(error.find(preset.name) != std::string::npos);

  Case other = gelu();
  for (const char* name : {"cudnn", "nvidia_hopper", ""}) {  // they say nothing of it
    other.contract["preset"] = std::string(name);
    CHECK(error_of(other) == "gelu.h5: /zeros/contract attribute preset is \"" + std::string(name) +
                                 "\"; accepted: cpu_float32, cpu_float64");
  }
  other.contract["preset"] = std::int64_t{1};
  CHECK(error_of(other).find("attribute preset is 1; a text is expected") != std::string::npos);
}

TEST_CASE("the bounds of ascend_cube hold for any unit whose additions are off by less than one unit each") {
  const Accumulator volta = accumulator(DType::float32, DType::float16, MatrixUnit::volta);
  const double u = unit_roundoff(DType::float32);
  for (const Index n : {1, 2, 3, 4, 5, 15, 16, 17, 64, 128, 1000, 65536}) {
    INFO(n);
    const bounds::SumError cube = bounds::sum_error(volta, n);
    const double one_by_one = bounds::gamma(static_cast<double>(n), 2 * u);
    CHECK(cube.worst >= one_by_one);     // in any order
    CHECK(cube.bias >= one_by_one / 2);  // all towards zero
    // 16 at a time, as the unit multiplies: a block of m products cuts off m + 1 terms and their sum.
    const double last = static_cast<double>(n % 16), blocks = static_cast<double>(n / 16);
    const double all_at_once =
        bounds::log_gamma(blocks, 2 * u * 18) + (last > 0 ? bounds::log_gamma(1, 2 * u * (last + 2)) : 0);
    CHECK(cube.worst >= std::expm1(all_at_once));
  }
}

TEST_CASE("a preset accepts the kernels that it names and rejects those that round elsewhere") {
  Setup setup;
  Kernel in_float32;
  in_float32.p_dtype = DType::float32;
  Case c = dump_of(setup, in_float32, false, {"o", "lse"});
  c.contract = {{"preset", std::string("cpu_float32")}};
  CHECK(judged(c).verdict == Verdict::pass);
  c.contract = {{"preset", std::string("pytorch_math")}};
  CHECK(judged(c).verdict == Verdict::pass);

  c = dump_of(setup, Kernel{}, false, {"o", "lse"});  // P in float16
  c.contract = {{"preset", std::string("flash_attention_2")}};
  CHECK(judged(c).verdict == Verdict::pass);
  c.contract = {{"preset", std::string("cpu_float32")}};
  CHECK(judged(c).verdict == Verdict::fail);
}
