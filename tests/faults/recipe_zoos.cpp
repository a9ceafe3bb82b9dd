// The zoos of faults that inputs are measured with: attention's, and smaller ones for operations on rows.
#include <algorithm>
#include <cmath>

#include "tests/emulate/norm.hpp"
#include "tests/emulate/rope.hpp"
#include "tests/emulate/softmax.hpp"
#include "tests/faults/fault.hpp"
#include "tests/faults/kernel_zoo.hpp"
#include "tests/faults/recipes.hpp"
#include "tests/faults/trial.hpp"

namespace attest::faults {
namespace {

std::string joined(const std::vector<std::string>& parts, const std::string& between) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : between) + part;
  return text;
}

/// Faults that only special inputs show, beside those of the zoo.
std::span<const Fault> input_faults() {
  static const Fault faults[] = {
      {.name = "absent keys are read",
       .source = "a length accepted, never applied",
       .in_reads = [](Case& read) { read.in.erase("kv_lengths"); }},
      {.name = "subnormal inputs are 0",
       .source = "flush-to-zero on loads",
       .in_reads =
           [](Case& read) {
             for (const char* name : {"q", "k", "v"}) {
               Tensor& tensor = read.in.at(name);
               const double least = std::ldexp(1.0, format_of(*tensor.dtype).emin);
               for (double& x : tensor.values) x = std::abs(x) < least ? 0 : x;
             }
           }},
      {.name = "subnormal results are 0",
       .source = "flush-to-zero on stores",
       .in_results =
           [](emulate::Results& r, const Setup& setup) {
             const double least = std::ldexp(1.0, format_of(setup.element).emin);
             for (double& x : r.o) x = std::abs(x) < least ? 0 : x;
           }},
  };
  return faults;
}

/// The options that a request needs for such a setup, and a name for them.
Context context_of(const Setup& s, bool with_gradients) {
  std::vector<std::string> name, set, with;
  const auto text = [](Index n) { return std::to_string(n); };
  if (with_gradients) name.push_back("backward"), with.push_back("do");
  if (s.spec.causal != Causal::none) {
    name.push_back(s.spec.causal == Causal::top_left ? "top_left" : "causal");
    set.push_back(std::string("causal=") + (s.spec.causal == Causal::top_left ? "top_left" : "bottom_right"));
  }
  if (s.q_heads > 2 * s.kv_heads) name.push_back("groups");
  if (s.spec.window_left >= 0) set.push_back("window_left=" + text(s.spec.window_left));
  if (s.spec.window_right >= 0) set.push_back("window_right=" + text(s.spec.window_right));
  if (s.spec.window_left >= 0) name.push_back(s.spec.window_right >= 0 ? "band" : "window");
  if (s.spec.softcap > 0) {
    name.push_back("softcap");
    set.push_back("softcap=" + text(static_cast<Index>(s.spec.softcap)));
  }
  if (s.has_mask) name.push_back("mask"), with.push_back("mask");
  if (!s.bias_shape.empty()) name.push_back("bias"), with.push_back("bias");
  if (s.has_alibi) name.push_back("alibi"), with.push_back("alibi_slopes");
  if (s.has_sink) name.push_back("sink"), with.push_back("sink");
  const std::string shape = "B=1,Hq=" + text(s.q_heads) + ",Hkv=" + text(s.kv_heads) +
                            ",Sq=" + text(s.queries) + ",Sk=" + text(s.keys) + ",D=" + text(s.width) +
                            ",E=" + text(s.v_width);
  return {
      name.empty() ? "plain" : joined(name, "_"), shape, "Sk=512", joined(set, ","), joined(with, ","), {}};
}

Setup with_element(Setup setup, DType element, const Case& inputs) {
  setup.element = element;
  setup.keys = inputs.in.at("k").shape[2];
  setup.spec.scale = std::get<double>(inputs.spec.at("scale"));
  return setup;
}

Case softmax_dump(const Case& inputs, DType element, const emulate::SoftmaxKernel& kernel) {
  Case c = inputs;
  const Tensor& x = c.in.at("x");
  const Index rows = x.shape[0], width = x.shape[1];
  emulate::SoftmaxSetup setup;
  setup.element = element;
  Tensor &y = c.out["y"] = emulate::tensor_of(element, x.shape),
         &lse = c.out["lse"] = emulate::tensor_of(DType::float32, {rows});
  const std::vector<double> kept(width, 1), none(width, 0);
  const Rounding rounding = kernel.truncates ? Rounding::toward_zero : Rounding::to_nearest_even;
  for (Index r = 0; r < rows; ++r) {
    const std::vector<double> row(&x.values[r * width], &x.values[r * width] + width);
    const auto result = emulate::SoftmaxDevice<float>(setup, kernel).row(row, kept, none);
    for (Index j = 0; j < width; ++j)
      y.values[r * width + j] = round_to(static_cast<double>(result.y[j]), element, rounding);
    lse.values[r] = static_cast<double>(result.lse);
  }
  return c;
}

