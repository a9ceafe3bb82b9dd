// What is said of weights and row sums that are not those of the declared softmax, and of lse alone.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr Index rows = 10, keys = 140, heads = 4, width = 64;

/// Turns the scaled products of a row into what multiplies V, and returns lse.
using Weigh = std::function<double(Index h, Index i, std::vector<double>& s)>;

Case weighed(const Setup& setup, const Weigh& weigh) {
  Case c = inputs_of(setup, setup.element);
  c.in.erase("do");
  const AttentionInputs in = views_of(c);
  Tensor o{std::string(format_of(setup.element).name), setup.element, {1, heads, rows, width}, {}};
  Tensor lse{"float32", DType::float32, {1, heads, rows}, {}};
  for (Index h = 0; h < heads; ++h) {
    for (Index i = 0; i < rows; ++i) {
      std::vector<double> s(in.keys());
      for (Index j = 0; j < in.keys(); ++j)
        for (Index d = 0; d < width; ++d)
          s[j] += setup.spec.scale * in.q(h, i, d) * in.k(in.kv_head(h), j, d);
      lse.values.push_back(round_to(weigh(h, i, s), DType::float32));
      for (Index e = 0; e < width; ++e) {
        double sum = 0;
        for (Index j = 0; j < in.keys(); ++j) sum += s[j] * in.v(in.kv_head(h), j, e);
        o.values.push_back(round_to(sum, setup.element));
      }
    }
  }
  c.out["o"] = o, c.out["lse"] = lse;
  return c;
}

Setup declared(DType element) {
  return plain_setup(element, rows, keys, heads, 2);
}

double softmax(std::vector<double>& s) {
  const double m = *std::ranges::max_element(s);
  double l = 0;
  for (double& x : s) l += x = std::exp(x - m);
  for (double& x : s) x /= l;
  return m + std::log(l);
}

/// Of tiles of 32 keys: weights b^(s - m) and a^(m - m') where the maximum rises.
double in_tiles(std::vector<double>& s, double power, double power_of_rise, bool rescales_new_sum = false) {
  double m = -INFINITY, l = 0;
  const std::vector<double> scores = s;
  for (std::size_t first = 0; first < s.size(); first += 32) {
    const std::size_t last = std::min(first + 32, s.size());
    double top = m, sum = 0;
    for (std::size_t j = first; j < last; ++j) top = std::max(top, scores[j]);
    const double factor = first == 0 ? 0 : std::exp(power_of_rise * (m - top));
    m = top;
    for (std::size_t j = 0; j < first; ++j) s[j] *= factor;
    for (std::size_t j = first; j < last; ++j) sum += s[j] = std::exp(power * (scores[j] - m));
    l = l * factor + (rescales_new_sum ? sum * factor : sum);
  }
  for (double& x : s) x /= l;
  return m + std::log(l);
}

std::string cause_of_scores(const Setup& setup, const std::function<double(double)>& score) {
  return first_cause(weighed(setup, [&](Index, Index, std::vector<double>& s) {
    for (double& x : s) x = score(x);
    return softmax(s);
  }));
}

std::string cause_of_weights(DType element, const Weigh& weigh) {
  return first_cause(weighed(declared(element), weigh));
}

}  // namespace

TEST_CASE("a softcap of another number, or at another place, is named") {
  const DType element = DType::float16;
  Setup setup = declared(element);
  setup.spec.softcap = 2;
  const auto cap = [](double x, double c) { return c * std::tanh(x / c); };
  REQUIRE(cause_of_scores(setup, [&](double x) { return cap(x, 2); }).starts_with("no failure"));
  CHECK(cause_of_scores(setup, [&](double x) { return cap(x, 3); }) == "softcap = 3 in place of 2");
  CHECK(cause_of_scores(setup, [&](double x) { return cap(x, 1.9); }) == "softcap = 1.9 in place of 2");
  CHECK(cause_of_scores(setup, [&](double x) { return 2 * std::tanh(x); }) ==
        "softcap without its inner factor: c tanh(x)");
  CHECK(cause_of_scores(setup, [&](double x) { return std::numbers::ln2 * cap(x, 2); }) ==
        "exp2 for exp: capped scores ln(2) too small");
  CHECK(cause_of_scores(setup, [&](double x) {
          return std::numbers::ln2 * cap(std::numbers::log2e * cap(x, 2), 2);
        }) == "softcap applied again to scores in base 2");
}

