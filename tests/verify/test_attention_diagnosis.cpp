// What is said of kernels that read, mask or place something else than the dump declares.
#include <cmath>
#include <functional>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

/// The answer of a kernel that keeps the contract to `read`, under `seen`, labelled as one to `asked`.
Case answered(Case asked, const Case& read, const Setup& seen, const Kernel& kernel) {
  AttentionInputs in = views_of(read);
  if (const auto lengths = read.in.find("kv_lengths"); lengths != read.in.end()) {
    const Index keys = static_cast<Index>(lengths->second.values[0]);
    in.k = in.k.narrowed(1, 0, keys), in.v = in.v.narrowed(1, 0, keys);
  }
  store(asked, run(kernel, seen.spec, in, {}, seen.element), {"o", "lse"}, seen.element, seen.element);
  asked.in.erase("do");
  return asked;
}

struct Misreading {
  std::string cause;                                 // how the diagnosis begins
  std::function<void(Setup&)> asks = [](Setup&) {};  // what the dump declares
  std::function<void(Setup&, Case&)> sees;           // what the kernel makes of it
  std::function<void(Case&)> adds = [](Case&) {};    // an input that setups do not have
  std::function<void(Kernel&)> in_kernel = [](Kernel&) {};
};

Setup declared(DType element) {
  return plain_setup(element, 150, 150, 4, 2);
}

/// Row n of the tensor is what was row from(n) of its head.
template <class From>
void move_rows(Tensor& t, From from) {
  const Tensor before = t;
  const Index rows = t.shape[2], width = t.shape[3];
  for (Index n = 0; n < t.shape[1] * rows; ++n)
    std::copy_n(&before.values[(n / rows * rows + from(n % rows)) * width], width, &t.values[n * width]);
}

/// One head for each query head, which is what head of(h) was.
template <class Of>
void spread_heads(Tensor& t, Index heads, Of of) {
  const Tensor before = t;
  const Index size = t.shape[2] * t.shape[3];
  t.shape[1] = heads;
  t.values.resize(heads * size);
  for (Index h = 0; h < heads; ++h) std::copy_n(&before.values[of(h) * size], size, &t.values[h * size]);
}

void causal(Setup& s) {
  s.spec.causal = Causal::bottom_right;
}
void windowed(Setup& s) {
  causal(s);
  s.spec.window_left = 40;
}
void capped(Setup& s) {
  s.spec.softcap = 2;
}
void biased(Setup& s) {
  s.bias_shape = {1, s.q_heads, s.queries, s.keys};
}
void tilted(Setup& s) {
  causal(s);
  s.has_alibi = true;
}
void with_length(Case& c) {
  c.in["kv_lengths"] = {"int64", {}, {1}, {70}};
}
Index exchanged(Index j) {
  return j >= 32 && j < 48 ? j + 32 : j >= 64 && j < 80 ? j - 32 : j;
}
Index copied(Index j) {
  return j >= 64 && j < 80 ? j - 16 : j;
}
void change_slopes(Case& c, const std::function<double(const Tensor&, Index)>& slope) {
  const Tensor before = c.in.at("alibi_slopes");
  for (Index h = 0; h < before.size(); ++h) c.in.at("alibi_slopes").values[h] = slope(before, h);
}

