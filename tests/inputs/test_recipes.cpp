// What recipes make: the same bits everywhere, values that are what the recipe says, and requests that fit.
#include <bit>
#include <cmath>
#include <optional>
#include <set>
#include <string>

#include "core/invalid_case.hpp"
#include "tests/catch.hpp"
#include "verify/inputs/described.hpp"
#include "verify/inputs/request.hpp"
#include "verify/inputs/suite.hpp"
#include "verify/op.hpp"

using namespace attest;

namespace {

const Op& op_named(std::string_view name) {
  return *std::ranges::find(all_ops(), name, [](const Op& op) { return op.name; });
}

RequestText text(const std::string& recipe, const std::string& shape = "", const std::string& set = "",
                 const std::string& with = "", const std::string& dtype = "float16") {
  SuiteCase c{"", "", recipe, shape, set, with};
  RequestText result = c.request();
  result.dtype = dtype;
  return result;
}

Case made(std::string_view op, const RequestText& request) {
  return realised(op_named(op).generated.make(parse_request(op_named(op), request)));
}

std::string error_of(std::string_view op, const RequestText& request) {
  try {
    made(op, request);
  } catch (const InvalidCase& error) {
    return error.what();
  }
  return "";
}

/// FNV-1a over names, shapes and bits.
std::uint64_t digest(const Case& c) {
  std::uint64_t hash = 14695981039346656037u;
  const auto take = [&](std::uint64_t x) {
    for (int n = 0; n < 8; ++n) hash = (hash ^ (x >> (8 * n) & 255)) * 1099511628211;
  };
  for (const auto& [name, tensor] : c.in) {
    for (const char letter : name) take(static_cast<unsigned char>(letter));
    for (const Index extent : tensor.shape) take(static_cast<std::uint64_t>(extent));
    for (const double x : tensor.values) take(std::isnan(x) ? 1 : std::bit_cast<std::uint64_t>(x));
  }
  return hash;
}

}  // namespace

TEST_CASE("every operation has recipes, each with a purpose") {
  for (const Op& op : all_ops()) {
    INFO(op.name);
    CHECK(op.generated.recipes.size() >= 4);
    std::set<std::string_view> names;
    for (const InputRecipe& recipe : op.generated.recipes) {
      CHECK(names.insert(recipe.name).second);
      CHECK(recipe.purpose.find(':') != std::string_view::npos);
    }
    CHECK(op.generated.recipes.front().name == "normal");
  }
}

TEST_CASE("every operation has a suite, in every type that it was measured in") {
  for (const Op& op : all_ops()) {
    CHECK(!suite_of(op.name).empty());
    for (const SuiteCase& c : suite_of(op.name)) {
      for (const char* dtype : {"float16", "bfloat16", "float32"}) {
        RequestText request = c.request();
        request.dtype = dtype;
        INFO(op.name << " " << c.name << " " << dtype);
        CHECK(error_of(op.name, request) == "");
      }
    }
  }
}

TEST_CASE("recipes make the bits that they made on every platform") {
  std::uint64_t all = 0;
  for (const Op& op : all_ops()) {
    for (const InputRecipe& recipe : op.generated.recipes) {
      RequestText request = text(std::string(recipe.name));
      for (const std::string_view name : op.generated.optional) {
        const bool is_refused = recipe.name == "exact" && name != "do" && name != "dy" && name != "weight" &&
                                op.name != "softmax";
        if (!is_refused) request.with.push_back(std::string(name));
      }
      const std::uint64_t one = digest(made(op.name, request));
      all = (all ^ one) * 1099511628211;
    }
  }
  CHECK(all == 0x0b2789b21f7307dc);
}

TEST_CASE("a recipe in a file describes the bits that would have been stored, whole and in parts") {
  for (const Op& op : all_ops()) {
    for (const InputRecipe& recipe : op.generated.recipes) {
      RequestText request = text(std::string(recipe.name));
      if (op.name == "attention") request.set = {recipe.name == "padding" ? "layout=sbm" : "layout=bsm"};
      const GeneratedCase made = op.generated.make(parse_request(op, request));
      const Case stored = realised(made);
      Case described = stored;
      described.in.clear();
      described.recipe = recipe_of(made.request);
      const std::map<std::string, GeneratedTensor> in = described_inputs(described);
      INFO(op.name << " " << recipe.name);
      CHECK(in.size() == stored.in.size());
      for (const auto& [name, tensor] : in) {
        described.in[name] = tensor.whole();
        // Every other line, and of these the last third.
        Selection some;
        for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
          some.emplace_back();
          const bool is_last = axis + 1 == tensor.shape.size();
          for (Index i = is_last ? 2 * tensor.shape[axis] / 3 : 0; i < tensor.shape[axis];
               i += is_last ? 1 : 2)
            some.back().push_back(i);
        }
        const Tensor part = tensor.part(some);
        const std::vector<double>& all = stored.in.at(name).values;
        bool same = true;
        for (Index n = 0; n < part.size(); ++n) {
          Index rest = n, at = 0, step = 1;
          for (std::size_t axis = some.size(); axis-- > 0; rest /= part.shape[axis]) {
            at += step * some[axis][rest % part.shape[axis]];
            step *= tensor.shape[axis];
          }
          same &= part.values[n] == all[at] || (std::isnan(part.values[n]) && std::isnan(all[at]));
        }
        CHECK(same);
      }
      CHECK(digest(described) == digest(stored));
    }
  }
}

