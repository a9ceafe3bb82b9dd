// What is said of backward passes that read, mask or sum something else than they should, o and lse being
// right.
#include <cmath>
#include <functional>
#include <numbers>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

/// A backward pass in plain loops, with what it may read elsewhere. Of every function, the default is right.
struct Backward {
  using Place = std::function<Index(Index)>;
  using Pair = std::function<Index(Index, Index)>;
  static Index same(Index x) { return x; }
  static Index row_of(Index i, Index) { return i; }
  static Index key_of(Index, Index j) { return j; }

  Pair lse_row = row_of, delta_row = row_of, ds_row = row_of, ds_key = key_of;  // of row i and key j
  Place vector_key = same, v_head_of_query_head = nullptr, delta_head = same;
  Index delta_columns = 1 << 20, lost_head = -1;  // no P in that query head
  double delta_factor = 1;
  std::function<bool(Index, Index)> sees = nullptr;  // in place of the options
  std::function<double(Index, Index)> count = [](Index, Index) { return 1; };
  bool turns_do = false;                                                       // tiles of 16 x 16 in dP
  std::function<double(Index, Index)> share = [](Index, Index) { return 1; };  // of key j in column d of dq
};

class Gradients {
 public:
  Gradients(const Setup& setup, const Case& c, const Backward& b)
      : setup_(setup), in_(views_of(c)), c_(c), b_(b) {}

  Index queries() const { return in_.queries(); }
  double lse(Index h, Index i) const {  // 0 for a row that sees nothing
    const double x = c_.out.at("lse").values[h * queries() + i];
    return std::isfinite(x) ? x : 0;
  }
  double of_do(Index h, Index i, Index e) const { return at("do", h, i, e); }
  double delta(Index h, Index i) const {
    double sum = 0;
    const Index width = in_.v_width();
    for (Index e = 0; e < std::min(width, b_.delta_columns); ++e)
      sum += of_do(h, i, e) * c_.out.at("o").values[(h * queries() + i) * width + e];
    return b_.delta_factor * sum;
  }
  double p(Index h, Index i, Index j) const {
    if (h == b_.lost_head) return 0;
    const AttentionSpec& spec = setup_.spec;
    const Index after = j - diagonal(spec, in_, i);
    bool sees = (spec.causal == Causal::none || after <= 0) &&
                (spec.window_left < 0 || -after <= spec.window_left) && (!in_.mask || in_.mask(h, i, j) != 0);
    if (b_.sees) sees = b_.sees(i, j);
    if (!sees) return 0;
    double s = 0;
    for (Index d = 0; d < in_.qk_width(); ++d) s += in_.q(h, i, d) * in_.k(in_.kv_head(h), j, d);
    s *= spec.scale;
    if (in_.bias) s += in_.bias(h, i, j);
    return b_.count(i, j) * std::exp(s - lse(h, b_.lse_row(i, j)));
  }
  double ds(Index h, Index i, Index j) const {
    const Index g = b_.v_head_of_query_head ? b_.v_head_of_query_head(h) : in_.kv_head(h);
    double dp = 0;
    for (Index e = 0; e < in_.v_width(); ++e) {
      const Index top = i / 16 * 16, left = e / 16 * 16;
      const bool turns = b_.turns_do && top + 16 <= queries();
      dp += (turns ? of_do(h, top + e - left, left + i - top) : of_do(h, i, e)) * in_.v(g, j, e);
    }
    return p(h, i, j) * (dp - delta(b_.delta_head(h), b_.delta_row(i, j)));
  }
  /// What a kernel that errs so writes.
  void write(Case& c, const std::string& output) const {
    Tensor& t = c.out.at(output);
    std::fill(t.values.begin(), t.values.end(), 0.0);
    const Index width = t.shape.back(), rows = t.shape[2];
    for (Index h = 0; h < in_.q_heads(); ++h) {
      for (Index i = 0; i < queries(); ++i) {
        for (Index j = 0; j < in_.keys(); ++j) {
          const Index from = b_.ds_row(i, j), of = b_.ds_key(i, j);
          const double w = output == "dv" ? p(h, from, of) : setup_.spec.scale * ds(h, from, of);
          const Index head = output == "dq" ? h : in_.kv_head(h), row = output == "dq" ? i : j;
          for (Index d = 0; d < width; ++d) {
            const double x = output == "dq"   ? in_.k(in_.kv_head(h), b_.vector_key(j), d)
                             : output == "dk" ? in_.q(h, i, d)
                                              : of_do(h, i, d);
            t.values[(head * rows + row) * width + d] += w * x * b_.share(j, d);
          }
        }
      }
    }
    for (double& x : t.values) x = round_to(x, *t.dtype);
  }