std::vector<Misreading> all_misreadings() {
  return {
      {"window_left = 52", windowed, [](Setup& s, Case&) { s.spec.window_left = 52; }},
      {"window_left = 17", windowed, [](Setup& s, Case&) { s.spec.window_left = 17; }},
      {"a causal diagonal 3 keys too far", causal, [](Setup&, Case&) {}, [](Case&) {},
       [](Kernel& k) { k.mistakes.diagonal_shift = 3; }},
      {"softcap before the scale", capped, [](Setup& s, Case&) { s.spec.softcap *= s.spec.scale; }},
      {"softcap without its outer factor", capped,
       [](Setup& s, Case&) { s.spec.scale /= s.spec.softcap, s.spec.softcap = 1; }},
      {"softcap applied twice", capped, [](Setup&, Case&) {}, [](Case&) {},
       [](Kernel& k) { k.mistakes.softcap_twice = true; }},
      {"the tile of 32 keys on the diagonal missing", causal,
       [](Setup& s, Case& c) {
         Tensor mask{"bool", {}, {1, 1, s.queries, s.keys}, {}};
         for (Index i = 0; i < s.queries; ++i)
           for (Index j = 0; j < s.keys; ++j) mask.values.push_back(j < i / 32 * 32);
         c.in["mask"] = mask;
       }},
      {"in/bias added twice", biased,
       [](Setup&, Case& c) {
         for (double& x : c.in.at("bias").values) x *= 2;
       }},
      {"in/bias of head 0 in all heads", biased,
       [](Setup&, Case& c) {
         Tensor& bias = c.in.at("bias");
         bias.shape[1] = 1;
         spread_heads(bias, 4, [](Index) { return 0; });
       }},
      {"in/bias of another head: the one after", biased,
       [](Setup&, Case& c) { spread_heads(c.in.at("bias"), 4, [](Index h) { return (h + 1) % 4; }); }},
      {"in/bias with rows for columns", biased,
       [](Setup& s, Case& c) {
         Tensor& bias = c.in.at("bias");
         const Tensor before = bias;
         const Index n = s.keys;
         for (Index x = 0; x < bias.size(); ++x)
           bias.values[x] = before.values[x / (n * n) * n * n + x % n * n + x / n % n];
       }},
      {"columns 48..63 missing in q.k", [](Setup&) {},
       [](Setup&, Case& c) {
         Tensor& k = c.in.at("k");
         for (Index n = 0; n < k.size(); ++n)
           if (n % 64 >= 48) k.values[n] = 0;
       }},
      {"ALiBi slopes of the head before", tilted,
       [](Setup&, Case& c) {
         change_slopes(
             c, [](const Tensor& slopes, Index h) { return slopes.values[std::max<Index>(h - 1, 0)]; });
       },
       [](Case& c) {
         c.in.at("alibi_slopes").values = {0.5, 0.1, 0.3, 0.02};
       }},
      {"ALiBi slopes of the key/value heads", tilted,
       [](Setup&, Case& c) {
         change_slopes(c, [](const Tensor& slopes, Index h) { return slopes.values[h / 2]; });
       }},
      {"ALiBi slopes 2^(8/Hq) times too large", tilted,
       [](Setup&, Case& c) {
         change_slopes(c, [](const Tensor& slopes, Index h) { return 4 * slopes.values[h]; });
       }},
      {"ALiBi by position", tilted, [](Setup& s, Case&) { s.spec.alibi = Alibi::position; }},
      {"ALiBi with the usual slopes", causal,
       [](Setup&, Case& c) {
         c.in["alibi_slopes"] = {"float32", DType::float32, {4}, {0x1p-2, 0x1p-4, 0x1p-6, 0x1p-8}};
       }},
      {"a sink, of score 1.5 in head 0", [](Setup&) {},
       [](Setup&, Case& c) {
         c.in["sink"] = {"float32", DType::float32, {4}, {1.5, 2.5, 0.5, 3.5}};
       }},
      {"query head h reads key/value head min(h, Hkv - 1)", [](Setup&) {},
       [](Setup&, Case& c) {
         for (const char* name : {"k", "v"})
           spread_heads(c.in.at(name), 4, [](Index h) { return std::min<Index>(h, 1); });
       }},
      {"query head h reads K of its key/value head, but V of head h mod Hkv", [](Setup&) {},
       [](Setup&, Case& c) {
         spread_heads(c.in.at("k"), 4, [](Index h) { return h / 2; });
         spread_heads(c.in.at("v"), 4, [](Index h) { return h % 2; });
       }},
      {"query head h reads V of its key/value head, but K of head h mod Hkv", [](Setup&) {},
       [](Setup&, Case& c) {
         spread_heads(c.in.at("k"), 4, [](Index h) { return h % 2; });
         spread_heads(c.in.at("v"), 4, [](Index h) { return h / 2; });
       }},
      {"pages of K or V exchanged: keys 32..47 and 64..79", [](Setup&) {},
       [](Setup&, Case& c) { move_rows(c.in.at("v"), exchanged); }},
      {"pages of K or V exchanged: keys 32..47 and 64..79", causal,
       [](Setup&, Case& c) { move_rows(c.in.at("v"), exchanged); }},
      {"keys 64..79 take the rows of K and V of keys 48..63", [](Setup&) {},
       [](Setup&, Case& c) { move_rows(c.in.at("k"), copied), move_rows(c.in.at("v"), copied); }},
      {"in/kv_lengths one key too long", [](Setup&) {},
       [](Setup&, Case& c) { c.in.at("kv_lengths").values = {71}; }, with_length},
      {"in/kv_lengths rounded up to tiles of 32", [](Setup&) {},
       [](Setup&, Case& c) { c.in.at("kv_lengths").values = {96}; }, with_length},
      {"the last key missing", [](Setup&) {},
       [](Setup&, Case& c) {
         c.in["kv_lengths"] = {"int64", {}, {1}, {149}};
       }},
  };
}

}  // namespace