template <bool is_centred>
Case norm_dump(const Case& inputs, DType element, const emulate::NormKernel& kernel) {
  Case c = inputs;
  emulate::NormSetup setup;
  setup.is_centred = is_centred;
  setup.element = setup.weight = element;
  setup.shape = c.in.at("x").shape;
  setup.eps = std::get<double>(c.spec.at("eps"));
  Tensor& y = c.out["y"] = emulate::tensor_of(element, setup.shape);
  y.values = emulate::norm_values(setup, kernel, c, element);
  return c;
}

emulate::RopeSetup rope_setup(const Case& inputs, DType element) {
  emulate::RopeSetup setup;
  const std::vector<Index>& shape = inputs.in.at("x").shape;
  const auto number = [&](const char* key, double otherwise) {
    const auto at = inputs.spec.find(key);
    if (at == inputs.spec.end()) return otherwise;
    const auto* integer = std::get_if<std::int64_t>(&at->second);
    return integer ? static_cast<double>(*integer) : std::get<double>(at->second);
  };
  setup.element = element;
  setup.batch = shape[0], setup.heads = shape[1], setup.rows = shape[2], setup.width = shape[3];
  setup.rotary_dim = static_cast<Index>(number("rotary_dim", static_cast<double>(setup.width)));
  setup.position_start = number("position_start", 0);
  setup.frequencies.theta = number("theta", 10000);
  if (inputs.spec.contains("scaling")) {
    setup.frequencies.scaling = RopeScaling::linear;
    setup.frequencies.factor = number("factor", 1);
  }
  return setup;
}

}  // namespace

Zoo softmax_zoo() {
  using K = emulate::SoftmaxKernel;
  using emulate::Way;
  KernelZoo<K> zoo("softmax", softmax_dump);
  zoo.context({"plain", "R=6,N=100", "R=2,N=16384", "", "", {}});
  zoo.add("the maximum is not subtracted", [](K& k, DType) { k.way = Way::naive; });
  zoo.add("one rescaling is missed", [](K& k, DType) { k.way = Way::online, k.forgets_rescale = true; });
  zoo.add("last element not in the sum", [](K& k, DType) { k.dropped = 1; });
  zoo.add("three zeros too many in the sum", [](K& k, DType) { k.padded = 3; });
  zoo.add("sum in float16", [](K& k, DType) { k.sum = DType::float16; });
  zoo.add("sum in bfloat16", [](K& k, DType) { k.sum = DType::bfloat16; });
  zoo.add("exp off by 1e-2", [](K& k, DType) { k.exp_error = 1e-2; });
  zoo.add("exp off by 1e-3", [](K& k, DType) { k.exp_error = 1e-3; });
  zoo.add("exp off by 1e-5", [](K& k, DType) { k.exp_error = 1e-5; });
  zoo.add("scale times 1.01", [](K& k, DType) { k.scale_factor = 1.01; });
  zoo.add("scale times 1.0001", [](K& k, DType) { k.scale_factor = 1.0001; });
  zoo.add("y rounded through bfloat16", [](K& k, DType) { k.weights = DType::bfloat16; });
  zoo.add("y rounded through float16", [](K& k, DType) { k.weights = DType::float16; });
  zoo.add("y in float8_e4m3fn", [](K& k, DType) { k.weights = DType::float8_e4m3fn; });
  zoo.add("y cut off", [](K& k, DType) { k.truncates = true; });
  zoo.add("lse in base 2", [](K& k, DType) { k.lse_factor = 1.4426950408889634; });
  zoo.add("lse without the maximum", [](K& k, DType) { k.lse_lacks_m = true; });
  return zoo.zoo();
}