 private:
  double at(const char* name, Index h, Index i, Index e) const {
    const Tensor& t = c_.in.at(name);
    return t.values[(h * t.shape[2] + i) * t.shape[3] + e];
  }

  const Setup& setup_;
  const AttentionInputs in_;
  const Case& c_;
  const Backward& b_;
};

Setup small() {
  Setup setup;
  setup.q_heads = 4;
  setup.kv_heads = 2;
  setup.queries = 90;
  setup.keys = 100;
  return setup;
}

Case right_dump(const Setup& setup) {
  return dump_of(setup, honest_kernels(setup.element)[0].kernel, true, {"o", "lse", "dq", "dk", "dv"});
}

struct Misreading {
  std::string cause;
  std::vector<std::string> gradients;
  std::function<void(Setup&)> asks;
  std::function<void(Backward&)> reads;
};

const auto nothing = [](Setup&) {};

std::vector<Misreading> all_misreadings() {
  return {
      {"backward: lse of the tile of 32 rows before",
       {"dk", "dv"},
       nothing,
       [](Backward& b) { b.lse_row = [](Index i, Index) { return i >= 32 ? i - 32 : i; }; }},
      {"backward: lse of the tile of 32 rows before, in the last tile of 64",
       {"dk", "dv"},
       nothing,
       [](Backward& b) { b.lse_row = [](Index i, Index) { return i >= 64 ? i - 32 : i; }; }},
      {"backward: delta of the first row of its tile of 16 rows",
       {"dq"},
       nothing,
       [](Backward& b) { b.delta_row = [](Index i, Index) { return i / 16 * 16; }; }},
      {"backward: delta of head 0",
       {"dq", "dk"},
       nothing,
       [](Backward& b) { b.delta_head = [](Index) { return Index{0}; }; }},
      {"backward: delta of the first 24 columns", {"dq"}, nothing, [](Backward& b) { b.delta_columns = 24; }},
      {"backward: in/k in its product with dS of the tile of 32 keys before",
       {"dq"},
       nothing,
       [](Backward& b) { b.vector_key = [](Index j) { return j >= 32 ? j - 32 : j; }; }},
      {"backward: in/k in its product with dS of the tile of 32 keys before, in the last tile of 64",
       {"dq"},
       nothing,
       [](Backward& b) { b.vector_key = [](Index j) { return j >= 64 ? j - 32 : j; }; }},
      {"backward: in/k in its product with dS of the other half of its tile of 32 keys",
       {"dq"},
       nothing,
       [](Backward& b) { b.vector_key = [](Index j) { return (j ^ 16) < 100 ? j ^ 16 : j; }; }},
      {"backward: delta of the first row of its tile of 4 rows",
       {"dq", "dk"},
       nothing,
       [](Backward& b) { b.delta_row = [](Index i, Index) { return i / 4 * 4; }; }},
      {"backward: terms of the sum missing, in 16 of every 32 keys, from 16 on, in columns 16..",
       {"dq"},
       nothing,
       [](Backward& b) { b.share = [](Index j, Index d) { return d >= 16 && j % 32 >= 16 ? 0 : 1; }; }},
      {"backward: lse of the tile of 16 rows before, in the third tile of 16 query rows that takes part, "
       "from "
       "a multiple of 32 on",
       {"dk", "dv"},
       [](Setup& s) { s.spec.causal = Causal::top_left, s.queries = 100; },
       [](Backward& b) {
         b.lse_row = [](Index i, Index j) { return i / 16 == j / 32 * 2 + 2 ? i - 16 : i; };
       }},
      {"backward: in/v in dP of head h mod Hkv",
       {"dk"},
       nothing,
       [](Backward& b) { b.v_head_of_query_head = [](Index h) { return h % 2; }; }},
      {"backward: in/do in dP with tiles of 16 x 16 transposed",
       {"dk"},
       nothing,
       [](Backward& b) { b.turns_do = true; }},
      {"backward: dS with blocks of 8 x 8 exchanged",
       {"dk"},
       [](Setup& s) { s.queries = s.keys = 96; },
       [](Backward& b) {
         const auto is_off = [](Index i, Index j) { return (i / 8 + j / 8) % 2 != 0; };
         b.ds_row = [=](Index i, Index j) { return is_off(i, j) ? i ^ 8 : i; };
         b.ds_key = [=](Index i, Index j) { return is_off(i, j) ? j ^ 8 : j; };
       }},
      {"backward: rows beyond the last, up to tiles of 64, read it again",
       {"dk", "dv"},
       nothing,
       [](Backward& b) { b.count = [](Index i, Index) { return i == 89 ? 39 : 1; }; }},
      {"backward: the window not applied within tiles of 32 rows and 32 keys",
       {"dk", "dv"},
       [](Setup& s) { s.spec.causal = Causal::bottom_right, s.spec.window_left = 20, s.queries = 100; },
       [](Backward& b) {
         b.sees = [](Index i, Index j) { return j <= i && j / 32 * 32 + 31 >= i / 32 * 32 - 20; };
       }},
      {"backward: keys of the leftmost tile of the window lost, in tiles of 1 rows and 32 keys",
       {"dq"},
       [](Setup& s) { s.spec.causal = Causal::bottom_right, s.spec.window_left = 50, s.queries = 100; },
       [](Backward& b) {
         b.sees = [](Index i, Index j) { return j <= i && j >= (std::max<Index>(i - 50, 0) + 31) / 32 * 32; };
       }},
      {"backward: rows before the tile on the top left diagonal lost",
       {"dk", "dv"},
       [](Setup& s) { s.spec.causal = Causal::bottom_right, s.queries = 60; },
       [](Backward& b) { b.sees = [](Index i, Index j) { return j <= i + 40 && i >= j / 32 * 32; }; }},
      {"backward: in/mask ignored",
       {"dk", "dv"},
       [](Setup& s) { s.has_mask = true; },
       [](Backward& b) { b.sees = [](Index, Index) { return true; }; }},
  };
}

}  // namespace