TEST_CASE("a recipe that is incomplete or does not fit is refused by name") {
  const Op& op = op_named("attention");
  const GeneratedCase made = op.generated.make(parse_request(op, text("normal", "Hq=4,Hkv=2")));
  const auto error_with = [&](const std::string& key, std::optional<Attribute> value, const char* spec = "") {
    Case c = realised(made);
    c.recipe = recipe_of(made.request);
    if (*spec != 0) c.spec[spec] = std::string("text");
    c.recipe.erase(key);
    if (value) c.recipe[key] = *value;
    try {
      described_inputs(c);
    } catch (const InvalidCase& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(error_with("seed", std::int64_t{2}).empty());
  CHECK(error_with("generator", std::int64_t{2}) ==
        "generated: /normal/recipe attribute generator is 2; this program has version 1");
  CHECK(error_with("generator", {}).ends_with("generator is missing; this program has version 1"));
  CHECK(error_with("seed", {}).ends_with("attribute seed is missing; a number from 0 on is expected"));
  CHECK(error_with("seed", std::int64_t{-1}).find("seed is -1") != std::string::npos);
  CHECK(error_with("name", "nomal")
            .starts_with("generated: /normal/recipe: attention has no recipe nomal; there are: normal, "));
  CHECK(error_with("name", {}).find("/recipe attribute name is missing; there are: dtype, ") !=
        std::string::npos);
  CHECK(error_with("colour", "red").find("attribute colour is not known; accepted: dtype, ") !=
        std::string::npos);
  CHECK(error_with("dtype", "int8").find("dtype int8 is no element type") != std::string::npos);
  CHECK(error_with("with", "dy").find("with dy: attention has no optional input") != std::string::npos);
  CHECK(error_with("shape", "B=1").find("shape lacks the extent Hq, query heads") != std::string::npos);
  const std::string rest = ",Hkv=2,Sq=8,Sk=8,Sp=0,D=8,E=8";
  CHECK(error_with("shape", "B=1,Hq=4" + rest).empty());
  CHECK(error_with("shape", "B=1,Hq=3" + rest).find("must be a multiple of Hkv = 2") != std::string::npos);
  CHECK(error_with("shape", "B=100000,Hq=4" + rest).find("B = 100000 is more than") != std::string::npos);
  CHECK(error_with("shape", "B=1,Hq=1e9" + rest).find("a whole number") != std::string::npos);
  CHECK(error_with("seed", std::int64_t{1}, "scale").find("/spec attribute scale is the text") !=
        std::string::npos);
}

TEST_CASE("a seed makes other inputs, and the same seed the same") {
  RequestText a = text("normal"), b = text("normal");
  CHECK(digest(made("attention", a)) == digest(made("attention", b)));
  b.seed = 2;
  CHECK(digest(made("attention", a)) != digest(made("attention", b)));
}

TEST_CASE("a layout moves the same rows to other places") {
  const std::string shape = "B=2,Hq=4,Hkv=2,Sq=3,Sk=5,D=6";
  for (const char* recipe : {"normal", "spiky", "ties"}) {
    const Case plain = made("attention", text(recipe, shape));
    for (const char* layout : {"bshd", "sbhd", "bsm", "sbm"}) {
      INFO(recipe << " " << layout);
      const Case moved = made("attention", text(recipe, shape, std::string("layout=") + layout));
      const std::vector<double>&from = plain.in.at("k").values, &to = moved.in.at("k").values;
      const bool batch_first = layout[0] == 'b';
      bool same = true;
      for (Index b = 0; b < 2; ++b)
        for (Index h = 0; h < 2; ++h)
          for (Index j = 0; j < 5; ++j)
            for (Index d = 0; d < 6; ++d)
              same &= from[((b * 2 + h) * 5 + j) * 6 + d] ==
                      to[((batch_first ? b * 5 + j : j * 2 + b) * 2 + h) * 6 + d];
      CHECK(same);
      CHECK(moved.in.at("k").shape.size() == (std::string(layout).size() == 3 ? 3u : 4u));
    }
  }
}

TEST_CASE("keys of a past are the first of all keys") {
  const Case whole = made("attention", text("normal", "Hq=1,Sq=3,Sk=8,D=4"));
  const Case split = made("attention", text("normal", "Hq=1,Sq=3,Sk=5,Sp=3,D=4"));
  std::vector<double> joined = split.in.at("past_k").values;
  const std::vector<double>& fresh = split.in.at("k").values;
  joined.insert(joined.end(), fresh.begin(), fresh.end());
  CHECK(joined == whole.in.at("k").values);
}

TEST_CASE("exact attention matches each query with one key that it may see") {
  for (const char* set :
       {"causal=none", "causal=bottom_right", "causal=top_left", "window_left=3,window_right=2"}) {
    for (const char* dtype : {"float16", "bfloat16", "float8_e4m3fn"}) {
      INFO(set << " " << dtype);
      const Index queries = 9, keys = 30, width = 16;
      const Case c = made("attention", text("exact", "Hq=1,Sq=9,Sk=30,D=16", set, "", dtype));
      const std::vector<double>&q = c.in.at("q").values, &k = c.in.at("k").values;
      const double scale = std::get<double>(c.spec.at("scale"));
      for (Index i = 0; i < queries; ++i) {
        double best = -1, second = -1;
        for (Index j = 0; j < keys; ++j) {
          double s = 0;
          for (Index d = 0; d < width; ++d) s += scale * q[i * width + d] * k[j * width + d];
          if (s > best) std::swap(best, s);
          second = std::max(second, s);
        }
        CHECK(best - second >= 24);
      }
      for (const double x : c.in.at("v").values) CHECK((x == std::round(x) && x != 0));
    }
  }
}

TEST_CASE("padding is NaN, and nothing else is") {
  const Case c = made("attention", text("padding", "B=3,Sq=4,Sk=20,D=8"));
  const std::vector<double>& lengths = c.in.at("kv_lengths").values;
  CHECK(std::set<double>(lengths.begin(), lengths.end()).size() == 3);
  for (const char* name : {"k", "v"}) {
    const std::vector<double>& x = c.in.at(name).values;
    for (Index n = 0; n < std::ssize(x); ++n) {
      const bool is_absent = static_cast<double>(n / 8 % 20) >= lengths[n / (2 * 20 * 8)];
      CHECK(std::isnan(x[n]) == is_absent);
    }
  }
}

TEST_CASE("scores of the recipe overflow are beyond float16") {
  const Case c = made("attention", text("overflow", "Hq=1,Sq=16,Sk=64"));
  for (Index i = 0; i < 16; ++i) {
    double largest = 0;
    for (Index j = 0; j < 64; ++j) {
      double s = 0;
      for (Index d = 0; d < 64; ++d) s += c.in.at("q").values[i * 64 + d] * c.in.at("k").values[j * 64 + d];
      largest = std::max(largest, s);
    }
    CHECK(largest > 65504);
  }
}

TEST_CASE("every value of float32 is every value of bfloat16") {
  const Tensor wide = made("silu", text("every_value", "", "", "", "float32")).in.at("x");
  const Tensor narrow = made("silu", text("every_value", "", "", "", "bfloat16")).in.at("x");
  CHECK(wide.shape == narrow.shape);
  CHECK(wide.values == narrow.values);
}

TEST_CASE("requests that make no sense say what there is") {
  CHECK(
      error_of("softmax", text("padding")).starts_with("softmax has no recipe padding; there are: normal, "));
  CHECK(error_of("attention", text("normal", "H=2")) ==
        "shape H=2: attention has no extent H; there are: B, Hq, Hkv, Sq, Sk, Sp, D, E");
  CHECK(error_of("attention", text("normal", "Sq=0")).find("whole number from 1") != std::string::npos);
  CHECK(error_of("attention", text("normal", "Sq")).find("NAME=VALUE") != std::string::npos);
  CHECK(error_of("attention", text("normal", "Hq=3,Hkv=2")).find("multiple of Hkv") != std::string::npos);
  CHECK(error_of("attention", text("normal", "", "causal=up")).find("none, top_left") != std::string::npos);
  CHECK(error_of("attention", text("normal", "", "colour=red")).find("there are: causal") !=
        std::string::npos);
  CHECK(error_of("attention", text("normal", "", "contract/p=x")).find("p_dtype") != std::string::npos);
  CHECK(error_of("attention", text("normal", "", "", "dy")).find("there are: do, ") != std::string::npos);
  CHECK(error_of("attention", text("normal", "", "", "", "int8")).find("float16") != std::string::npos);
  CHECK(error_of("attention", text("exact", "Sk=1000,D=4")).find("too few") != std::string::npos);
  CHECK(error_of("attention", text("exact", "", "", "sink")).find("row of v") != std::string::npos);
  CHECK(error_of("attention", text("padding", "", "layout=thd")).find("thd") != std::string::npos);
  CHECK(error_of("rope", text("exact", "", "theta=10000")).find("table") != std::string::npos);
  CHECK(error_of("rms_norm", text("exact", "N=3")).find("even N") != std::string::npos);
  CHECK(error_of("rms_norm", text("overflow", "", "", "", "float8_e4m3fn")).find("--dtype") !=
        std::string::npos);
}