TEST_CASE("exponentials of another base in part of a softmax are named") {
  const DType element = DType::bfloat16;
  const double log2e = std::numbers::log2e, ln2 = std::numbers::ln2;
  const auto cause = [&](double power, double power_of_rise, bool rescales_new_sum = false) {
    return cause_of_weights(element, [=](Index, Index, std::vector<double>& s) {
      return in_tiles(s, power, power_of_rise, rescales_new_sum);
    });
  };
  REQUIRE(cause(1, 1).starts_with("no failure"));
  CHECK(cause(1, log2e) == "exp for exp2 where the maximum rises from tile to tile, but not in the weights");
  CHECK(cause(1, ln2) == "exp2 for exp where the maximum rises from tile to tile, but not in the weights");
  CHECK(cause(log2e, 1) == "exp for exp2 in the weights, but not where the maximum rises from tile to tile");
  CHECK(cause(1, 1, true) == "the row sum of a new tile of 32 keys rescaled as those before it are");
}

TEST_CASE("weights and lse that no precision makes are not called imprecise") {
  const DType element = GENERATE(DType::float16, DType::bfloat16, DType::float32);
  for (const double size : {0.5, 1.5}) {  // less than scores in 8 bits change lse
    const std::string cause = cause_of_weights(element, [=](Index h, Index i, std::vector<double>& s) {
      for (std::size_t j = 0; j < s.size(); ++j)
        s[j] += size * std::sin(static_cast<double>((7 * h + 3) * (i + 5) * static_cast<Index>(j * j)));
      return softmax(s);
    });
    INFO(cause);
    CHECK(cause.starts_with("other "));
    CHECK(cause.find("less precise") == std::string::npos);
  }
}

TEST_CASE("a row sum of weights as stored is named with its contract key") {
  const DType element = GENERATE(DType::float16, DType::bfloat16);
  Setup setup = declared(element);
  setup.keys = 32;
  Kernel kernel = honest_kernels(element)[0].kernel;
  kernel.mistakes.sums_stored_weights = true;
  CHECK(first_cause(dump_of(setup, kernel, false, {"o", "lse"})) ==
        "the row sum adds weights as they are stored, in " + std::string(format_of(element).name) +
            ": contract key row_sum");
}

TEST_CASE("arithmetic that the contract declares is no fault") {
  const Setup setup = declared(DType::float16);
  Kernel kernel = honest_kernels(DType::float16)[0].kernel;
  kernel.mistakes.scores = DType::float16;
  Case c = dump_of(setup, kernel, false, {"o", "lse"});
  CHECK(first_cause(c) == "scores stored in float16");
  c.contract["scores_dtype"] = std::string("float16");
  REQUIRE(judged(c).verdict == Verdict::pass);
  Tensor& o = c.out.at("o");
  for (Index n = 0; n < o.size(); n += 97) o.values[n] = round_to(1.05 * o.values[n], DType::float16);
  for (const DiagnosisEntry& x : judged(c).diagnosis) CHECK(!x.cause.starts_with("scores stored in float16"));
}

TEST_CASE("lse of other heads, or of m and l otherwise, is named where o is right") {
  const DType element = DType::float32;
  const auto maximum = [](const std::vector<double>& s) { return *std::ranges::max_element(s); };
  Case c = weighed(declared(element), [](Index, Index, std::vector<double>& s) { return softmax(s); });
  REQUIRE(judged(c).verdict == Verdict::pass);
  Tensor& lse = c.out.at("lse");
  for (Index i = 0; i < rows; ++i) std::swap(lse.values[rows + i], lse.values[2 * rows + i]);
  CHECK(first_cause(c) ==
        "rows of lse hold the results of those in head 1 instead of 2; in head 2 instead of 1");
  CHECK(cause_of_weights(element, [&](Index, Index, std::vector<double>& s) {
          const double m = maximum(s), sum = softmax(s);
          return m + std::exp(sum - m);
        }) == "m + l in place of lse: the logarithm of the row sum missing");
  CHECK(cause_of_weights(element, [&](Index, Index, std::vector<double>& s) {
          const double m = maximum(s), sum = softmax(s);
          return m * std::numbers::log2e + sum - m;
        }) == "lse with its maximum in base 2");
  CHECK(cause_of_weights(element, [&](Index h, Index i, std::vector<double>& s) {
          return softmax(s) + std::sin(static_cast<double>(7 * h + i * i));
        }) == "lse itself, or a number added to all scores of a row: o is right, so that weights are");
}

