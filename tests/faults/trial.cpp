// One emulated dump, judged by attest and by the rules of others.
#include "tests/faults/trial.hpp"

#include <algorithm>
#include <cmath>

#include "ref/attention.hpp"

namespace attest::faults {
namespace {

/// As PyTorch computes it out of separate operations: every result is stored in the element type.
Kernel plain_kernel(DType element) {
  Kernel kernel;
  kernel.algorithm = emulate::Algorithm::standard;
  kernel.p_dtype = element;
  kernel.ds_from_stored_p = kernel.ds_is_scaled = true;
  kernel.stores_gradients_per_head = true;
  if (element != DType::float32) kernel.mistakes.scores = element;
  return kernel;
}

std::map<std::string, std::vector<double>> values_of(const Case& c) {
  std::map<std::string, std::vector<double>> values;
  for (const auto& [name, tensor] : c.out) values[name] = tensor.values;
  return values;
}

/// Rounded to the element types.
std::map<std::string, std::vector<double>> exact_results(const Setup& setup, bool with_gradients) {
  Case c = emulate::inputs_of(setup, setup.element);
  const AttentionInputs in = emulate::views_of(c);
  const Index rows = setup.q_heads * setup.queries;
  emulate::Results r;
  r.o.resize(rows * setup.v_width);
  r.lse.resize(rows);
  const View<double, 3> o{r.o.data(), {setup.q_heads, setup.queries, setup.v_width}};
  const View<double, 2> lse{r.lse.data(), {setup.q_heads, setup.queries}};
  ref::attention_forward(setup.spec, in, {o, lse, {}, {}, {}, {}});
  if (with_gradients) {
    const View<const double, 3> d_o{c.in.at("do").values.data(),
                                    {setup.q_heads, setup.queries, setup.v_width}};
    r.dq.resize(c.in.at("q").size()), r.dk.resize(c.in.at("k").size()), r.dv.resize(c.in.at("v").size());
    std::vector<double> ds(rows * setup.keys);
    ref::AttentionGradients out;
    out.dq = {r.dq.data(), {setup.q_heads, setup.queries, setup.width}};
    out.dk = {r.dk.data(), {setup.kv_heads, setup.keys, setup.width}};
    out.dv = {r.dv.data(), {setup.kv_heads, setup.keys, setup.v_width}};
    out.ds = {ds.data(), {setup.q_heads, setup.queries, setup.keys}};
    if (in.sink) {
      r.dsink.resize(setup.q_heads);
      out.dsink = {r.dsink.data(), {setup.q_heads}};
    }
    ref::attention_backward(setup.spec, in,
                            {{o.data_handle(), {setup.q_heads, setup.queries, setup.v_width}},
                             {lse.data_handle(), {setup.q_heads, setup.queries}},
                             d_o},
                            out);
    if (in.bias) {
      r.dbias.resize(c.in.at("bias").size());
      for (Index h = 0; h < setup.q_heads; ++h) {
        for (Index i = 0; i < setup.queries; ++i) {
          for (Index j = 0; j < setup.keys; ++j)
            r.dbias[&in.bias(h, i, j) - in.bias.data_handle()] += out.ds(h, i, j);
        }
      }
    }
  }
  emulate::store(c, r, dumped, setup.element, setup.element);
  for (auto& [name, tensor] : c.out) {
    for (double& x : tensor.values) x = round_to(x, *tensor.dtype);
  }
  return values_of(c);
}

}  // namespace

Truth::Truth(const Setup& setup, bool with_gradients)
    : exact_(exact_results(setup, with_gradients)),
      plain_(values_of(emulate::dump_of(setup, plain_kernel(setup.element), with_gradients, dumped))) {}

std::array<int, rule_count> Truth::rejections(const Case& dump) const {
  std::array<int, rule_count> count{};
  for (const auto& [name, tensor] : dump.out) {
    const Judged judged{name, *tensor.dtype, tensor.values, exact_.at(name), plain_.at(name)};
    for (std::size_t n = 0; n < count.size(); ++n) count[n] += other_rules()[n].rejects(judged) ? 1 : 0;
  }
  return count;
}

Kernel base_kernel(DType element) {
  Kernel kernel = emulate::honest_kernels(element)[0].kernel;
  kernel.tile = 32;
  return kernel;
}

std::vector<NamedKernel> honest_variants(DType element) {
  using emulate::Adder;
  using emulate::Algorithm;
  std::vector<NamedKernel> all = emulate::honest_kernels(element);
  const bool has_tensor_core = format_of(element).bits <= 16;
  const Adder narrow{has_tensor_core ? Adder::Kind::tensor_core : Adder::Kind::blocked, 8, 1};
  const Adder wide{has_tensor_core ? Adder::Kind::tensor_core : Adder::Kind::blocked, 16, 2};
  const auto add = [&](const std::string& name, const Adder& adder, Algorithm algorithm, auto change) {
    NamedKernel& k = all.emplace_back(NamedKernel{name, {}});
    k.kernel.p_dtype = element;
    k.kernel.qk = k.kernel.pv = adder;
    k.kernel.algorithm = algorithm;
    change(k.kernel);
  };
  add("deferred, tile 32, blocks of 8", narrow, Algorithm::flash2, [](Kernel&) {});
  add("deferred, tile 128, last tile first, dS from stored P", wide, Algorithm::flash2, [](Kernel& k) {
    k.tile = 128;
    k.reversed = k.ds_from_stored_p = true;
  });
  add("normalised every tile, blocks of 8", narrow, Algorithm::flash1, [](Kernel& k) { k.tile = 16; });
  add("whole rows, blocks of 8, scaled dS", narrow, Algorithm::standard,
      [](Kernel& k) { k.ds_is_scaled = true; });
  add("split keys, last tile first, maxima that stay until exceeded by 5", narrow, Algorithm::flash2,
      [](Kernel& k) {
        k.splits = 2;
        k.reversed = true;
        k.lazy_rescale = 5;
      });
  return all;
}

Outcome outcome_of(const Fault& fault, const Setup& setup, const Case& honest, const Truth& truth) {
  Outcome outcome;
  const Case broken =
      emulate::faulty_dump_of(setup, base_kernel(setup.element), fault, fault.is_backward, dumped);
  outcome.is_equivalent = true;
  for (const auto& [name, tensor] : honest.out) {
    const std::vector<double>& other = broken.out.at(name).values;
    for (std::size_t n = 0; n < other.size(); ++n) {
      const double a = tensor.values[n], b = other[n];
      outcome.is_equivalent &= a == b || (std::isnan(a) && std::isnan(b));
    }
  }
  if (outcome.is_equivalent) return outcome;

  const CaseFindings findings = emulate::judged(broken);
  outcome.verdict = findings.verdict;
  outcome.fails_by_o = emulate::output(findings, "o").verdict == Verdict::fail;
  if (!findings.diagnosis.empty()) outcome.cause = findings.diagnosis.front().cause;
  outcome.is_named = std::ranges::any_of(fault.named, [&](std::string_view part) {
    return part.front() == '=' ? outcome.cause == part.substr(1)
                               : outcome.cause.find(part) != std::string::npos;
  });
  const std::array<int, rule_count> rejections = truth.rejections(broken);
  for (std::size_t n = 0; n < rejections.size(); ++n) outcome.rejected[n] = rejections[n] > 0;
  return outcome;
}

}  // namespace attest::faults