TEST_CASE("what the backward pass alone misreads is named first, and where", "[sweep]") {
  for (const DType element : {DType::float16, DType::bfloat16}) {
    for (const Misreading& misreading : all_misreadings()) {
      Setup setup = small();
      setup.element = element;
      misreading.asks(setup);
      Case c = right_dump(setup);
      INFO(misreading.cause);
      REQUIRE(judged(c).verdict == Verdict::pass);
      Backward backward;
      misreading.reads(backward);
      const Case right = c;
      for (const std::string& output : misreading.gradients)
        Gradients(setup, right, backward).write(c, output);
      CHECK(first_cause(c).substr(0, misreading.cause.size()) == misreading.cause);
    }
  }
}

TEST_CASE("faults that would make a row infinite explain nothing of it") {
  for (const std::uint64_t seed : {1, 2, 3, 4}) {
    Setup setup = plain_setup(DType::float32, 4, 4, 1, 1);
    setup.width = setup.v_width = 4;
    setup.seed = seed;
    setup.spec.scale = 400;
    Case c = dump_of(setup, honest_kernels(DType::float32)[2].kernel, true, {"o", "lse", "dq", "dk", "dv"});
    for (double& x : c.out.at("dv").values) x *= 0.5;
    CHECK(judged(c).verdict == Verdict::fail);
  }
}

TEST_CASE("delta of another base, and query heads that a gradient lacks, are named") {
  Setup setup = small();
  setup.element = GENERATE(DType::float16, DType::float32);
  setup.queries = 48;
  const Case right = right_dump(setup);
  const auto cause = [&](const Backward& backward, const std::string& output) {
    Case c = right;
    Gradients(setup, right, backward).write(c, output);
    return first_cause(c);
  };
  Backward in_base_2;
  in_base_2.delta_factor = std::numbers::log2e;
  CHECK(cause(in_base_2, "dq") == "backward: delta multiplied by log2(e)");
  Backward lossy;
  lossy.lost_head = 1;
  CHECK(cause(lossy, "dv") == "query head 1 of a group missing from dv");

  // Errors as large as dk itself are not called imprecise, whatever the type.
  Case c = right;
  Tensor& dk = c.out.at("dk");
  for (Index n = 0; n < dk.size(); ++n)
    dk.values[n] = round_to((1 + std::sin(static_cast<double>(n * n))) * dk.values[n], *dk.dtype);
  CHECK(first_cause(c) == "another P or dS than declared: no precision errs so much");
}

TEST_CASE("gradients that are too small for more digits were not stored in fewer") {
  Setup setup = small();
  Case c = right_dump(setup);
  for (double& x : c.in.at("do").values) x *= 0x1p-12;
  AttentionInputs in = views_of(c);
  const Tensor& d_o = c.in.at("do");
  const View<const double, 3> view{d_o.values.data(), {setup.q_heads, setup.queries, setup.v_width}};
  const Kernel kernel = honest_kernels(setup.element)[0].kernel;
  store(c, run(kernel, setup.spec, in, view, setup.element), {"o", "lse", "dq", "dk", "dv"}, setup.element,
        setup.element);
  Tensor& dq = c.out.at("dq");
  for (Index n = 0; n < dq.size(); n += 5) dq.values[n] *= 2;
  for (const DiagnosisEntry& x : judged(c).diagnosis) CHECK(x.cause.find("stored in") == std::string::npos);
}

