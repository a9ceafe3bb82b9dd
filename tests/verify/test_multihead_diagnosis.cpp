// What is said of multi-head attention that fails: other operands, heads, masks, softmaxes and stores.
#include <algorithm>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/multihead_attention.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr DType elements[] = {DType::float16, DType::bfloat16, DType::float32};

MultiheadSetup setup_of(DType element) {
  MultiheadSetup setup;
  setup.element = element;
  setup.queries = 37;
  return setup;
}

MultiheadKernel honest(DType element) {
  MultiheadKernel kernel;
  kernel.attention.algorithm = Algorithm::standard;
  kernel.attention.p_dtype = kernel.intermediate = element;
  return kernel;
}

template <class Plant>
std::string cause_of(const MultiheadSetup& setup, Plant plant) {
  MultiheadKernel kernel = honest(setup.element);
  plant(kernel);
  Case c = multihead_dump(setup, kernel);
  c.contract.clear();
  return first_cause(c);
}

/// What a kernel reads that the case gives otherwise.
template <class Change>
std::string cause_of_other_inputs(const MultiheadSetup& setup, Change change) {
  Case c = multihead_dump(setup, honest(setup.element));
  c.contract.clear();
  change(c);
  return first_cause(c);
}

}  // namespace

TEST_CASE("operands of a multi-head attention that are made of another tensor or of other heads are named") {
  for (const DType element : elements) {
    MultiheadSetup setup = setup_of(element);
    INFO(format_of(element).name);
    CHECK(cause_of(setup, [](MultiheadKernel& k) { k.swaps_k_and_v = true; }) == "k and v exchanged");
    setup.is_self = false;
    CHECK(cause_of(setup, [](MultiheadKernel& k) { k.makes_values_of_key = true; }) ==
          "v made of in/key, not of in/value");
    setup.is_self = true;
    CHECK(cause_of(setup, [](MultiheadKernel& k) { k.joins_heads_untransposed = true; }) ==
          "heads joined without transposing: [H, S, D] taken for [S, M]");
  }
}

TEST_CASE("keys that rows of a multi-head attention see too many or too few of are named") {
  for (const DType element : elements) {
    MultiheadSetup setup = setup_of(element);
    setup.causal = Causal::top_left;
    INFO(format_of(element).name);
    CHECK(cause_of(setup, [](MultiheadKernel& k) { k.attention.mistakes.diagonal_shift = 1; }) ==
          "a causal diagonal 1 key further");
    CHECK(cause_of(setup, [](MultiheadKernel& k) { k.attention.mistakes.diagonal_shift = -1; }) ==
          "a causal diagonal 1 key earlier");
  }
}

TEST_CASE("what a multi-head attention adds or shows twice or of one head only is named") {
  for (const DType element : elements) {
    const MultiheadSetup setup = setup_of(element);
    INFO(format_of(element).name);
    CHECK(cause_of(setup, [](MultiheadKernel& k) { k.shows_weights_of_head_0 = true; }) ==
          "weights of the first head only");
    CHECK(cause_of_other_inputs(setup, [](Case& c) {
            for (double& b : c.in.at("out_proj_bias").values) b /= 2;
          }) == "out_proj_bias added twice");
  }
}

TEST_CASE("q, k, v and o in another type, and projections in tf32, are named") {
  MultiheadSetup setup = setup_of(DType::float32);
  CHECK(cause_of(setup, [](MultiheadKernel& k) { k.projects_in_tf32 = true; }) == "the projections in tf32");
  CHECK(cause_of(setup, [](MultiheadKernel& k) { k.attended = DType::bfloat16; }) ==
        "o of the heads stored in bfloat16");
  CHECK(cause_of(setup, [](MultiheadKernel& k) { k.projected = DType::float16; }) ==
        "q, k and v stored in float16");
}

TEST_CASE("masks, biases and tokens of a multi-head attention at other places are named") {
  for (const DType element : elements) {
    INFO(format_of(element).name);
    MultiheadSetup setup = setup_of(element);
    setup.batch = 3, setup.has_mask = true;
    for (const bool has_other_head : {false, true}) {
      CHECK(cause_of_other_inputs(
                setup,
                [&](Case& c) {
                  Tensor& mask = c.in.at("mask");
                  const std::vector<double> used = mask.values;  // [B, 1, 1, Sk]
                  mask.shape = {3, 4, 1, 37};
                  mask.values.resize(mask.size());
                  for (Index number = 0; number < 12; ++number) {
                    const Index read = number % 3 * 4 + (has_other_head ? number / 3 : number % 4);
                    std::copy_n(used.begin() + number / 4 * 37, 37, mask.values.begin() + read * 37);
                  }
                }) == (has_other_head ? "masks taken for those of layout [H, B], not [B, H]"
                                      : "the mask of batch entry (b H + h) mod B"));
    }
    setup = setup_of(element);
    CHECK(cause_of_other_inputs(setup, [&](Case& c) {
            const std::vector<double>& bias = c.in.at("out_proj_bias").values;
            Tensor& y = c.out.at("y");
            for (Index at = 0; at < y.size(); ++at)
              y.values[at] = round_to(y.values[at] + bias[at / 64 % 64] - bias[at % 64], element);
          }) == "out_proj_bias indexed by the number of the token, not by the column");
    setup.batch_first = true, setup.causal = Causal::top_left;
    for (const bool is_only_read : {false, true}) {
      const std::string taken =
          "tokens of layout lbm taken for blm: token r is row r mod S of batch entry r / S";
      CHECK(cause_of_other_inputs(setup, [&](Case& c) {
              c.spec["layout"] = std::string("lbm");
              c.out.erase("weights");
              c.in.at("x").shape = c.out.at("y").shape = {37, 2, 64};
              const std::vector<double> y = c.out.at("y").values;
              for (Index b = 0; is_only_read && b < 2; ++b)
                for (Index i = 0; i < 37; ++i)
                  std::copy_n(y.begin() + (b * 37 + i) * 64, 64,
                              c.out.at("y").values.begin() + (i * 2 + b) * 64);
            }) == taken + (is_only_read ? ", where they are read" : ""));
    }
  }
}

TEST_CASE("a store that only makes the errors of a multi-head attention spread further is named") {
  CHECK(cause_of(setup_of(DType::float16), [](MultiheadKernel& k) { k.attended = DType::bfloat16; }) ==
        "o of the heads stored in float16, then in bfloat16");
}