Zoo norm_zoo(bool is_centred) {
  using K = emulate::NormKernel;
  KernelZoo<K> zoo(is_centred ? "layer_norm" : "rms_norm", is_centred ? norm_dump<true> : norm_dump<false>);
  zoo.context({"plain", "R=6,N=90", "R=2,N=16384", "", "weight", {}});
  zoo.add("eps outside the root", [](K& k, DType) { k.mistakes.eps_outside = true; });
  zoo.add("no eps", [](K& k, DType) { k.mistakes.no_eps = true; });
  zoo.add("eps in the element type", [](K& k, DType) { k.mistakes.eps_in_element = true; });
  zoo.add("mean over N - 1", [](K& k, DType) { k.mistakes.over_n_minus_1 = true; });
  zoo.add("mean over a padded width", [](K& k, DType) { k.mistakes.over_padded_width = true; });
  zoo.add("sums in float16", [](K& k, DType) { k.mistakes.sum_dtype = DType::float16; });
  zoo.add("sums in bfloat16", [](K& k, DType) { k.mistakes.sum_dtype = DType::bfloat16; });
  zoo.add("squares in the element type", [](K& k, DType) { k.mistakes.squares_in_element = true; });
  zoo.add("rstd in bfloat16", [](K& k, DType) { k.mistakes.rstd_in_bfloat16 = true; });
  zoo.add("cast before the weight", [](K& k, DType) { k.mistakes.casts = true; });
  zoo.add("no weight", [](K& k, DType) { k.mistakes.no_weight = true; });
  zoo.add("statistics of the row before", [](K& k, DType) { k.mistakes.statistics_of_row_before = true; });
  zoo.add(is_centred ? "rms_norm in its place" : "layer_norm in its place",
          [](K& k, DType) { k.mistakes.is_other_op = true; });
  if (is_centred) zoo.add("variance in one pass", [](K& k, DType) { k.moments = K::Moments::one_pass; });
  return zoo.zoo();
}

Zoo rope_zoo() {
  using F = emulate::RopeFault;
  Zoo zoo{"rope", {}, {}};
  const auto add = [&](const std::string& name, const std::string& set, const std::string& with,
                       std::initializer_list<F> faults) {
    const auto dump = [](F fault) {
      return [fault](const Case& inputs, DType element) {
        emulate::RopeKernel kernel;
        kernel.fault = fault;
        return emulate::rope_dump(inputs, rope_setup(inputs, element), kernel);
      };
    };
    zoo.contexts.push_back({name, "H=2,S=40,D=32", "H=1,S=600", set, with, dump(F::none)});
    for (const F fault : faults)
      zoo.faults.push_back(
          {std::string(emulate::name_of(fault)), "", zoo.contexts.size() - 1, dump(fault), {}});
  };
  add("plain", "", "",
      {F::other_style, F::position_plus_one, F::position_minus_one, F::last_row_plus_one, F::table_bfloat16,
       F::table_float16, F::inv_freq_bfloat16, F::theta_10001, F::position_bfloat16, F::sin_sign,
       F::sum_float16});
  add("partial", "rotary_dim=16", "", {F::rotary_dim_ignored});
  add("scaled", "scaling=linear,factor=4", "", {F::scaling_ignored});
  add("backward", "", "dy", {F::transposed_gradient});
  return zoo;
}

Zoo attention_zoo() {
  Zoo zoo{"attention", {}, {}};
  Setup base;
  base.queries = 40, base.keys = 70;
  std::vector<const Fault*> all;
  for (const emulate::Family& family : emulate::all_families())
    for (const Fault& fault : family.faults) all.push_back(&fault);
  for (const Fault& fault : input_faults()) all.push_back(&fault);
  for (const Fault* fault : all) {
    Setup setup = base;
    if (fault->needs) fault->needs(setup);
    const bool with_gradients = fault->is_backward;
    Context context = context_of(setup, with_gradients);
    auto at = std::ranges::find_if(zoo.contexts, [&](const Context& c) {
      return c.shape == context.shape && c.set == context.set && c.with == context.with;
    });
    if (at == zoo.contexts.end()) {
      static const Fault none{.name = "none", .source = ""};
      context.honest = [=](const Case& inputs, DType element) {
        return emulate::faulty_dump_of(inputs, with_element(setup, element, inputs), base_kernel(element),
                                       none, with_gradients, dumped);
      };
      const auto is_taken = [&](const std::string& name) {
        return std::ranges::any_of(zoo.contexts, [&](const Context& c) { return c.name == name; });
      };
      for (int n = 2; is_taken(context.name); ++n)
        context.name = context.name.substr(0, context.name.find('-')) + "-" + std::to_string(n);
      at = zoo.contexts.insert(zoo.contexts.end(), std::move(context));
    }
    zoo.faults.push_back({std::string(fault->name), std::string(fault->source),
                          static_cast<std::size_t>(at - zoo.contexts.begin()),
                          [=](const Case& inputs, DType element) {
                            return emulate::faulty_dump_of(inputs, with_element(setup, element, inputs),
                                                           base_kernel(element), *fault, with_gradients,
                                                           dumped);
                          },
                          fault->elements});
  }
  return zoo;
}

}  // namespace attest::faults