TEST_CASE("what a kernel misreads is named first", "[sweep]") {
  // All in float16, and half in each of the other types.
  const bool is_float16 = GENERATE(true, false);
  bool is_bfloat16 = false;
  for (const Misreading& misreading : all_misreadings()) {
    is_bfloat16 = !is_bfloat16;
    const DType element = is_float16 ? DType::float16 : is_bfloat16 ? DType::bfloat16 : DType::float32;
    Setup setup = declared(element);
    setup.kv_heads = 2;
    misreading.asks(setup);
    Kernel kernel = honest_kernels(element)[0].kernel;
    Case asked = inputs_of(setup, kernel.p_dtype);
    misreading.adds(asked);
    Case read = asked;
    Setup seen = setup;
    misreading.sees(seen, read);
    misreading.in_kernel(kernel);
    const Case c = answered(asked, read, seen, kernel);
    const CaseFindings findings = judged(c);
    INFO(misreading.cause << ": " << summary(findings));
    REQUIRE(!findings.diagnosis.empty());
    INFO("named: " << findings.diagnosis.front().cause);
    CHECK(findings.diagnosis.front().cause.starts_with(misreading.cause));
  }
}

TEST_CASE("exchanged heads and batch entries are named") {
  Setup setup = declared(DType::float16);
  setup.kv_heads = 4;
  Case c = dump_of(setup, honest_kernels(DType::float16)[0].kernel, false, {"o"});
  Tensor& o = c.out.at("o");
  spread_heads(o, 4, [](Index h) { return h < 2 ? 1 - h : h; });
  CHECK(first_cause(c) ==
        "rows of o hold the results of those in head 0 instead of 1; in head 1 instead of 0");

  for (auto* tensors : {&c.in, &c.out}) {  // heads of one entry as entries of one head
    for (auto& [name, tensor] : *tensors) std::swap(tensor.shape[0], tensor.shape[1]);
  }
  CHECK(first_cause(c).starts_with("rows of o hold the results of those in sequence "));
}

TEST_CASE("a diagonal that is off in the backward pass alone is named") {
  const DType element = GENERATE(DType::float16, DType::float32);
  Setup setup = declared(element);
  setup.queries = setup.keys = 70;
  causal(setup);
  Kernel kernel = honest_kernels(element)[0].kernel;
  for (const auto& [shift, words] : {std::pair{3, "3 keys too far"}, std::pair{-2, "2 keys short"}}) {
    kernel.mistakes.diagonal_shift_of_backward = shift;
    CHECK(first_cause(dump_of(setup, kernel, true, {"o", "lse", "dq", "dk", "dv"})) ==
          std::string("backward: a causal diagonal ") + words);
  }
}

TEST_CASE("errors that no precision makes are not called imprecise") {
  const Setup setup = declared(DType::float16);
  const Kernel kernel = honest_kernels(DType::float16)[0].kernel;
  Setup seen = setup;
  biased(seen);
  const Case asked = inputs_of(setup, kernel.p_dtype);
  Case read = inputs_of(seen, kernel.p_dtype);
  for (const char* name : {"q", "k", "v"}) read.in.at(name) = asked.in.at(name);
  CHECK(first_cause(answered(asked, read, seen, kernel)) ==
        "other scores or other keys than declared: no precision errs so much");

  Case c = dump_of(setup, kernel, true, {"o", "lse", "dq", "dk", "dv"});
  for (const char* name : {"dq", "dk", "dv"}) {  // no gradient of anything
    for (double& x : c.out.at(name).values) x = round_to(1 + std::abs(x), DType::float16);
  }
  CHECK(first_cause(c) == "another P or dS than declared: no precision errs so much");
}

TEST_CASE("tensors in another layout than declared are named so") {
  const DType element = GENERATE(DType::float16, DType::float32);
  Setup setup = declared(element);
  setup.spec.causal = GENERATE(Causal::none, Causal::top_left);
  const auto exchanged = [](const Tensor& t) {
    Tensor moved = t;
    const Index heads = t.shape[1], rows = t.shape[2], width = t.shape[3];
    std::swap(moved.shape[1], moved.shape[2]);
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < rows; ++i)
        for (Index d = 0; d < width; ++d)
          moved.values[(i * heads + h) * width + d] = t.values[(h * rows + i) * width + d];
    return moved;
  };
  Case c = dump_of(setup, honest_kernels(element)[0].kernel, false, {"o"});
  for (const char* name : {"q", "k", "v"}) c.in[name] = exchanged(c.in.at(name));
  c.out["o"] = exchanged(c.out.at("o"));
  c.in.erase("do");
  CHECK(first_cause(c) == "layout = bshd");
}
