// Reading rotary embedding cases: layouts, tables, positions, and the messages about what does not fit.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/invalid_case.hpp"
#include "tests/catch.hpp"
#include "tests/support/random.hpp"
#include "verify/op.hpp"
#include "verify/ops/rope/case.hpp"
#include "verify/verdict/verify_case.hpp"

namespace {

using namespace attest;
using attest::test::Mentions;
using Catch::Matchers::StartsWith;

Tensor tensor(std::vector<Index> shape, std::uint64_t seed, DType dtype = DType::float32) {
  Tensor t{std::string(format_of(dtype).name), dtype, std::move(shape), {}};
  test::Random random(seed);
  for (Index n = 0; n < t.size(); ++n) t.values.push_back(random.symmetric());
  return t;
}

Tensor integers(std::vector<Index> shape, std::vector<double> values) {
  return {"int64", std::nullopt, std::move(shape), std::move(values)};
}

/// B 2, H 3, S 5, D 8.
Case plain_case() {
  Case c;
  c.file = "dump.h5";
  c.name = "one";
  c.op = "rope";
  c.spec = {{"style", "half"}, {"theta", 100.0}, {"position_start", std::int64_t{0}}};
  c.in["x"] = tensor({2, 3, 5, 8}, 1);
  c.in["dy"] = tensor({2, 3, 5, 8}, 2);
  c.out["y"] = c.out["dx"] = c.in["x"];
  return c;
}

Case table_case(std::vector<Index> shape) {
  Case c = plain_case();
  c.spec = {{"style", "interleaved"}};
  c.in["cos"] = tensor(shape, 3);
  c.in["sin"] = tensor(shape, 4);
  return c;
}

void silent(double) {}

/// Exact values of the outputs, in the order of the ports.
std::vector<std::vector<double>> values_of(const Case& c) {
  const Op& op = find_op(c);
  check_ports(op, c);
  const auto problem = op.read(c);
  const std::vector<Expected> all = problem->expect(silent);
  problem->recheck(all);
  std::vector<std::vector<double>> values;
  for (const Expected& e : all) values.push_back(e.value);
  return values;
}

std::string message_of(const Case& c) {
  try {
    const Op& op = find_op(c);
    check_ports(op, c);
    op.read(c);
  } catch (const InvalidCase& e) {
    return e.what();
  }
  return "no complaint";
}

/// The tensor with its axes in another order: axes[n] is the old place of the new axis n.
Tensor permuted(const Tensor& t, std::vector<std::size_t> axes) {
  Tensor result = t;
  std::vector<Index> stride(t.shape.size(), 1);
  for (std::size_t n = t.shape.size() - 1; n-- > 0;) stride[n] = stride[n + 1] * t.shape[n + 1];
  for (std::size_t n = 0; n < axes.size(); ++n) result.shape[n] = t.shape[axes[n]];
  for (Index flat = 0; flat < t.size(); ++flat) {
    Index rest = flat, from = 0;
    for (std::size_t n = axes.size(); n-- > 0; rest /= result.shape[n])
      from += rest % result.shape[n] * stride[axes[n]];
    result.values[flat] = t.values[from];
  }
  return result;
}

TEST_CASE("a rope case means the same in every layout") {
  const Case plain = plain_case();
  const std::vector<std::vector<double>> right = values_of(plain);
  REQUIRE(right.size() == 2);
  struct Row {
    const char* layout;
    std::vector<std::size_t> axes;
    bool merges;
  };
  for (const Row& row : {Row{"bshd", {0, 2, 1, 3}, false}, Row{"sbhd", {2, 0, 1, 3}, false},
                         Row{"bsm", {0, 2, 1, 3}, true}, Row{"sbm", {2, 0, 1, 3}, true}}) {
    Case c = plain;
    c.spec["layout"] = row.layout;
    if (row.merges) c.spec["heads"] = std::int64_t{3};
    for (auto* tensors : {&c.in, &c.out}) {
      for (auto& [name, t] : *tensors) {
        t = permuted(t, row.axes);
        if (row.merges) t.shape = {t.shape[0], t.shape[1], 24};
      }
    }
    const std::vector<std::vector<double>> got = values_of(c);
    for (std::size_t n = 0; n < right.size(); ++n) {
      Tensor t = plain.out.at("y");
      t.values = right[n];
      INFO(row.layout);
      CHECK(got[n] == permuted(t, row.axes).values);
    }
  }
}

TEST_CASE("packed rows count their positions from the start of their sequence") {
  Case c = plain_case();
  c.spec["layout"] = "thd";
  for (auto* tensors : {&c.in, &c.out}) {
    for (auto& [name, t] : *tensors) t.shape = {10, 3, 8};
  }
  c.in["cu_seqlens"] = integers({4}, {0, 4, 4, 10});
  Case by_position = c;
  by_position.in.erase("cu_seqlens");
  by_position.spec.erase("position_start");
  by_position.in["positions"] = integers({10}, {7, 8, 9, 10, 7, 8, 9, 10, 11, 12});
  c.spec["position_start"] = std::int64_t{7};
  CHECK(values_of(c) == values_of(by_position));
  c.spec.erase("position_start");
  by_position.in["positions"].values = {0, 1, 2, 3, 0, 1, 2, 3, 4, 5};
  CHECK(values_of(c) == values_of(by_position));
}

TEST_CASE("positions may differ between batch entries") {
  Case shared = plain_case(), own = plain_case();
  shared.spec.erase("position_start");
  own.spec.erase("position_start");
  shared.in["positions"] = integers({5}, {9, 3, -4, 9, 1000000});
  own.in["positions"] = integers({2, 5}, {9, 3, -4, 9, 1000000, 9, 3, -4, 9, 1000000});
  CHECK(values_of(shared) == values_of(own));
  own.in["positions"].values[9] = 2;
  CHECK(values_of(shared) != values_of(own));
}

TEST_CASE("tables may be half as wide, differ between batch entries, or be caches that positions index") {
  for (const char* style : {"half", "interleaved"}) {
    const bool is_half = std::string(style) == "half";
    Case narrow = table_case({5, 4}), full = narrow, batched = narrow, cached = narrow;
    for (Case* c : {&narrow, &full, &batched, &cached}) c->spec["style"] = style;
    for (const std::string name : {"cos", "sin"}) {
      const Tensor& t = narrow.in[name];
      full.in[name] = tensor({5, 8}, 0);
      batched.in[name] = tensor({2, 5, 4}, 0);
      cached.in[name] = tensor({9, 4}, 0);
      for (Index row = 0; row < 5; ++row) {
        for (Index d = 0; d < 8; ++d)
          full.in[name].values[row * 8 + d] = t.values[row * 4 + (is_half ? d % 4 : d / 2)];
        for (Index k = 0; k < 4; ++k) {
          for (const Index b : {0, 1}) batched.in[name].values[(b * 5 + row) * 4 + k] = t.values[row * 4 + k];
          cached.in[name].values[(row + 3) * 4 + k] = t.values[row * 4 + k];
        }
      }
    }
    cached.spec["position_start"] = std::int64_t{3};
    const auto right = values_of(narrow);
    CHECK(values_of(full) == right);
    CHECK(values_of(batched) == right);
    CHECK(values_of(cached) == right);
    cached.spec.erase("position_start");
    cached.in["positions"] = integers({5}, {3, 4, 5, 6, 7});
    CHECK(values_of(cached) == right);
    batched.in["cos"].values[39] += 1;
    CHECK(values_of(batched) != right);
  }
}

TEST_CASE("only the first rotary_dim columns turn, and the others must be copied to the bit") {
  Case c = plain_case();
  c.spec["rotary_dim"] = std::int64_t{4};
  Case narrow = c;
  for (auto* tensors : {&narrow.in, &narrow.out}) {
    for (auto& [name, t] : *tensors) {
      Tensor cut = tensor({2, 3, 5, 4}, 0);
      for (Index n = 0; n < cut.size(); ++n) cut.values[n] = t.values[n / 4 * 8 + n % 4];
      t = cut;
    }
  }
  narrow.spec.erase("rotary_dim");
  const auto wide_values = values_of(c), narrow_values = values_of(narrow);
  for (std::size_t n = 0; n < 2; ++n) {
    const Tensor& input = c.in.at(n == 0 ? "x" : "dy");
    for (Index at = 0; at < input.size(); ++at) {
      const Index d = at % 8;
      CHECK(wide_values[n][at] == (d < 4 ? narrow_values[n][at / 8 * 4 + d] : input.values[at]));
    }
  }
  const auto problem = find_op(c).read(c);
  const auto all = problem->expect(silent);
  CHECK(all[0].bound(4) == 0);
  CHECK(all[0].bound(0) > 0);
}

TEST_CASE("a gradient alone needs no x") {
  Case c = plain_case();
  c.in.erase("x");
  c.out.erase("y");
  CHECK(values_of(c).size() == 1);
}

TEST_CASE("the default of attention_factor under yarn is the paper's") {
  Case c = plain_case();
  c.spec["scaling"] = "yarn";
  c.spec["factor"] = 16.0;
  c.spec["original_max_position_embeddings"] = 4096.0;
  const auto implied = values_of(c);
  c.spec["attention_factor"] = 0.1 * std::log(16.0) + 1;
  CHECK(values_of(c) == implied);
  c.spec["attention_factor"] = 1.0;
  CHECK(values_of(c) != implied);
}

TEST_CASE("rope cases that do not fit are rejected with the object, what it holds and what it should") {
  const auto complaint = [](auto change) {
    Case c = plain_case();
    change(c);
    return message_of(c);
  };
  const auto table_complaint = [](std::vector<Index> shape, auto change) {
    Case c = table_case(std::move(shape));
    change(c);
    return message_of(c);
  };
  const auto nothing = [](Case&) {};
  CHECK(complaint(nothing) == "no complaint");
  CHECK(table_complaint({5, 8}, nothing) == "no complaint");

  CHECK(complaint([](Case& c) { c.spec.erase("style"); }) ==
        "dump.h5: /one/spec attribute style is missing; there are: position_start, theta");
  CHECK(complaint([](Case& c) { c.spec["style"] = "neox"; }) ==
        "dump.h5: /one/spec attribute style is \"neox\"; accepted: half, interleaved");
  CHECK_THAT(complaint([](Case& c) { c.spec["base"] = 1.0; }),
             StartsWith("dump.h5: /one/spec attribute base is not known; accepted: angle_dtype"));
  CHECK(complaint([](Case& c) { c.spec["rotary_dim"] = std::int64_t{5}; }) ==
        "dump.h5: /one/spec attribute rotary_dim is 5; an even number from 2 to D = 8 is expected");
  CHECK(complaint([](Case& c) { c.spec["rotary_dim"] = std::int64_t{10}; }) ==
        "dump.h5: /one/spec attribute rotary_dim is 10; an even number from 2 to D = 8 is expected");
  CHECK(
      complaint([](Case& c) { c.spec.erase("theta"); }) ==
      "dump.h5: /one gives its angles by nothing; one of in/cos with in/sin, in/inv_freq and spec attribute "
      "theta is expected");
  CHECK_THAT(complaint([](Case& c) { c.in["inv_freq"] = tensor({4}, 5); }),
             Mentions("gives its angles by in/inv_freq and spec attribute theta; one of"));
  CHECK(complaint([](Case& c) { c.spec["theta"] = 1.0; }) ==
        "dump.h5: /one/spec attribute theta is 1; a number above 1, in float32, is expected");
  CHECK(complaint([](Case& c) { c.spec.erase("position_start"); }) ==
        "dump.h5: /one/in/positions is missing; it or spec attribute position_start is needed");
  CHECK_THAT(complaint([](Case& c) {
               c.in["positions"] = integers({5}, {0, 1, 2, 3, 4});
             }),
             Mentions("position_start is given, but so is in/positions"));
  CHECK_THAT(complaint([](Case& c) {
               c.spec.erase("position_start");
               c.in["positions"] = integers({4}, {0, 1, 2, 3});
             }),
             Mentions("/one/in/positions has S = 4, but in/x has S = 5"));
  CHECK_THAT(complaint([](Case& c) {
               c.spec.erase("position_start");
               c.in["positions"] = integers({5}, {0, 1, 2, 3, 0x1p60});
             }),
             Mentions("/one/in/positions holds 1152921504606846976 at [4]; at most 2^53 is expected"));
  CHECK_THAT(complaint([](Case& c) {
               c.in["cu_seqlens"] = integers({2}, {0, 5});
             }),
             Mentions("/one/in/cu_seqlens is given, but the layout is not thd"));
  CHECK_THAT(complaint([](Case& c) {
               c.out["y"] = tensor({2, 3, 5, 4}, 1);
             }),
             Mentions("/one/out/y has D = 4, but in/x has D = 8"));
  CHECK_THAT(complaint([](Case& c) { c.in.erase("dy"); }),
             Mentions("/one/out/dx is given, but in/dy is missing"));
  CHECK_THAT(complaint([](Case& c) { c.spec["heads"] = std::int64_t{3}; }),
             Mentions("attribute heads is given, but only layouts bsm and sbm use it"));
  CHECK_THAT(complaint([](Case& c) { c.spec["layout"] = "bsm"; }), Mentions("attribute heads is missing"));
  CHECK(complaint([](Case& c) { c.in["x"].values[13] = std::numeric_limits<double>::quiet_NaN(); }) ==
        "dump.h5: /one/in/x holds NaN at [0, 0, 1, 5]; finite values are expected");
  CHECK(complaint([](Case& c) { c.in["dy"].values[13] = std::numeric_limits<double>::infinity(); }) ==
        "dump.h5: /one/in/dy holds an infinity at [0, 0, 1, 5]; finite values are expected");

  CHECK_THAT(complaint([](Case& c) { c.spec["factor"] = 2.0; }),
             Mentions("attribute factor is given, but scaling = none does not use it"));
  CHECK_THAT(complaint([](Case& c) {
               c.spec["scaling"] = "linear", c.spec["factor"] = 2.0, c.spec["beta_fast"] = 32.0;
             }),
             Mentions("attribute beta_fast is given, but this scaling does not use it"));
  CHECK_THAT(complaint([](Case& c) { c.spec["scaling"] = "linear"; }),
             Mentions("attribute factor is missing"));
  CHECK_THAT(complaint([](Case& c) { c.spec["scaling"] = "linear", c.spec["factor"] = 0.5; }),
             Mentions("attribute factor is 0.5; a number of at least 1 is expected"));
  CHECK_THAT(complaint([](Case& c) { c.spec["scaling"] = "su", c.spec["factor"] = 2.0; }),
             Mentions("accepted: none, linear, ntk, dynamic_ntk, yarn, llama3"));
  CHECK_THAT(complaint([](Case& c) { c.spec["attention_factor"] = 2.0; }),
             Mentions("attribute attention_factor is given, but only scaling = yarn and in/inv_freq use it"));

  CHECK_THAT(table_complaint({5, 6}, nothing),
             Mentions("/one/in/cos has 6 columns; rotary_dim = 8 or half of that is expected"));
  CHECK_THAT(table_complaint({4, 8}, nothing), Mentions("/one/in/cos has S = 4, but in/x has S = 5"));
  CHECK_THAT(table_complaint({5, 8}, [](Case& c) { c.in.erase("sin"); }),
             Mentions("/one/in/sin is missing; in/cos and in/sin must be given together"));
  CHECK_THAT(table_complaint({5, 8}, [](Case& c) { c.spec["angle_dtype"] = "float64"; }),
             Mentions("attribute angle_dtype is given, but a table has no angles to compute"));
  CHECK_THAT(table_complaint({5, 8}, [](Case& c) { c.spec["scaling"] = "linear"; }),
             Mentions("attribute scaling is given, but spec attribute theta is missing"));
  CHECK_THAT(table_complaint({5, 8}, [](Case& c) { c.spec["position_start"] = std::int64_t{1}; }),
             Mentions("/one/in/cos has 5 rows, but row 4 of the tensor has position 5"));
  CHECK_THAT(table_complaint({5, 8}, [](Case& c) { c.spec["attention_factor"] = 2.0; }),
             Mentions("only scaling = yarn and in/inv_freq use it"));
}

}  // namespace

TEST_CASE("numbers in messages have all their digits") {
  Case c = plain_case();
  c.spec["scaling"] = std::string("linear");
  c.spec["factor"] = 0.99999999;
  CHECK_THAT(message_of(c),
             attest::test::Mentions("factor is 0.99999999; a number of at least 1 is expected"));
}