TEST_CASE("a key that all rows miss or count twice is named, and its rows of K and V are not") {
  const DType element = DType::float16;
  const auto weigh = [](Index key, double factor) {
    return [=](Index, Index, std::vector<double>& s) {
      s[key] += std::log(factor);
      return softmax(s);
    };
  };
  CHECK(cause_of_weights(element, weigh(0, 0)) == "key 0 missing");
  CHECK(cause_of_weights(element, weigh(37, 2)) == "key 37 counted twice");

  // A row of V in few bits is not that of another key, and least of all of its own.
  const Setup setup = plain_setup(element, rows, keys, heads, 1);
  const Kernel kernel = honest_kernels(element)[0].kernel;
  Case asked = inputs_of(setup, kernel.p_dtype);
  asked.in.erase("do");
  Case read = asked;
  for (Index e = 0; e < width; ++e)
    read.in.at("v").values[31 * width + e] =
        round_to(0.99 * asked.in.at("v").values[31 * width + e], DType::float8_e4m3fn);
  store(asked, run(kernel, setup.spec, views_of(read), {}, element), {"o", "lse"}, element, element);
  CHECK(first_cause(asked) == "the row of V that key 31 reads is stale: another vector");
}

TEST_CASE("keys of zeros behind those of each batch entry are counted") {
  const DType element = GENERATE(DType::float16, DType::float32);
  constexpr Index lengths[] = {90, 100, 110, 120}, more[] = {6, 12, 2, 8};
  Setup setup = plain_setup(element, rows, keys, heads, heads);
  const auto dump = [&](bool has_more) {
    Case c = weighed(setup, [&](Index h, Index, std::vector<double>& s) {
      for (Index j = lengths[h]; j < keys; ++j) s[j] = -INFINITY;
      const double lse = softmax(s), added = has_more ? static_cast<double>(more[h]) : 0;
      const double all = lse + std::log1p(added * std::exp(-lse));
      for (double& x : s) x *= std::exp(lse - all);
      return all;
    });
    for (auto* tensors : {&c.in, &c.out})  // heads become entries of one head
      for (auto& [name, tensor] : *tensors) std::swap(tensor.shape[0], tensor.shape[1]);
    c.in["kv_lengths"] = {"int64", {}, {4}, {90, 100, 110, 120}};
    return c;
  };
  REQUIRE(judged(dump(false)).verdict == Verdict::pass);
  CHECK(first_cause(dump(true)) ==
        "keys of zeros take weight behind those of an entry: 6 of batch entry 0, 12 of batch entry 1, 2 of "
        "batch entry 2, ...");
}

TEST_CASE("sinks of other numbers are named") {
  Setup setup = declared(DType::float32);
  setup.has_sink = true;
  const Kernel kernel = honest_kernels(setup.element)[0].kernel;
  Case asked = inputs_of(setup, kernel.p_dtype);
  asked.in.erase("do");
  asked.in.at("sink").values = {2, 3, 1, 4};
  const auto cause = [&](const std::vector<double>& sinks, const std::vector<std::string>& outputs) {
    Case read = asked, c = asked;
    read.in.at("sink").values = sinks;
    store(c, run(kernel, setup.spec, views_of(read), {}, setup.element), outputs, setup.element,
          setup.element);
    return first_cause(c);
  };
  CHECK(cause({2.5, 3, 1, 2}, {"o", "lse"}) ==
        "other sinks: 2.5 in place of 2 in head 0, 2 in place of 4 in head 3");
  CHECK(
      cause({3, 4, 2, 5}, {"o"}).starts_with("other sinks: 3 in place of 2 in head 0, 4 in place of 3 in "));
  // Row sums that are a tenth too large are no sink's.
  Case right = asked;
  store(right, run(kernel, setup.spec, views_of(asked), {}, setup.element), {"o", "lse"}, setup.element,
        setup.element);
  for (double& x : right.out.at("o").values) x = round_to(x / 1.1, setup.element);
  for (double& x : right.out.at("lse").values) x = round_to(x + std::log(1.1), DType::float32);
  CHECK(!first_cause(right).starts_with("other sinks"));
  CHECK(cause({2, 2, 1, 1}, {"o", "lse"}) != "in/sink of the key/value heads");
  CHECK(cause({2, 2, 3, 3}, {"o", "lse"}) == "in/sink of the key/value heads");
  CHECK(cause({2, 2, 2, 2}, {"o", "lse"}) == "in/sink of head 0 in all heads");
}

TEST_CASE("a scale that is far off is named although a little would not show") {
  for (const DType element : {DType::float16, DType::bfloat16}) {
    Case c = weighed(declared(element), [](Index, Index, std::vector<double>& s) {
      for (double& x : s) x *= 0.8;
      return softmax(s);
    });
    c.out.erase("lse");
    CHECK(first_cause(c) == "a scale 20 % too small");
  }
}