TEST_CASE("a backward pass in plain loops that misreads nothing passes") {
  const Setup setup = small();
  Case c = right_dump(setup);
  const Case right = c;
  const Backward backward;
  for (const char* output : {"dq", "dk", "dv"}) Gradients(setup, right, backward).write(c, output);
  CHECK(judged(c).verdict == Verdict::pass);
}

TEST_CASE("a gradient of a bias that lacks a share, or has a factor, is named") {
  Setup setup = small();
  setup.bias_shape = {1, 1, setup.queries, setup.keys};
  const std::vector<std::string> outputs{"o", "lse", "dq", "dk", "dv", "dbias"};
  const Case right = dump_of(setup, honest_kernels(setup.element)[0].kernel, true, outputs);
  REQUIRE(judged(right).verdict == Verdict::pass);
  const Backward backward;
  const Gradients gradients(setup, right, backward);
  const auto cause = [&](auto factor_of_head) {
    Case c = right;
    Tensor& dbias = c.out.at("dbias");
    for (Index i = 0; i < setup.queries; ++i) {
      for (Index j = 0; j < setup.keys; ++j) {
        double sum = 0;
        for (Index h = 0; h < setup.q_heads; ++h) sum += factor_of_head(h) * gradients.ds(h, i, j);
        dbias.values[i * setup.keys + j] = round_to(sum, *dbias.dtype);
      }
    }
    return first_cause(c);
  };
  CHECK(cause([](Index h) { return h == 2 ? 0 : 1; }) == "dbias without head 2");
  CHECK(cause([](Index h) { return h == 1 ? 2 : 1; }) == "dbias with head 1 counted twice");
  CHECK(cause([](Index h) { return h < 2 ? 0 : 1; }) == "dbias without the heads of key/value head 0");
  CHECK(cause([&](Index) { return setup.spec.scale; }) == "dbias multiplied by the scale");
  CHECK(cause([](Index) { return 0.6; }) == "dbias multiplied by 0.6");

  Backward stale;
  stale.delta_row = [](Index i, Index) { return i >= 16 ? i - 16 : i; };
  const Gradients wrong(setup, right, stale);
  Case c = right;
  for (Index n = 0; n < c.out.at("dbias").size(); ++n) {
    double sum = 0;
    for (Index h = 0; h < setup.q_heads; ++h) sum += wrong.ds(h, n / setup.keys, n % setup.keys);
    c.out.at("dbias").values[n] = round_to(sum, *c.out.at("dbias").dtype);
  }
  CHECK(first_cause(c) == "backward: delta of the tile of 16 rows before");
}

TEST_CASE("a gradient of a sink that lacks rows, or has other weights, is named") {
  Setup setup = small();
  setup.element = DType::float32;
  setup.has_sink = true;
  const std::vector<std::string> outputs{"o", "lse", "dq", "dk", "dv", "dsink"};
  const Case right = dump_of(setup, honest_kernels(setup.element)[0].kernel, true, outputs);
  REQUIRE(judged(right).verdict == Verdict::pass);
  const Backward backward;
  const Gradients gradients(setup, right, backward);
  const auto cause = [&](auto weight) {
    Case c = right;
    Tensor& dsink = c.out.at("dsink");
    for (Index h = 0; h < setup.q_heads; ++h) {
      double sum = 0;
      for (Index i = 0; i < setup.queries; ++i) {
        const double p = std::exp(right.in.at("sink").values[h] - gradients.lse(h, i));
        sum -= weight(i, p) * gradients.delta(h, i);
      }
      dsink.values[h] = round_to(sum, *dsink.dtype);
    }
    return first_cause(c);
  };
  CHECK(cause([](Index, double p) { return p; }).starts_with("no failure"));
  CHECK(cause([](Index, double p) { return p * (1 - p); }) == "dsink with p (1 - p) in place of p");
  CHECK(cause([](Index i, double p) { return i >= 64 ? 0 : p; }) == "dsink without the last tile of 64 rows");
  CHECK(cause([](Index i, double p) { return i % 4 == 3 ? 0 : p; }) == "dsink without row 3 of every 4");
  CHECK(cause([](Index, double p) { return 0.3 * p; }) == "dsink multiplied by 0.3");
}
